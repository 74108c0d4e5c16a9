"""How long checking takes: many files, one long file, one small file as a process.

``python -m bench.checker`` prints a table in Markdown; ``--profile`` adds where the time of the many
files goes. Run it on an idle machine: the table shows each goal beside the result.
"""

import argparse
import cProfile
import gc
import io
import os
import platform
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from functools import partial
from importlib.metadata import version
from pathlib import Path

import yaml

from pipeline_runner.core.expressions import fast_path
from pipeline_runner.core.expressions.environment import ENVIRONMENT

FILES = 1000
STEPS = 20
LENGTHS = (20, 500, 1000, 2500, 5000)
RUNS = 10
EXPRESSIONS = (
    "{{ steps.build.output.id }}",
    "{{ inputs.version | lower }}-{{ inputs.replicas }}",
)
HEAVY = (
    "temporalio", "jsonschema", "referencing", "httpx", "rich", "pydantic", "docker", "sqlalchemy", "dns",
    "asyncio", "importlib.metadata", "multiprocessing",
)  # fmt: skip

_HEAD = """version: 1
name: release-{file}
description: Build, publish and announce release {file}.
inputs:
  version: {{type: string, minLength: 1}}
  replicas: {{type: integer, minimum: 1, default: 3}}
  folder: {{type: string, default: /srv/releases/{file}}}
secrets: [TOKEN]
policies:
  patient: {{retry: {{maximum_attempts: 8, initial_interval: 2s}}, timeouts: {{start_to_close: 10m}}}}
steps:
"""
_STEPS = (
    """  - id: build_{n}
    name: build part {n} of {{{{ inputs.version }}}} for {file}
    activity: shell.run
    with:
      command: [make, "part-{n}", "VERSION={{{{ inputs.version }}}}-{file}"]
      cwd: "{{{{ inputs.folder }}}}/parts/{n}"
    timeouts: {{start_to_close: {minutes}m}}
    retry: {{maximum_attempts: {attempts}, initial_interval: 1s, maximum_interval: 30s}}
    compensate:
      activity: shell.run
      with: {{command: [make, "clean-{n}"], cwd: "{{{{ step.input.cwd }}}}"}}
""",
    """  - id: write_{n}
    name: write the manifest of part {n}
    activity: file.write
    with:
      path: "{{{{ inputs.folder }}}}/manifest-{n}.json"
      content: "{{{{ {{'part': {n}, 'version': inputs.version, 'of': '{file}'}} | tojson }}}}"
    compensate:
      activity: file.restore
      with: {{path: "{{{{ step.input.path }}}}", key: "{{{{ step.key }}}}"}}
""",
    """  - id: announce_{n}
    name: announce part {n} ({file})
    activity: http.request
    with:
      method: POST
      url: "https://releases.example.org/{file}/{n}?version={{{{ inputs.version | urlencode }}}}"
      headers: {{Authorization: "Bearer {{{{ secrets.TOKEN }}}}"}}
      json: {{part: {n}, replicas: "{{{{ inputs.replicas }}}}", done: true}}
    policy: patient
    when: inputs.replicas > {n} or inputs.version != "0.{n}"
    compensate: none
""",
    """  - id: facts_{n}
    set:
      tag: "{{{{ inputs.version }}}}-{n}"
      url: "https://{file}.example.org/{{{{ inputs.version | lower }}}}/{n}"
      wide: "{{{{ inputs.replicas * {n} > {attempts} }}}}"
""",
    """  - id: check_{n}
    name: look at {{{{ steps.facts_{before}.output.tag }}}}
    activity: http.request
    with: {{url: "{{{{ steps.facts_{before}.output.url }}}}/health"}}
    timeouts: {{start_to_close: 30s, schedule_to_close: {minutes}m}}
    retry: {{maximum_attempts: {attempts}}}
    when: steps.facts_{before}.output.wide
""",
)
# A file may have 1 MiB and 100,000 values: one of 5,000 steps has short ones.
_SHORT = """  - id: s{n}
    activity: shell.run
    with:
      {{command: [echo, "{{{{ steps.s{before}.output.stdout }}}}-{n}"], cwd: "{{{{ inputs.x }}}}/{file}{n}"}}
    timeouts: {{start_to_close: 30s}}
    compensate: none
"""


def text(file: str, steps: int) -> str:
    """Return a pipeline of so many steps, with texts of its own."""
    own = [
        _STEPS[n % len(_STEPS)].format(
            n=n, file=file, before=n - 1, minutes=1 + n % 50 + len(file), attempts=2 + n % 7
        )
        for n in range(steps)
    ]
    return _HEAD.format(file=file) + "".join(own)


def short(steps: int, file: str = "") -> str:
    """Return a pipeline of short steps, each of which looks at the one before."""
    first = "  - {id: s0, activity: shell.run, with: {command: [ls]}, compensate: none}\n"
    head = f"version: 1\nname: long{file.strip('/')}\ninputs: {{x: {{type: string}}}}\nsteps:\n"
    own = [_SHORT.format(n=n, before=n - 1, file=file) for n in range(1, steps)]
    return head + first + "".join(own)


