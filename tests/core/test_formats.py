"""The formats of JSON Schema that are checked."""

from typing import Any

import pytest

from pipeline_runner.core.inputs import InvalidInputs, validate_inputs
from pipeline_runner.core.schemas.formats import FORMATS

GOOD = {
    "date": ["2028-02-29"],
    "date-time": ["2030-01-31T12:00:00Z", "2030-01-31t12:00:00.123+05:30", "2016-12-31T23:59:60Z"],
    "email": ["a.b+c@example.com", "a@localhost"],
    "uri": ["https://example.com/a?b=c#d", "urn:isbn:1", "mailto:a@example.com"],
    "ipv4": ["127.0.0.1"],
    "ipv6": ["::1", "2001:db8::ff"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
}
BAD = {
    "date": ["2030-02-30", "20300131", "2030-01-31\n", "\u0662\u0660\u0663\u0660-01-31"],
    "date-time": ["2030-01-31", "2030-01-31T12:00:00", "2030-01-31T24:00:01Z", "2030-01-31T12:00:00+24:00"],
    "email": ["a", "@a", "a@", "a b@c", "a@b@c"],
    "uri": ["a/b", "https://a b", "https:", "https://a/%zz"],
    "ipv4": ["256.0.0.1", "1.2.3", "::1"],
    "ipv6": ["127.0.0.1", "fe80::1%eth0", ":::"],
    "uuid": ["123e4567e89b12d3a456426614174000", "{123e4567-e89b-12d3-a456-426614174000}"],
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_judged(name: str) -> None:
    """What is no string fits, as JSON Schema says."""
    schema: dict[str, Any] = {"type": ["string", "integer"], "format": name}
    for value in (*GOOD[name], 3):
        assert validate_inputs({"x": schema}, {"x": value}) == {"x": value}
    for value in BAD[name]:
        with pytest.raises(InvalidInputs) as caught:
            validate_inputs({"x": schema}, {"x": value})
        (problem,) = caught.value.problems
        assert problem.path == "x"
        assert problem.message.startswith(f'must be a valid "{name}", not ')
