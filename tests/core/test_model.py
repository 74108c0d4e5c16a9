"""The bundle: what it holds survives the way to Temporal and back, canonically and compactly."""

import json

import msgspec
import pytest

from pipeline_runner.core.model import (
    ActivityCall,
    Bundle,
    ChildCall,
    Compensation,
    Fail,
    Pipeline,
    Retry,
    Step,
    Timeouts,
    Wait,
    bundle_hash,
    decode,
    encode,
)

Policy = tuple[Timeouts, Retry]
FAST: Policy = (Timeouts(start_to_close=30.0), Retry(maximum_attempts=3))
SLOW: Policy = (Timeouts(start_to_close=600.0, heartbeat=30.0), Retry(maximum_attempts=2))


def bundle() -> Bundle:
    def call(name: str, policy: Policy) -> ActivityCall:
        timeouts, retry = policy
        return ActivityCall(name=name, input={"a": ["{{ x }}", 1]}, timeouts=timeouts, retry=retry)

    steps = (
        Step(
            id="a",
            action=call("one", FAST),
            compensate=Compensation(action=call("undo", SLOW), after="started"),
        ),
        Step(id="b", action=call("two", SLOW), compensate="none", when="true", name="b"),
        Step(id="c", action=ChildCall(pipeline="c.yaml", retry=Retry(maximum_attempts=2))),
        Step(id="d", action=Wait(duration="3s")),
    )
    last = (Step(id="e", action=call("three", FAST)), Step(id="f", action=Fail(message="no")))
    child = Pipeline(name="c", steps=(Step(id="g", action=call("one", FAST)),))
    return Bundle(
        root="p.yaml",
        pipelines={"p.yaml": Pipeline(name="p", steps=steps, finally_=last, timeout=5.0), "c.yaml": child},
    )


def test_a_bundle_comes_back_as_it_was() -> None:
    assert decode(encode(bundle())) == bundle()


def test_policies_stand_once() -> None:
    data = json.loads(encode(bundle()))
    assert data["format"] == 1
    assert data["policies"] == [
        {"retry": {"maximum_attempts": 3}, "timeouts": {"start_to_close": 30.0}},
        {"retry": {"maximum_attempts": 2}, "timeouts": {"heartbeat": 30.0, "start_to_close": 600.0}},
    ]
    first = data["pipelines"]["p.yaml"]["steps"][0]
    assert (first["action"]["policy"], first["compensate"]["action"]["policy"]) == (0, 1)


def test_equal_bundles_have_equal_bytes_and_hashes() -> None:
    shuffled = json.loads(encode(bundle()))
    again = decode(json.dumps(dict(reversed(shuffled.items()))).encode())
    assert encode(again) == encode(bundle())
    assert bundle_hash(encode(again)).startswith("sha256:")
    changed = msgspec.structs.replace(bundle(), root="c.yaml")
    assert bundle_hash(encode(changed)) != bundle_hash(encode(bundle()))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"pipelines": {}, "root": "x", "format": 1}', b'{"pipelines": [], "root": "x"}',
        encode(bundle()).replace(b'"policy":1', b'"policy":7'), encode(bundle()).replace(b'"kind":"wait"', b'"kind":"nap"'),
        encode(bundle()).replace(b'"duration"', b'"length"'),
    ],
)  # fmt: skip
def test_what_is_no_bundle_of_this_version_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data)