def many(folder: Path, *, long: bool) -> list[Path]:
    """Write the many files, of long steps or of short ones."""
    paths = []
    for number in range(FILES):
        path = folder / f"{'long' if long else 'short'}_{number}.yaml"
        own = text(f"r{number}", STEPS) if long else short(STEPS, f"r{number}/")
        path.write_text(own, encoding="utf-8")
        paths.append(path)
    return paths


def check(paths: list[Path]) -> float:
    """Check files, and return the seconds of CPU that it took."""
    from pipeline_runner.language.workspace import check_paths

    gc.disable()  # as the command does
    began = time.process_time()
    found = check_paths(paths).diagnostics
    took = time.process_time() - began
    assert {one.rule for one in found} <= {"payload-size"}, found[:3]
    return took


def composed(paths: list[Path]) -> float:
    """Return the seconds of CPU that PyYAML takes to read the same files: a yardstick for the machine."""
    texts = [path.read_text(encoding="utf-8") for path in paths]
    began = time.process_time()
    for text in texts:
        yaml.compose(text, Loader=yaml.CSafeLoader)
    return time.process_time() - began


def parsers() -> None:
    """Print how long Jinja's parser and the short way take, one after the other."""
    for text in EXPRESSIONS:
        jinja, own = (
            min(timeit.repeat(partial(parse, text), number=500, repeat=7)) / 500
            for parse in (ENVIRONMENT.parse, fast_path.parse)
        )
        shown = text.replace("|", "\\|")
        row(f"`{shown}`: Jinja's parser, ours, µs", f"{jinja * 1e6:.0f}, {own * 1e6:.0f}")


def process(path: Path) -> tuple[float, float]:
    """Return the seconds that ``validate`` takes as a process: by the clock, and of CPU.

    Beside the file are its modules in bytecode, as beside those of an installed package.
    """
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(path.parent / "bytecode")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "pipeline_runner", "validate", str(path)]
    subprocess.run(command, check=True, capture_output=True, env=env)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imported(path: Path) -> list[str]:
    """Return which heavy modules are imported to check a file."""
    code = (
        "import sys\nfrom pipeline_runner.cli.main import run\nrun(['validate', sys.argv[1]])\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1].split()


def row(what: str, found: str, wanted: str = "") -> None:
    """Print a line of the table."""
    print(f"| {what} | {found} | {wanted} |", flush=True)


def measure(folder: Path, *, profile: bool) -> None:
    """Measure everything, and print the table."""
    print(f"Python {platform.python_version()}, jinja2 {version('jinja2')}, {platform.machine()}\n")
    print("| what | result | goal |\n|---|--:|--:|")
    small = folder / "small.yaml"
    small.write_text(text("small", STEPS), encoding="utf-8")
    check([small])  # what is loaded once
    row(f"{FILES} files of {STEPS} short steps, s of CPU", f"{check(many(folder, long=False)):.2f}", "< 5")
    paths = many(folder, long=True)
    row(f"{FILES} files of {STEPS} long steps, s of CPU", f"{check(paths):.2f}", "< 5")
    row("the same files read by PyYAML's C parser, s of CPU", f"{composed(paths):.2f}")
    a_step = {}
    for length in LENGTHS:
        path = folder / f"one_{length}.yaml"
        path.write_text(short(length), encoding="utf-8")
        rounds = 5 if length < 1000 else 2
        a_step[length] = min(check([path]) for _ in range(rounds)) / length
        row(f"one file of {length} short steps, µs of CPU per step", f"{a_step[length] * 1e6:.0f}")
    row("a step in 5000 to a step in 500, ratio", f"{a_step[5000] / a_step[500]:.2f}", "< 1.5")
    process(small)  # which writes the bytecode
    walls, cpus = zip(*(process(small) for _ in range(RUNS)), strict=True)
    row(f"`validate` of {STEPS} steps, ms", f"{statistics.median(walls) * 1000:.0f}", "< 400")
    row(f"`validate` of {STEPS} steps, ms of CPU", f"{statistics.median(cpus) * 1000:.0f}", "< 400")
    found = ", ".join(imported(small)) or "none"
    row("heavy modules that it imports", found, "no temporalio, no jsonschema")
    parsers()
    if profile:
        profiled(paths)


def profiled(paths: list[Path]) -> None:
    """Print where the time of the many files goes."""
    profile = cProfile.Profile()
    profile.runcall(check, paths)
    for order in ("tottime", "cumulative"):
        stream = io.StringIO()
        pstats.Stats(profile, stream=stream).strip_dirs().sort_stats(order).print_stats(35)
        print(stream.getvalue())


def main() -> None:
    """Measure in a folder of our own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), profile=given.profile)


if __name__ == "__main__":
    main()
