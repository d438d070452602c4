"""Rounds of experiments, and whether what they came to says anything."""

from __future__ import annotations

import gc
import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from autoloadd_client.errors import CacheError
from own_daemon import DaemonFailedError

from . import table
from .verdicts import BenchError, Figures, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .series import Series
    from .setting import Experiment, Setting
    from .verdicts import Row

FAILURES = (BenchError, CacheError, DaemonFailedError, OSError)
"""What makes a run invalid, and does not end it."""


def run(
    kinds: Sequence[type[Experiment]], setting: Setting, rounds: int, figures: Figures
) -> list[str]:
    """Run all experiments in each round; return why the run is invalid, if it is.

    An experiment that fails is left out from then on, and so are all its figures; the others go on.
    """
    reasons: list[str] = []
    with ExitStack() as stack:
        running = _prepare(kinds, setting, stack, reasons)
        # What the benchmark holds is not scanned again and again while clients are timed.
        gc.collect()
        gc.freeze()
        for number in range(rounds):
            for experiment in list(running):
                name = type(experiment).__name__
                show(f"round {number + 1} of {rounds}: {name}")
                try:
                    experiment.run_round(number, running[experiment])
                except FAILURES as exc:
                    reasons.append(f"{name}: {exc}")
                    del running[experiment]
    show("")
    for found in running.values():
        figures.rounds.update(found.rounds)
    return reasons


def judge_all(
    kinds: Sequence[type[Experiment]], goals: frozenset[int], figures: Figures
) -> list[Row]:
    """Return a row for each asked goal (none: all), in their order."""
    asked = [goal for kind in kinds for goal in kind.GOALS if not goals or goal.number in goals]
    return [judge(goal, figures.rounds) for goal in sorted(asked, key=lambda goal: goal.number)]


def exit_status(rows: Sequence[Row], reasons: Sequence[str]) -> int:
    """Return 2 for an invalid run, 1 where a goal is not met, 0 otherwise."""
    if reasons or not rows or not all(row.verdict.is_valid for row in rows):
        return 2
    return 0 if all(row.verdict is Verdict.MET for row in rows) else 1


def write_json(
    path: Path,
    machine: dict[str, str],
    rows: Sequence[Row],
    reasons: Sequence[str],
    figures: Figures,
    series: dict[str, Series],
) -> None:
    """Write everything that was measured."""
    found: dict[str, Any] = {
        "machine": machine,
        "valid": exit_status(rows, reasons) != 2,
        "invalid because": list(reasons),
        "goals": [table.as_json(row) for row in rows],
        "rounds": figures.rounds,
        "series": series,
    }
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def show(text: str) -> None:
    """Show what is going on, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _prepare(
    kinds: Sequence[type[Experiment]], setting: Setting, stack: ExitStack, reasons: list[str]
) -> dict[Experiment, Figures]:
    running: dict[Experiment, Figures] = {}
    for kind in kinds:
        show(f"preparing: {kind.__name__}")
        try:
            experiment = kind(setting)
        except FAILURES as exc:
            reasons.append(f"{kind.__name__}: {exc}")
        else:
            stack.callback(experiment.close)
            running[experiment] = Figures()
    return running
