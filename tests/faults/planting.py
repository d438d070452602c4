"""Plants bugs in a copy of the code and runs tests on it: `scripts/mutations` is this.

    python -m tests.faults.planting [--json] [--list] [NAME ...]

NAME is a bug's name or a part of one. Exits with 1 if a bug survived, with 2 if the tests already
fail without any, or if a bug cannot be planted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .mutation import Mutation, MutationError
from .mutations import MUTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "daemon", "client")
WIDER = (
    "tests/daemon", "tests/protocol", "tests/client", "tests/faults", "tests/e2e", "tests/shells",
)  # fmt: skip
"""Where to look further for who catches a bug that its own tests let pass."""

RUN_SECONDS = 1800.0
HUNG = "a test that hung"
_CAUGHT = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_PASSED, _FAILED = 0, 1
_PLUGINS = ("-p", "no:cacheprovider", "-p", "tests.faults.unshrunk")
_IGNORED = "--ignore=tests/faults/test_mutations.py"
"""Not this one's own tests: they would plant bugs in turn."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a bug: the test that caught it (None: it survived), and after how long."""

    name: str
    caught_by: str | None
    seconds: float


@contextmanager
def copied_code(mutation: Mutation | None = None) -> Iterator[Path]:
    """A copy of the packages, with the bug in it."""
    with tempfile.TemporaryDirectory(prefix="ald-mutant-") as name:
        copy = Path(name)
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, copy / package, ignore=ignored)
        if mutation is not None:
            for file, text in mutation.plant(ROOT).items():
                (copy / file).write_text(text)
        yield copy


def run_tests(copy: Path, tests: Sequence[str]) -> str | None:
    """Return the first test that fails on a copy of the code, or None. Raises MutationError."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", *_PLUGINS, _IGNORED, *tests]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=_environment(copy), capture_output=True, text=True,
            check=False, timeout=RUN_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return HUNG
    if done.returncode == _PASSED:
        return None
    if "Timeout (" in done.stderr:
        return HUNG  # faulthandler's word: it ends a run whose test takes too long
    found = _CAUGHT.search(done.stdout)
    if done.returncode != _FAILED or found is None:
        raise MutationError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return found[1]


def _environment(copy: Path) -> dict[str, str]:
    """Return an environment in which the copy is imported, also by processes that tests start.

    PYTHONPATH comes before what an editable install adds. The copy's coverage is nobody's.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    path = os.pathsep.join(str(copy / package) for package in PACKAGES)
    return {**kept, "PYTHONPATH": path}


def try_mutation(mutation: Mutation, *, wider: bool = True) -> Outcome:
    """Return what became of a bug. Raises MutationError.

    Who caught it must pass without the bug at once: it may have failed by chance.
    """
    started = time.monotonic()
    with copied_code(mutation) as copy:
        caught_by = run_tests(copy, mutation.tests)
        if caught_by is None and wider:
            caught_by = run_tests(copy, WIDER)
    if caught_by not in (None, HUNG):
        _check_passes([caught_by.partition("[")[0]])
    return Outcome(mutation.name, caught_by, time.monotonic() - started)


def choose(names: Sequence[str]) -> list[Mutation]:
    """Return the bugs whose names hold one of these, all where none is given."""
    for name in names:
        if not any(name in mutation.name for mutation in MUTATIONS):
            raise MutationError(f"there is no bug named {name!r}; --list shows them all")
    return [m for m in MUTATIONS if not names or any(name in m.name for name in names)]


def check_tests_pass(mutations: Sequence[Mutation]) -> None:
    """Return if the bugs' tests pass without them: a failure would say nothing of the bugs.

    Raises MutationError.
    """
    tests = dict.fromkeys(test for mutation in mutations for test in mutation.tests)
    _check_passes([*tests])


def _check_passes(tests: Sequence[str]) -> None:
    with copied_code() as copy:
        failed = run_tests(copy, tests)
    if failed is not None:
        raise MutationError(f"{failed} fails without any bug: mend that first")


def main(argv: Sequence[str] | None = None) -> int:
    """Plant, run, print a table; return the exit status."""
    arguments = _parse(argv)
    try:
        chosen = choose(arguments.names)
        if arguments.list:
            sys.stdout.write("".join(f"{m.name}  ({m.file})\n" for m in chosen))
            return 0
        _say("do the tests pass without any bug?")
        check_tests_pass(chosen)
        outcomes = [_try_and_say(mutation) for mutation in chosen]
    except MutationError as exc:
        _say(f"scripts/mutations: {exc}")
        return 2
    as_json = json.dumps([asdict(outcome) for outcome in outcomes], indent=2)
    sys.stdout.write((as_json if arguments.json else table(outcomes)) + "\n")
    return int(any(outcome.caught_by is None for outcome in outcomes))


def _try_and_say(mutation: Mutation) -> Outcome:
    outcome = try_mutation(mutation)
    _say(table([outcome]).splitlines()[0])
    return outcome


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each bug, and what they come to."""
    width = max(len(outcome.name) for outcome in outcomes)
    lines = [
        f"{o.name:<{width}}  {o.seconds:5.1f} s  "
        + ("SURVIVED" if o.caught_by is None else f"caught by {o.caught_by}")
        for o in outcomes
    ]
    caught = sum(outcome.caught_by is not None for outcome in outcomes)
    return "\n".join([*lines, f"{len(outcomes)} bugs planted, {caught} caught"])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutations", allow_abbrev=False)
    parser.add_argument("names", metavar="NAME", nargs="*", help="a bug's name, or a part of it")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--list", action="store_true", help="only name the bugs")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
