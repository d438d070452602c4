"""What all fault cases share: a row in the report, and how long to look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .report import FaultCase

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the fixture `case` know how its test ended."""
    outcome = yield
    if call.when == "call":
        item.stash[_PASSED] = outcome.passed
    return outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what did not run: nobody may take it for passed."""
    for report in terminalreporter.getreports("skipped"):
        if isinstance(report.longrepr, tuple) and "NOT RUN: " in report.longrepr[2]:
            terminalreporter.write_line(f"{report.nodeid}: {report.longrepr[2]}", red=True)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[FaultCase]:
    """The test's row in the report; named after its function unless it says otherwise."""
    function = request.node.originalname.removeprefix("test_")
    row = FaultCase(function.replace("_", " "))
    yield row
    target = request.config.getoption("fault_report")
    if target is None:
        return
    passed = request.node.stash.get(_PASSED, False)
    verdict = "passed" if passed else "not run" if row.not_run else "failed"
    row.write(Path(target), verdict)


@pytest.fixture
def effort(request: pytest.FixtureRequest) -> int:
    """How much more than in `scripts/test` to explore: 1 there, more in `scripts/faults`."""
    effort: int = request.config.getoption("effort")
    return effort
