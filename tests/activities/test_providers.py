"""The door: what modules offer, to the catalogue and to a worker."""

import importlib.metadata
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline_runner.activities.catalogue import entries as catalogue
from pipeline_runner.activities.catalogue import generate, importing, providers
from pipeline_runner.activities.catalogue.entries import Argument, Entry
from pipeline_runner.activities.catalogue.providers import ProviderError, activities_of, catalogue_of
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.core.model import Retry, Timeouts

Module = Callable[[str], str]

HEAD = """
from dataclasses import dataclass
from typing import Any, TypedDict
from temporalio import activity
from pipeline_runner.activity import Undo, describe
from pipeline_runner.core.model import Retry, Timeouts
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Write a module into the current folder and return its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = list(sys.path)

    def write(text: str) -> str:
        name = f"provider_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(text))
        return name

    yield write
    assert sys.path == path


def own(name: str) -> Any:
    """Return a module of the current directory as the door has imported it."""
    return importing.directory(Path.cwd()).load(name)


def _entries(name: str) -> dict[str, Entry]:
    return {entry.name: entry for entry in catalogue_of(name)}


def _served(name: str) -> list[str]:
    return sorted(activity.__name__ for activity in activities_of(name))


def test_decorated_functions_are_offered(module: Module) -> None:
    name = module("""
        @activity.defn(name="shop.charge")
        async def charge(): ...
        @activity.defn
        def refund(): ...
        def helper(): ...
        again = charge
    """)
    assert list(_entries(name)) == ["refund", "shop.charge"]
    assert _entries(name)["shop.charge"].implementation == f"{name}:charge"
    assert _served(name) == ["charge", "refund"]


def test_imported_activities_are_offered_too(module: Module) -> None:
    first = module("""
        @activity.defn
        def one(): ...
    """)
    second = module(f"from {first} import one\n")
    assert _entries(second)["one"].implementation == f"{first}:one"


def test_methods_of_instances_are_offered(module: Module) -> None:
    name = module("""
        class Mail:
            def __init__(self, host): self.host = host
            @activity.defn(name="mail.send")
            def send(self, text: str) -> str: return self.host
        mail = Mail("h")
    """)
    assert _entries(name)["mail.send"].input == {"type": "string"}
    assert [activity("text") for activity in activities_of(name)] == ["h"]


def test_a_class_without_arguments_is_instantiated_only_to_serve(module: Module) -> None:
    name = module("""
        made = []
        class Base:
            @activity.defn
            def one(self): return "base"
        class Mail(Base):
            def __init__(self, host="default", *rest, **more): made.append(self)
            @activity.defn
            def two(self): ...
    """)
    assert list(_entries(name)) == ["one", "two"]
    assert own(name).made == []
    assert _served(name) == ["one", "two"]
    assert len(own(name).made) == 1


def test_a_class_that_needs_arguments_is_known_but_cannot_be_served(module: Module) -> None:
    name = module("""
        class Mail:
            def __init__(self, host, port, user=None): ...
            @activity.defn
            def send(self): ...
    """)
    assert list(_entries(name)) == ["send"]
    with pytest.raises(ProviderError) as caught:
        activities_of(name)
    assert str(caught.value) == (
        f'the class Mail of the module "{name}" has activities, but needs host, port: make an instance'
        " in the module, or write activities = lambda: [Mail(…).send]"
    )


def test_a_list_decides_what_is_offered(module: Module) -> None:
    name = module("""
        @activity.defn
        def one(): ...
        @activity.defn
        def two(): ...
        activities = (two,)
    """)
    assert list(_entries(name)) == ["two"]
    assert _served(name) == ["two"]


def test_a_function_is_called_only_to_serve(module: Module) -> None:
    """It may connect to something that is not there when files are checked."""
    name = module("""
        calls = []
        class Mail:
            def __init__(self, host): ...
            @activity.defn
            def send(self): ...
        def activities():
            calls.append(1)
            return [Mail("h").send]
    """)
    assert list(_entries(name)) == ["send"]
    assert own(name).calls == []
    assert _served(name) == ["send"]
    assert own(name).calls == [1]


def test_a_function_is_called_when_nothing_else_is_known(module: Module) -> None:
    first = module("""
        @activity.defn
        def one(): ...
    """)
    second = module(f"import {first}\nactivities = lambda: [{first}.one]\n")
    assert list(_entries(second)) == ["one"]


def test_facts_are_attached_above_or_below(module: Module) -> None:
    name = module("""
        facts = describe(timeouts=Timeouts(heartbeat=5.0), retry=Retry(maximum_attempts=2),
                         undo=Undo("undo", {"key": "{{ step.key }}"}))
        @facts
        @activity.defn
        def above(): ...
        @activity.defn
        @facts
        def below(): ...
        class Some:
            @facts
            @activity.defn
            def method(self): ...
    """)
    for entry in _entries(name).values():
        assert entry.timeouts == Timeouts(heartbeat=5.0)
        assert entry.retry == Retry(maximum_attempts=2)
        assert (entry.effect_free, entry.undo) == (False, Undo("undo", {"key": "{{ step.key }}"}))


@pytest.mark.parametrize(
    ("undo", "message"),
    [
        ('Undo("back", {"key": "{{ step.key }"})', 'a single "}" is not allowed'),
        ('Undo("back", args=["{{ inputs.name }}"])', 'there is no "inputs", there are error, run, step'),
        ('Undo("back", {"a": [{"b": "{{ secrets.T }}"}]})', 'there is no "secrets"'),
        ('Undo("back", {}, [])', '"input" and "args" are two ways'),
        ('Undo("back"), effect_free=True', "an activity that is effect-free has none"),
    ],
)
def test_an_undo_that_cannot_work_is_refused_with_its_line(module: Module, undo: str, message: str) -> None:
    name = module(f"""
        @describe(undo={undo})
        @activity.defn
        def one(): ...
    """)
    with pytest.raises(providers.ProviderError) as caught:
        _entries(name)
    assert 'the undo by "back": ' + message in str(caught.value)
    assert f"{name}.py, line " in str(caught.value)


def test_schemas_come_from_type_hints(module: Module) -> None:
    name = module('''
        @dataclass
        class Inner:
            a: int
        @dataclass
        class Order:
            inner: Inner
            count: int = 1
        class Receipt(TypedDict):
            id: str
        @activity.defn
        async def charge(order: Order) -> Receipt:
            """Charge
            a card.

            More about it.
            """
    ''')
    entry = _entries(name)["charge"]
    assert entry.description == "Charge a card."
    assert entry.input == {
        "title": "Order",
        "type": "object",
        "properties": {"inner": {"$ref": "#/$defs/Inner"}, "count": {"type": "integer", "default": 1}},
        "required": ["inner"],
        "additionalProperties": False,
        "$defs": {
            "Inner": {
                "title": "Inner",
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
                "additionalProperties": False,
            }
        },
    }
    assert entry.output == {
        "title": "Receipt",
        "type": "object",
        "properties": {"id": {"type": "string"}},
        "required": ["id"],
        "additionalProperties": False,
    }


OBJECT = {
    "title": "Kind",
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "string", "default": "x"}},
    "required": ["a"],
    "additionalProperties": False,
}
KINDS = {
    "dataclass": ("@dataclass\nclass Kind:\n    a: int\n    b: str = 'x'\n", OBJECT),
    "msgspec": ("class Kind(msgspec.Struct):\n    a: int\n    b: str = 'x'\n", OBJECT),
    "TypedDict": (
        "class Kind(TypedDict):\n    a: int\n    b: NotRequired[str]\n",
        OBJECT | {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
    ),
    "TypedDict, not total": (
        "class Kind(TypedDict, total=False):\n    a: int\n",
        OBJECT | {"properties": {"a": {"type": "integer"}}, "required": []},
    ),
    "NamedTuple": (
        "class Kind(NamedTuple):\n    a: int\n    b: str = 'x'\n",
        {
            "title": "Kind",
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string", "default": "x"}],
            "minItems": 1,
            "maxItems": 2,
        },
    ),
    "no fields": (
        "@dataclass\nclass Kind: ...\n",
        {"title": "Kind", "type": "object", "properties": {}, "required": [], "additionalProperties": False},
    ),
    "mapping": ("Kind = dict[str, int]\n", {"type": "object", "additionalProperties": {"type": "integer"}}),
    "any mapping": ("Kind = dict[str, Any]\n", {"type": "object"}),
    "text": ("Kind = str\n", {"type": "string"}),
    "number or nothing": ("Kind = int | None\n", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    "texts": ("Kind = list[str]\n", {"type": "array", "items": {"type": "string"}}),
    "words": ("Kind = Literal['a', 'b']\n", {"enum": ["a", "b"]}),
}


@pytest.mark.parametrize(("text", "schema"), KINDS.values(), ids=KINDS)
def test_every_kind_of_type_has_a_schema(module: Module, text: str, schema: dict[str, Any]) -> None:
    """What goes in and what comes out are told alike, and closed where the fields are fixed."""
    name = module(
        "import msgspec\nfrom typing import Literal, NamedTuple, NotRequired\n"
        f"{text}@activity.defn\ndef some(given: Kind) -> Kind: ...\n"
    )
    entry = _entries(name)["some"]
    assert (entry.input, entry.output, entry.arguments) == (schema, schema, None)


PYDANTIC = """
import pydantic
class Inner(pydantic.BaseModel):
    a: int
