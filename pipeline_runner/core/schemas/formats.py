"""The formats of JSON Schema that are checked. The result does not depend on installed packages.

A value that is not a string matches every format, as in JSON Schema.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?(?:[Zz]|[-+]([0-9]{2}):([0-9]{2}))"
)
_EMAIL = re.compile(r"[^\s@\x00-\x1f<>(),;:\\\"\[\]]{1,64}@[^\s@.\x00-\x1f]+(?:\.[^\s@.\x00-\x1f]+)*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_LAST_HOUR, _LAST_MINUTE = 23, 59


def _is_date_time(text: str) -> bool:
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        return False
    hours, minutes = int(match[2] or 0), int(match[3] or 0)
    return (
        hours <= _LAST_HOUR
        and minutes <= _LAST_MINUTE
        # Python does not know leap seconds.
        and _parses(datetime.fromisoformat, re.sub(r":60$", ":59", match[1].upper()))
    )


def _parses(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _of_strings(judge: Callable[[str], bool]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or judge(value)


FORMATS: Mapping[str, Callable[[object], bool]] = {
    "date": _of_strings(lambda text: bool(_DATE.fullmatch(text)) and _parses(date.fromisoformat, text)),
    "date-time": _of_strings(_is_date_time),
    "email": _of_strings(lambda text: bool(_EMAIL.fullmatch(text))),
    "uri": _of_strings(lambda text: bool(_URI.fullmatch(text))),
    "ipv4": _of_strings(lambda text: _parses(ipaddress.IPv4Address, text)),
    "ipv6": _of_strings(lambda text: "%" not in text and _parses(ipaddress.IPv6Address, text)),
    "uuid": _of_strings(lambda text: bool(_UUID.fullmatch(text))),
}
"""By the name of the format: whether a value matches."""
