"""Every bug of the list can still be planted, and planting works: all, by `scripts/mutations`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from .mutation import Change, Mutation, MutationError
from .mutations import MUTATIONS
from .planting import (
    ROOT,
    Outcome,
    check_tests_pass,
    choose,
    copied_code,
    run_tests,
    table,
    try_mutation,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .report import FaultCase

BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}
CHEAP = {
    "record's checksum not compared": "tests/daemon/storage/test_records.py",
    "tombstone forgotten in a build": "tests/daemon/storage/test_images.py",
    "directory not locked": "tests/daemon/test_listening.py",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_bug_can_be_planted(mutation: Mutation) -> None:
    for file, text in mutation.plant(ROOT).items():
        assert (ROOT / file).read_text() != text
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutation.tests)


def test_the_list_is_long_and_names_no_bug_twice() -> None:
    assert len(MUTATIONS) >= 24
    assert Counter(mutation.name for mutation in MUTATIONS).most_common(1)[0][1] == 1


@pytest.mark.parametrize("name", CHEAP)
def test_planted_bugs_are_caught(case: FaultCase, name: str) -> None:
    case.name, case.unit = "planted bugs that cost little", "bugs"
    mutation = replace(BY_NAME[name], tests=(CHEAP[name],))
    outcome = try_mutation(mutation, wider=False)
    case.explored += 1
    assert outcome.caught_by is not None
    assert outcome.caught_by.startswith(CHEAP[name])


def test_a_harmless_change_survives_and_processes_run_the_copy() -> None:
    harmless = Mutation(
        "harmless",
        "daemon/autoloadd_daemon/__main__.py",
        "EXIT_FAILED = 1\n",
        "EXIT_FAILED = 1\n_PLANTED = True\n",
        ("tests/protocol/test_framing.py",),
    )
    assert try_mutation(harmless, wider=False).caught_by is None
    deadly = replace(
        harmless,
        new="EXIT_FAILED = 1\nraise SystemExit(5)\n",
        tests=("tests/e2e/test_daemon_start.py::test_version",),
    )
    assert try_mutation(deadly, wider=False).caught_by == deadly.tests[0]


def test_what_cannot_be_planted_or_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("once twice twice")
    mutation = Mutation("name", "file", "none", "new", ())
    with pytest.raises(MutationError, match="occurs 0 times in file"):
        mutation.plant(tmp_path)
    with pytest.raises(MutationError, match="occurs 2 times in file"):
        replace(mutation, old="twice").plant(tmp_path)
    with pytest.raises(MutationError, match="is no Python then"):
        replace(mutation, old="once").plant(tmp_path)
    for shell in ("bash", "fish"):
        (tmp_path / f"file.{shell}").write_text("echo one")
        script = replace(mutation, file=f"file.{shell}", old="one", new="two")
        assert script.plant(tmp_path) == {f"file.{shell}": "echo two"}
        with pytest.raises(MutationError, match=f"is no {shell} then"):
            replace(script, new="'").plant(tmp_path)
    (tmp_path / "file").write_text("one = 1")
    also = (Change("file", "two", "three"),)
    both = replace(mutation, old="one", new="two", also=also).plant(tmp_path)
    assert both == {"file": "three = 1"}
    with pytest.raises(MutationError, match="no bug named 'none'"):
        choose(["none"])
    with copied_code() as copy, pytest.raises(MutationError, match="pytest ended with 4"):
        run_tests(copy, ["tests/no_such_test.py"])


def test_without_a_bug_the_tests_must_pass() -> None:
    passing = replace(MUTATIONS[0], tests=("tests/protocol/test_framing.py",))
    check_tests_pass([passing])
    failing = replace(MUTATIONS[0], tests=("tests/faults/test_mutations.py::none",))
    with pytest.raises(MutationError, match="pytest ended with"):
        check_tests_pass([failing])


def test_the_table_shows_survivors() -> None:
    outcomes = [Outcome("one", "tests/x.py::test_y", 1.25), Outcome("another", None, 100.0)]
    assert table(outcomes).splitlines() == [
        "one        1.2 s  caught by tests/x.py::test_y",
        "another  100.0 s  SURVIVED",
        "2 bugs planted, 1 caught",
    ]


def test_names_choose_bugs() -> None:
    assert choose([]) == list(MUTATIONS)
    assert {mutation.name for mutation in choose(["floor", "not locked"])} == {
        "floor forgotten",
        "directory not locked",
    }
