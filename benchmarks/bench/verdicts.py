"""What a figure is held against, and when nothing can be said.

A ratio is that of one round: both sides ran within a second of each other, so what slows the whole
machine slows both. The verdict comes from the median of the rounds' ratios.

BenchError: the run, or a part of it, is invalid and no verdict may be given
├── WrongBytesError: an answer with other bytes than were stored
├── PeerFailedError: a server or client that did not do what it must
└── CannotMeasureError: something that is needed is not there
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOO_WIDE = 0.15
"""A limit within the middle half of the ratios is undecided when that half is wider than this part
of the median. A narrower one is decided by the median: more rounds would not tell more."""


class BenchError(Exception):
    """The run is invalid. The message says why."""


class WrongBytesError(BenchError):
    """An answer with other bytes than were stored, or none."""


class PeerFailedError(BenchError):
    """A server or client failed. The message ends with what it said."""


class CannotMeasureError(BenchError):
    """Something that the measurement needs is not on this machine."""


class Verdict(Enum):
    """What can be said of a goal."""

    MET = "met"
    NOT_MET = "not met"
    UNDECIDED = "invalid: spread too wide"
    NOT_MEASURED = "invalid: not measured"

    @property
    def is_valid(self) -> bool:
        """Tell whether it says anything."""
        return self in (Verdict.MET, Verdict.NOT_MET)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One limit. `ours` and `peer` are keys of figures.

    The ratio is ours / peer, with `inverted` peer / ours ("40 times as fast", where the figures are
    times); without a peer it is the figure itself. One of `at_most` and `at_least` is set.

    `plus` may come on top of the ratio, in the figures' unit: it is taken off ours first. Where
    ours is at most `or_at_most`, any ratio will do.
    """

    number: int
    what: str
    ours: str
    peer: str | None = None
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    inverted: bool = False
    plus: float = 0
    or_at_most: float | None = None

    @property
    def limit(self) -> float:
        """Return the number that the ratio is held against."""
        limit = self.at_most if self.at_most is not None else self.at_least
        assert limit is not None, "a goal has a limit"
        return limit

    @property
    def wanted(self) -> str:
        """Return the limit as the table shows it."""
        sign = "<=" if self.at_most is not None else ">="
        plus = f" + {self.plus:g} {self.unit}" if self.plus else ""
        enough = "" if self.or_at_most is None else f", or {self.or_at_most:g} {self.unit}"
        return f"{sign} {self.limit:,.6g}{plus}{enough}"


@dataclass
class Figures:
    """What was measured: for each key one value for each round, in the order of the rounds."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, key: str, value: float) -> None:
        """Note one round's value."""
        self.rounds.setdefault(key, []).append(value)

    def add_all(self, values: Mapping[str, float]) -> None:
        """Note one round's value of each key."""
        for key, value in values.items():
            self.add(key, value)


@dataclass(frozen=True)
class Row:
    """A goal with what came out. `low` and `high` bound the middle half of the ratios."""

    goal: Goal
    verdict: Verdict
    ours: float | None = None
    peer: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


def judge(goal: Goal, rounds: Mapping[str, Sequence[float]]) -> Row:
    """Return the row of a goal. Rounds that are missing on one side make it invalid."""
    ours = rounds.get(goal.ours, ())
    peer = ours if goal.peer is None else rounds.get(goal.peer, ())
    if not ours or len(ours) != len(peer) or min(*ours, *peer) < 0:
        return Row(goal, Verdict.NOT_MEASURED)
    ratios = _ratios(goal, ours, peer)
    if ratios is None:
        return Row(goal, Verdict.NOT_MEASURED)
    low, high = middle_half(ratios)
    return Row(
        goal,
        _decide(goal, ratios, ours),
        ours=median(ours),
        peer=None if goal.peer is None else median(peer),
        ratio=median(ratios),
        low=low,
        high=high,
    )


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile; of fewer than four values the extremes."""
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def _ratios(goal: Goal, ours: Sequence[float], peer: Sequence[float]) -> list[float] | None:
    if goal.peer is None:
        return list(ours)
    less = [max(0.0, value - goal.plus) for value in ours]
    over, under = (peer, less) if goal.inverted else (less, peer)
    if 0 in under:
        return None
    return [a / b for a, b in zip(over, under, strict=True)]


def _decide(goal: Goal, ratios: Sequence[float], ours: Sequence[float]) -> Verdict:
    found = [_hold(ratios, goal.limit, is_upper=goal.at_most is not None)]
    if goal.or_at_most is not None:
        found.append(_hold(ours, goal.or_at_most, is_upper=True))
    return next(v for v in (Verdict.MET, Verdict.UNDECIDED, Verdict.NOT_MET) if v in found)


def _hold(values: Sequence[float], limit: float, *, is_upper: bool) -> Verdict:
    """Hold the median of values against a limit."""
    low, high = middle_half(values)
    middle = median(values)
    if low < limit < high and high - low > TOO_WIDE * middle:
        return Verdict.UNDECIDED
    is_within = middle <= limit if is_upper else middle >= limit
    return Verdict.MET if is_within else Verdict.NOT_MET
