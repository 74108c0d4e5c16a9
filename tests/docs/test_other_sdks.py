"""What other-sdks.md shows of other languages is the code of the example workers, which the tests compile and run."""

import re
from functools import cache

import pytest
import yaml

from tests.docs.pages import EVERY, ROOT, Block

PIPELINES = ROOT / "pipelines"
SOURCES = {
    "go": "go-worker/*.go",
    "java": "java-worker/src/main/java/example/*.java",
    "typescript": "typescript-worker/src/*.ts",
}
SHOWN = [block for block in EVERY if block.page.name == "other-sdks.md" and block.language in SOURCES]


@cache
def sources(language: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(PIPELINES.glob(SOURCES[language]))]


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_code_is_that_of_the_example_worker(block: Block) -> None:
    assert any(block.text in source for source in sources(block.language))


def test_every_language_is_shown() -> None:
    assert {block.language for block in SHOWN} == set(SOURCES)


def test_the_entry_is_that_of_the_catalogue() -> None:
    """The page may leave out properties of the output, and the description."""
    (shown,) = (
        yaml.safe_load(b.text) for b in EVERY if b.page.name == "other-sdks.md" and b.language == "yaml"
    )
    real = yaml.safe_load((PIPELINES / "activities.yaml").read_text(encoding="utf-8"))["activities"]
    for name, entry in shown["activities"].items():
        for key in entry.keys() - {"output"}:
            assert entry[key] == real[name][key]


def test_versions_are_pinned() -> None:
    """One version of each library, and for Go and TypeScript of what it needs, too."""
    pom = (PIPELINES / "java-worker/pom.xml").read_text(encoding="utf-8")
    versions = re.findall(r"<version>(.*)</version>", pom)
    assert len(versions) == pom.count("<artifactId>")
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in versions)
    assert (PIPELINES / "go-worker/go.sum").exists()
    assert (PIPELINES / "typescript-worker/package-lock.json").exists()
