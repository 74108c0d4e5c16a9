"""The names of the parts of an expression in messages, and help texts."""

from collections.abc import Sequence

from jinja2 import nodes as jinja

from pipeline_runner.language.types import BOOLEAN, NUMBER, STRING, List, Map, Type, base


def path_of(node: jinja.Node | None) -> str | None:
    """Return a name with its keys, as it is usually written."""
    keys: list[str] = []
    while True:
        match node:
            case (
                jinja.Getattr(node=inner, attr=key)
                | jinja.Getitem(node=inner, arg=jinja.Const(value=str(key)))
            ):
                keys.append(f".{key}")
            case jinja.Getitem(node=inner, arg=jinja.Const(value=int(key))):
                keys.append(f"[{key}]")
            case jinja.Name(name=name):
                return "".join([name, *reversed(keys)])
            case _:
                return None
        node = inner


def paths_in(test: jinja.Node) -> list[str]:
    """Return the names in a condition, with their keys."""
    found = [test, *test.find_all((jinja.Name, jinja.Getattr, jinja.Getitem))]
    inner = {id(one.node) for one in found if isinstance(one, jinja.Getattr | jinja.Getitem)}
    return [path for one in found if id(one) not in inner and (path := path_of(one))]


def is_result(node: jinja.Node | None) -> bool:
    """Tell whether it is ``steps.ID``, without a key after it."""
    return (path_of(node) or "").startswith("steps.") and (path_of(node) or "").count(".") == 1


def named(node: jinja.Node | None) -> str:
    """Return the name of an expression for a message."""
    path = path_of(node)
    if path is None:
        if isinstance(node, jinja.Const):
            return f'"{node.value}"' if isinstance(node.value, str) else str(node.value).lower()
        return "this"
    keys = path.split(".")
    if keys[0] == "steps" and keys[2:] == ["output"]:
        return f'the output of step "{keys[1]}"'
    return f'"{path}"'


def plus_help(left: Type, right: Type) -> str | None:
    """Return the help for two values that "+" cannot add."""
    if isinstance(left, List):
        return 'to add an element, write "+ [ELEMENT]"'
    if isinstance(left, Map) and isinstance(right, Map):
        return 'write "| combine(…)"'
    in_text = (STRING, NUMBER, BOOLEAN)
    return 'write "~" to join strings' if base(left) in in_text and base(right) in in_text else None


def filter_help(node: jinja.Filter, kind: Type, takes: Sequence[Type]) -> str | None:
    """Return the help for a value that a filter does not accept."""
    of_text = takes == (STRING,)
    if of_text and base(kind) in (NUMBER, BOOLEAN):
        return 'write "| string" before it'
    if of_text and isinstance(kind, List) and kind.item == STRING and not node.args and not node.kwargs:
        return f"for each element, write \"| map('{node.name}')\""
    if takes == (NUMBER, BOOLEAN) and base(kind) == STRING:
        return 'write "| int" or "| float" before it'
    return None
