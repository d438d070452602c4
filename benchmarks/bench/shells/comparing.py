"""What is measured before and after, and the table of it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench.table import align, short
from bench.verdicts import middle_half

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.verdicts import Goal, Row

TITLES = ("what", "before", "after", "after / before", "middle half", "wanted", "verdict")
_RIGHT = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One line of the table: keys of figures in ms, without autoloadd and with it.

    `goal` is what the line is held against, as `wanted` says; None: it is only shown.
    """

    what: str
    before: str
    after: str
    goal: Goal | None = None
    wanted: str = ""


def format_comparisons(
    comparisons: Iterable[Comparison],
    rows: Sequence[Row],
    rounds: Mapping[str, Sequence[float]],
) -> str:
    """Return the table. What was not measured has no figures."""
    verdicts = {id(row.goal): row.verdict.value for row in rows}
    lines = [
        (*_cells(each, rounds), each.wanted, verdicts.get(id(each.goal), ""))
        for each in comparisons
        if each.goal is None or id(each.goal) in verdicts
    ]
    return align(TITLES, lines, right=_RIGHT)


def _cells(each: Comparison, rounds: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    before, after = rounds.get(each.before, ()), rounds.get(each.after, ())
    if not before or len(before) != len(after):
        return each.what, "", "", "", ""
    ratios = [b / a for a, b in zip(before, after, strict=True)]
    low, high = middle_half(ratios)
    return (
        each.what, f"{short(median(before))} ms", f"{short(median(after))} ms",
        short(median(ratios)), f"{short(low)} to {short(high)}",
    )  # fmt: skip
