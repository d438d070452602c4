"""What a fault case explored and found: one line of JSON, a row for `scripts/faults`.

A test takes the fixture `case`, counts in it, and asserts as any other test: the verdict is
pytest's own. What cannot run on this machine says so with `cannot_run`; that never counts as
passed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class FaultCase:
    """One row of the report. Several tests of one name add up.

    `explored` counts `unit`s: states, kills, trials. `lost` are acknowledged writes that were not
    there, `wrong` answers with bytes that nobody stored. `worst_recovery` is the longest time from
    the start of a new daemon to its first answer, in seconds; None where no daemon was started.
    `figures` are what else was measured: the name with its unit, and the worst value.
    """

    name: str
    unit: str = "trials"
    explored: int = 0
    lost: int = 0
    wrong: int = 0
    worst_recovery: float | None = None
    not_run: str | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def recovered(self, seconds: float) -> None:
        """Note how long a start took."""
        self.worst_recovery = max(self.worst_recovery or 0.0, seconds)

    def measured(self, what: str, value: float) -> None:
        """Note a figure of which the largest is the worst; `what` names it with its unit."""
        self.figures[what] = max(self.figures.get(what, value), value)

    def cannot_run(self, reason: str) -> NoReturn:
        """End the test: `reason` says what this machine lacks, and how to get it."""
        self.not_run = reason
        pytest.skip(f"NOT RUN: {reason}")

    def write(self, path: Path, verdict: str) -> None:
        """Add the row to a file."""
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(self), "verdict": verdict}) + "\n")
