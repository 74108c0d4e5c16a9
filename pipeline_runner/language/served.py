"""``same-name``, ``same-activity``: what one worker cannot serve together."""

from collections.abc import Iterable, Iterator

from pipeline_runner.activities.catalogue import providers
from pipeline_runner.activities.catalogue.providers import Provider
from pipeline_runner.core.suggest import listed
from pipeline_runner.language.catalogue_file import Activities
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.yaml.nodes import Node, Scalar, Source


def same_names(documents: Iterable[Document]) -> Iterator[Diagnostic]:
    """Yield files with the same name: a worker can serve only one of them by name."""
    named: dict[str, list[tuple[Source, Node]]] = {}
    for document in documents:
        node = document.root.get("name")
        if isinstance(node, Scalar) and isinstance(node.value, str):
            named.setdefault(node.value, []).append((document.source, node))
    for name, [_, *others] in named.items():
        if others:
            source, node = others[0]
            paths = [one.path for one, _ in named[name]]
            both = f"{listed(paths[:-1])} and {paths[-1]} are {'all' if others[1:] else 'both'}"
            message = f'{both} named "{name}": no worker can serve more than one of them by name'
            yield source.diagnostic(node.span, "same-name", message, "rename one of them")


def same_activities(files: Iterable[Activities]) -> Iterator[Diagnostic]:
    """Yield modules that share activities with the modules of another ``activities.yaml``."""
    first: dict[str, Source] = {}
    for known in files:
        for source, node, module in _modules(known):
            names = providers.names_of(module)
            others: dict[str, list[str]] = {}
            for name in sorted(names):
                other = first.setdefault(name, source)
                if other is not source:
                    others.setdefault(other.path, []).append(name)
            for path, same in others.items():
                yield source.diagnostic(node.span, "same-activity", _twice(same, source.path, path), _HELP)


_HELP = "give them different names, or run a worker for each"


def _modules(known: Activities) -> Iterator[tuple[Source, Node, Provider]]:
    """Yield the modules in a file's own directory, with the position of their names."""
    own = {module.module: module for module in known.modules if module.directory is not None}
    for node in known.root.items("modules") if known.root else ():
        module = own.pop(node.text, None) if isinstance(node, Scalar) else None
        if module:
            yield known.sources[0], node, module


def _twice(names: list[str], here: str, there: str) -> str:
    quoted = [f'"{name}"' for name in names if name]
    what = listed(quoted, "an activity that takes any name")
    return f"the modules of both {there} and {here} have {what}: no worker can serve more than one of them"
