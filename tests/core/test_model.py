"""The bundle: what it holds survives the way to Temporal and back, canonically and compactly."""

import json
from typing import Any, get_args

import msgspec
import msgspec.inspect
import pytest

from pipeline_runner.core.model import (
    Action,
    ActivityCall,
    Bundle,
    Call,
    ChildCall,
    Compensation,
    Fail,
    Pipeline,
    Retry,
    Step,
    Timeouts,
    Wait,
    bundle_hash,
    calls_of,
    decode,
    encode,
    steps_of,
    with_calls,
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


def full(kind: type, depth: int) -> list[Any]:
    """Return values of a type with all of its fields set, in every way in which its unions can be taken."""
    match msgspec.inspect.type_info(kind):
        case msgspec.inspect.StructType(fields=fields):
            if not depth:
                return []
            ways = {field.name: full_of(field.type, depth - 1) for field in fields}
            if any(field.required and not ways[field.name] for field in fields):
                return []
            most = max((len(way) for way in ways.values()), default=1)
            return [
                kind(**{name: way[n % len(way)] for name, way in ways.items() if way}) for n in range(most)
            ]
    raise AssertionError(kind)


def full_of(info: Any, depth: int) -> list[Any]:
    match info:
        case msgspec.inspect.StructType(cls=cls):
            return full(cls, depth)
        case msgspec.inspect.UnionType(types=types):
            return [value for one in types for value in full_of(one, depth)]
        case msgspec.inspect.VarTupleType(item_type=item):
            return [tuple(full_of(item, depth))]
        case msgspec.inspect.ListType(item_type=item):
            return [full_of(item, depth)]
        case msgspec.inspect.DictType(value_type=value):
            return [{f"k{n}": one for n, one in enumerate(full_of(value, depth))}]
        case msgspec.inspect.LiteralType(values=values):
            return list(values)
        case msgspec.inspect.StrType():
            return ["x"]
        case msgspec.inspect.BoolType():
            return [True]
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return [1]
        case msgspec.inspect.NoneType() | msgspec.inspect.AnyType():
            return []
    raise AssertionError(f"say here how a value of this type is made: {info}")


def held(value: object, kind: Any) -> list[Any]:
    """Find what is of a type in a value, wherever it is."""
    found = [value] if isinstance(value, kind) else []
    if isinstance(value, msgspec.Struct):
        return found + [one for name in value.__struct_fields__ for one in held(getattr(value, name), kind)]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return found + [one for each in inside for one in held(each, kind)]


def test_every_walk_finds_every_step_and_call_that_the_model_can_hold() -> None:
    """A construct that holds steps, and that a walk does not know, fails here."""
    for pipeline in full(Pipeline, 6):
        steps = held(pipeline, Step)
        kinds = {type(step.action) for step in steps}
        assert kinds == set(get_args(Action))
        assert any(isinstance(step.compensate, Compensation) for step in steps)
        assert sorted(map(id, steps_of(pipeline))) == sorted(map(id, steps))
        calls = held(pipeline, Call)
        assert sorted(map(id, calls_of(pipeline))) == sorted(map(id, calls))
        changed = with_calls(pipeline, lambda call: msgspec.structs.replace(call, task_queue="changed"))
        assert [call.task_queue for call in held(changed, Call)] == ["changed"] * len(calls)
        assert held(changed, Step) == [*steps_of(changed)]
        bundle = Bundle(root="p", pipelines={"p": pipeline})
        assert encode(bundle).count(b'"policy":') == len(held(pipeline, ActivityCall))
        assert decode(encode(bundle)) == bundle


def test_steps_are_walked_in_the_order_of_the_file() -> None:
    pipeline = bundle().pipelines["p.yaml"]
    assert [step.id for step in steps_of(pipeline)] == ["a", "b", "c", "d", "e", "f"]
    assert [call.name for call in calls_of(pipeline) if isinstance(call, ActivityCall)] == [
        "one",
        "undo",
        "two",
        "three",
    ]