class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int
class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    a: int
class Renamed(pydantic.BaseModel):
    a: int = pydantic.Field(alias="A")
class Either(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    a: int = pydantic.Field(alias="A")
class Several(pydantic.BaseModel):
    a: int = pydantic.Field(validation_alias=pydantic.AliasChoices("A", "AA"))
class Tree(pydantic.BaseModel):
    children: list["Tree"] = []
class Computed(pydantic.BaseModel):
    a: int = 1
    @pydantic.computed_field
    def twice(self) -> int: return 2 * self.a
@dataclass
class Outer:
    inner: Inner
    mapping: dict[str, Inner]
class Broken(pydantic.BaseModel):
    @classmethod
    def __get_pydantic_json_schema__(cls, core, handler): raise OSError("no")
"""
A = {"a": {"title": "A", "type": "integer"}}
INNER = {
    "title": "Inner",
    "type": "object",
    "properties": A,
    "required": ["a"],
    "additionalProperties": False,
}
TO_INNER = {"$ref": "#/$defs/Inner"}


def _pydantic(module: Module, hint: str) -> Entry:
    return _entries(module(f"{PYDANTIC}\n@activity.defn\ndef some(given: {hint}) -> {hint}: ...\n"))["some"]


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        ("Inner", INNER),
        ("Strict", INNER | {"title": "Strict"}),
        ("Open", INNER | {"title": "Open", "additionalProperties": True}),
        ("list[Inner]", {"type": "array", "items": TO_INNER, "$defs": {"Inner": INNER}}),
        ("Inner | None", {"anyOf": [TO_INNER, {"type": "null"}], "$defs": {"Inner": INNER}}),
        (
            "Outer",
            {
                "title": "Outer",
                "type": "object",
                "properties": {
                    "inner": TO_INNER,
                    "mapping": {"title": "Mapping", "type": "object", "additionalProperties": TO_INNER},
                },
                "required": ["inner", "mapping"],
                "additionalProperties": False,
                "$defs": {"Inner": INNER},
            },
        ),
        ("Broken", None),
    ],
)
def test_pydantic_models_are_known(module: Module, hint: str, schema: dict[str, Any] | None) -> None:
    entry = _pydantic(module, hint)
    assert (entry.input, entry.output) == (schema, schema)


def test_a_pydantic_model_may_contain_itself(module: Module) -> None:
    entry = _pydantic(module, "Tree")
    assert entry.input is not None
    assert entry.input["$ref"] == "#/$defs/Tree"
    assert entry.input["$defs"]["Tree"]["additionalProperties"] is False


def test_what_pydantic_computes_comes_out_and_does_not_go_in(module: Module) -> None:
    entry = _pydantic(module, "Computed")
    assert entry.input is not None
    assert entry.output is not None
    assert set(entry.input["properties"]) == {"a"}
    assert set(entry.output["properties"]) == {"a", "twice"}
    assert entry.input["additionalProperties"] is entry.output["additionalProperties"] is False


@pytest.mark.parametrize(
    ("hint", "closed_in", "closed_out"),
    [("Renamed", True, False), ("Either", False, False), ("Several", False, True)],
)
def test_a_pydantic_model_whose_fields_have_other_names_is_open(
    module: Module, hint: str, *, closed_in: bool, closed_out: bool
) -> None:
    """The schema has one name for each field; others must not be taken for mistakes."""
    entry = _pydantic(module, hint)
    assert entry.input is not None
    assert entry.output is not None
    assert (entry.input["additionalProperties"] is False) == closed_in
    assert ("required" in entry.input) == closed_in
    assert (entry.output["additionalProperties"] is False) == closed_out


def test_pydantic_is_not_imported_for_others(module: Module) -> None:
    name = module("""
        class Odd: ...
        @activity.defn
        def some(given: Odd) -> Odd: ...
    """)
    code = (
        "import sys\nfrom pipeline_runner.activities.catalogue.providers import catalogue_of\n"
        f"(entry,) = catalogue_of({name!r})\n"
        "assert (entry.input, entry.output) == (None, None)\n"
        "print('pydantic' in sys.modules)\n"
    )
    path = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert done.stdout == "False\n"


NUMBER, TEXT = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("", ()),
        ("**more", ()),
        ("one: int, two: str", (Argument(name="one", schema=NUMBER), Argument(name="two", schema=TEXT))),
        (
            "one: int, two: str = 'x'",
            (Argument(name="one", schema=NUMBER), Argument(name="two", schema=TEXT, required=False)),
        ),
        ("one, two", (Argument(name="one"), Argument(name="two"))),
        ("one: int, two: Any", (Argument(name="one", schema=NUMBER), Argument(name="two"))),
        ("one: int, /, two: int", (Argument(name="one", schema=NUMBER), Argument(name="two", schema=NUMBER))),
        ("*args", None),
        ("*args: int", None),
        ("one: int, *args", None),
    ],
)
def test_arguments_of_what_does_not_take_exactly_one(
    module: Module, signature: str, expected: tuple[Argument, ...] | None
) -> None:
    name = module(f"@activity.defn\ndef some({signature}): ...\n")
    entry = _entries(name)["some"]
    assert (entry.input, entry.arguments) == (None, expected)
    assert msgspec.convert(json.loads(msgspec.json.encode(entry)), Entry) == entry


def test_arguments_of_methods_are_those_after_self(module: Module) -> None:
    name = module("""
        class Shop:
            @activity.defn
            def none(self): ...
            @activity.defn
            def two(self, one: int, two: int): ...
        shop = Shop()
    """)
    entries = _entries(name)
    assert entries["none"].arguments == ()
    assert [argument.name for argument in entries["two"].arguments or ()] == ["one", "two"]


@pytest.mark.parametrize("signature", ["one: int", "one: int, **more"])
def test_one_argument_is_the_input(module: Module, signature: str) -> None:
    entry = _entries(module(f"@activity.defn\ndef some({signature}): ...\n"))["some"]
    assert (entry.input, entry.arguments) == (NUMBER, None)


def test_one_argument_that_may_be_left_out_is_known_as_that(module: Module) -> None:
    entry = _entries(module("@activity.defn\ndef some(one: int = 3): ...\n"))["some"]
    assert entry.input == NUMBER
    assert entry.arguments == (Argument(name="one", schema=NUMBER, required=False),)


def test_a_type_may_contain_itself(module: Module) -> None:
    name = module("""
        @dataclass
        class Tree:
            children: list["Tree"]
        @activity.defn
        def plant(tree: Tree) -> None: ...
    """)
    entry = _entries(name)["plant"]
    assert entry.input is not None
    assert entry.input["$ref"] == "#/$defs/Tree"
    assert entry.input["$defs"]["Tree"]["additionalProperties"] is False
    assert entry.output == {"type": "null"}


@pytest.mark.parametrize(
    "signature",
    ["one", "one: Any", "one: object", "one: int, two: int", "", "one: Odd"],
)
def test_what_the_hints_do_not_say_is_not_known(module: Module, signature: str) -> None:
    name = module(f"class Odd:\n    pass\n@activity.defn\ndef some({signature}): ...\n")
    assert (_entries(name)["some"].input, _entries(name)["some"].output) == (None, None)


def test_dynamic_activities_are_served_and_have_no_entry(module: Module) -> None:
    name = module("""
        from collections.abc import Sequence
        from temporalio.common import RawValue
        @activity.defn(dynamic=True)
        def anything(args: Sequence[RawValue]) -> None: ...
        @activity.defn
        def some() -> None: ...
    """)
    assert list(_entries(name)) == ["some"]
    assert _served(name) == ["anything", "some"]


def test_lazy_objects_are_not_woken_up(module: Module) -> None:
    name = module("""
        class Lazy:
            def __getattr__(self, name): raise RuntimeError("woken up")
        lazy = Lazy()
        @activity.defn
        def some(): ...
    """)
    assert _served(name) == ["some"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nowhere_to_be_found\n",
            "ModuleNotFoundError: No module named 'nowhere_to_be_found' ({file}, line 7)",
        ),
        ("1 / 0\n", "ZeroDivisionError: division by zero ({file}, line 7)"),
        ("raise SystemExit('no config')\n", "SystemExit: no config ({file}, line 7)"),
        ("def f(:\n", "SyntaxError: invalid syntax ({name}.py, line 7)"),
    ],
)
def test_a_module_that_fails_is_named_with_the_cause(module: Module, text: str, message: str) -> None:
    name = module(text)
    expected = message.format(name=name, file=Path.cwd() / f"{name}.py")
    for ask in (catalogue_of, activities_of):
        with pytest.raises(ProviderError) as caught:
            ask(name)
        assert str(caught.value) == f'the module "{name}" cannot be imported: {expected}'


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("name", ["nowhere", "nowhere.activities", "json.nowhere"])
def test_a_missing_module_is_named(name: str) -> None:
    with pytest.raises(ProviderError) as caught:
        catalogue_of(name)
    assert str(caught.value) == (
        f'there is no Python module "{name}" (looked for in {Path.cwd()} and where Python looks for modules)'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def f(): ...\n",
            (
                'the module "{name}" offers no activities: decorate functions with'
                ' @activity.defn, or give it a list named "activities"'
            ),
        ),
        (
            "activities = 5\n",
            (
                '"activities" of the module "{name}" must be a list of activities, or a function without'
                " arguments that returns one, not int"
            ),
        ),
        (
            "activities = [len]\n",
            (
                '"activities" of the module "{name}" has <built-in function len> in it, which is not'
                " decorated with @activity.defn"
            ),
        ),
        (
            "def activities(): raise OSError('no route to host')\n",
            '"activities" of the module "{name}" failed: OSError: no route to host',
        ),
        (
            "@activity.defn(name='x')\ndef a(): ...\n@activity.defn(name='x')\ndef b(): ...\n",
            'the module "{name}" has two activities named "x": {name}:a and {name}:b',
        ),
    ],
)
def test_a_module_that_offers_nothing_usable_is_an_error(module: Module, text: str, message: str) -> None:
    name = module(text)
    for ask in (catalogue_of, activities_of):
        with pytest.raises(ProviderError) as caught:
            ask(name)
        assert str(caught.value) == message.format(name=name)


def test_installed_packages_offer_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    points = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, value, providers.GROUP)
        for name, value in (("b", "shop.activities"), ("a", "bank"), ("c", "bank"))
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", points.select)
    assert providers.entry_points() == ["bank", "shop.activities"]


def test_the_builtin_catalogue_is_fresh() -> None:
    """After a change: python -m pipeline_runner.activities.catalogue.generate."""
    assert generate.TARGET.read_text(encoding="utf-8") == generate.generate()


def test_the_builtin_catalogue_says_what_the_code_says() -> None:
    entries = {e.name: e for module in providers.BUILTIN_MODULES for e in catalogue_of(module)}
    assert dict(catalogue.builtin()) == entries
    undos = {name: entry.undo for name, entry in entries.items() if isinstance(entry.undo, Undo)}
    assert {name: undo.activity for name, undo in undos.items()} == {
        "container.commit": "image.remove",
        "container.run": "container.remove",
        "container.start": "container.stop",
        "container.stop": "container.start",
        "directory.create": "directory.remove",
        "dns.remove": "dns.upsert",
        "dns.upsert": "dns.upsert",
        "file.copy": "file.restore",
        "file.move": "file.restore",
        "file.remove": "file.restore",
        "file.write": "file.restore",
        "http.download": "file.restore",
        "http.request": "file.restore",
        "image.tag": "image.remove",
        "network.connect": "network.disconnect",
        "network.create": "network.remove",
        "volume.create": "volume.remove",
    }
    assert {undo.activity for undo in undos.values()} <= set(entries)
    assert [name for name, undo in undos.items() if undo.after == "completed"] == [
        "image.tag", "dns.remove", "dns.upsert",
    ]  # fmt: skip
    assert sorted(name for name, entry in entries.items() if entry.effect_free) == [
        "container.inspect", "container.logs", "dns.lookup", "file.read", "image.inspect",
    ]  # fmt: skip
    assert {name.partition(".")[0]: entry.extra for name, entry in entries.items() if entry.extra} == {
        "container": "containers", "image": "containers", "network": "containers", "volume": "containers",
        "dns": "dns", "sql": "sql",
    }  # fmt: skip
    for entry in entries.values():
        assert entry.description
        assert entry.input is not None
        assert entry.output is not None
        assert entry.arguments is None
        for schema in (entry.input, entry.output):
            assert schema["additionalProperties"] is False
            assert all("description" in of_field for of_field in schema["properties"].values())


def test_the_builtin_schemas_are_valid() -> None:
    from jsonschema import Draft202012Validator

    for entry in catalogue.builtin().values():
        for schema in (entry.input, entry.output):
            assert schema is not None
            Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("module_name", ["catalogue.entries", "catalogue.providers", "toolkit.context"])
def test_checking_a_file_imports_no_implementation(module_name: str) -> None:
    code = (
        f"import sys, pipeline_runner.activities.{module_name}\n"
        "from pipeline_runner.activities.catalogue import entries\n"
        "assert entries.builtin()\n"
        "print(sorted({'temporalio', 'httpx', 'jsonschema', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_worker_can_register_every_builtin() -> None:
    from temporalio import activity

    served: list[Any] = [a for name in providers.BUILTIN_MODULES for a in activities_of(name)]
    names = [activity._Definition.must_from_callable(a).name for a in served]
    assert sorted(filter(None, names)) == sorted(catalogue.builtin())
