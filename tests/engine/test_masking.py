"""A secret is masked in every form, wherever text leaves a worker."""

import asyncio
import base64
import html
import json
import logging
import shlex
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.toolkit.secret_values import forms, masked
from pipeline_runner.cli.following import follow
from pipeline_runner.cli.session import Interrupts, Target
from tests.conftest import Pipelines
from tests.engine.texts import pipeline, step, undone

VALUE = "hunter2 & 'corréct'/horse+\"batt\\ery\"<staple>"


def basic(value: str) -> str:
    return base64.b64encode(f"me:{value}".encode()).decode()


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "in a sentence": lambda value: f"the token {value} is wrong",
    "clipped": lambda value: f"Authorization: {value[:-4]}",
    "clipped early": lambda value: f"Authorization: {value[: len(value) // 3]}",
    "clipped with dots": lambda value: f"Authorization: {value[: len(value) // 3]}... (1 more line)",
    "clipped at its start": lambda value: f"{value[-len(value) // 3 :]} is wrong",
    "cut in the middle": lambda value: f"the token {value[: len(value) * 2 // 3]}[cut] is wrong",
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64url": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "base64 of more": basic,
    "base64 clipped": lambda value: basic(value)[:-8],
    "JSON": lambda value: json.dumps({"token": value}),
    "JSON, not ASCII": lambda value: json.dumps({"token": value}, ensure_ascii=False),
    "JSON in JSON": lambda value: json.dumps(json.dumps({"token": value})),
    "URL": lambda value: f"https://example.org/?token={quote(value, safe='')}",
    "a path of a URL": lambda value: f"https://example.org/{quote(value)}",
    "a form": lambda value: f"token={quote_plus(value)}&x=1",
    "URL in lower case": lambda value: quote(value, safe="").lower(),
    "Python": repr,
    "shell": shlex.quote,
    "HTML": html.escape,
    "hexadecimal": lambda value: value.encode().hex(),
}
"""What programs and servers echo for a secret."""


def telling(encoding: str) -> set[str]:
    """What gives the secret away: eight characters in a row that another secret would not have there."""
    secret, other = (
        {part[k : k + 8] for part in ENCODINGS[encoding](value).split("[cut]") for k in range(len(part) - 7)}
        for value in (VALUE, "x" * len(VALUE))
    )
    return secret - other


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_secret_leaves_in_no_form_and_by_no_way(
    pipelines: Pipelines,
    encoding: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    monkeypatch.setattr(logging.getLogger("temporalio.activity"), "level", logging.DEBUG)
    caplog.set_level(logging.DEBUG)

    @activity.defn(name="test.leak")
    async def leak(given: dict[str, str]) -> dict[str, Any]:
        text = ENCODINGS[encoding](given["token"])
        activity.heartbeat(text, {text: [text]})
        activity.logger.info("through the activity's logger: %s", text)
        logging.getLogger("shop").info("through a logger of my own: %s", text)
        try:
            raise KeyError(text)
        except KeyError as error:
            logging.getLogger("shop").exception("with a trace")
            if "fail" in given:
                raise ApplicationError(
                    text, text, {"d": [text], text: 1}, type="Leak", non_retryable=True
                ) from error
        await asyncio.sleep(0)
        return {"text": text, text: [text], "bytes": base64.b64encode(text.encode()).decode()}

    given = "with: {{token: '{{{{ secrets.TOKEN }}}}'{more}}}"
    bundle = pipelines.bundle(
        pipeline(
            step(pipelines, "test.leak", given.format(more=""), more=undone("o")),
            step(pipelines, "test.leak", given.format(more=", fail: yes")).replace("id: o", "id: p", 1),
            head="secrets: [TOKEN]\n",
        )
    )  # fmt: skip
    async with pipelines.worker(leak):
        handle = await pipelines.start(bundle)
        here = Target(settings={"target_host": "unused"}, embedded=None)
        assert await follow(pipelines.client, handle, Interrupts(), here, cancels=True) == 1
    history = b"".join([event.SerializeToString() async for event in handle.fetch_history_events()])
    screen = capsys.readouterr()
    assert "p: " in screen.err
    assert "[Leak]" in screen.err
    assert "through the activity's logger: " in caplog.text
    assert "through a logger of my own: " in caplog.text
    for part in telling(encoding):
        assert part.encode() not in history, part
        assert part not in caplog.text, part
        assert part not in screen.err + screen.out, part


def test_short_secrets_mask_themselves_alone() -> None:
    """Their codes are found in texts that have nothing to do with them."""
    secrets = tuple(sorted(forms("abc"), key=len, reverse=True))
    assert secrets == ("abc",)
    text = "YWJj 616263 ab bc, a list of abbreviations"
    assert masked(text, secrets) == text
    assert masked({"n": 123, "abc": "xabcx"}, ("abc",)) == {"n": 123, "***": "x***x"}


def test_texts_that_share_a_few_characters_with_a_secret_are_left_alone() -> None:
    secrets = tuple(sorted(forms("https://me:pass@example.org/"), key=len, reverse=True))
    for text in ("https://temporal.io/docs", "see https://example.com", "me", "org/", "http"):
        assert masked(text, secrets) == text


def test_a_number_that_is_the_secret_is_masked() -> None:
    assert masked("12345678, 1234567 times", ("12345678",)) == "***, 1234567 times"
    assert masked([12345678, 1234567, True, 1.5], ("12345678",)) == ["***", 1234567, True, 1.5]


def test_masking_a_large_text_takes_no_time_to_speak_of() -> None:
    key = (
        "-----BEGIN KEY-----\n"
        + "\n".join(f"{k:02}" + "Ab+/" * 15 for k in range(25))
        + "\n-----END KEY-----"
    )
    secrets = tuple(sorted(forms(key), key=len, reverse=True))
    text = "the quick brown fox " * 50_000
    assert masked(text, secrets) == text
    assert masked(text + key.splitlines()[3], secrets) == text + "***"
