"""What every experiment is given, and what it must have."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from .servers import Servers
    from .verdicts import Figures, Goal

Item = TypeVar("Item")


@dataclass(frozen=True)
class Setting:
    """The servers, the load generator, and how long things may take.

    `pace` is 1 for a full run; a quick one has less of everything that is repeated.
    """

    servers: Servers
    program: Path
    pace: float = 1.0

    def seconds(self, full: float) -> float:
        """Return how long to run what runs `full` seconds in a full run."""
        return full * self.pace

    def times(self, full: int) -> int:
        """Return how often to do what is done `full` times in a full run; at least three times."""
        return max(3, round(full * self.pace))


class Experiment(Protocol):
    """Something that is measured once in each round, for some goals.

    Made before the first round, when it starts and fills the servers that it needs. It adds one
    value to each of its figures in every round, ours and the peer's right after one another.
    """

    GOALS: ClassVar[tuple[Goal, ...]]

    def __init__(self, setting: Setting) -> None:
        """Raise BenchError where it cannot be measured."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Measure once. Raises BenchError."""

    def close(self) -> None:
        """Let go of clients and processes."""


def in_turn(items: Sequence[Item], number: int) -> list[Item]:
    """Return the items in the order of a round: each comes first as often as last."""
    first = number % len(items)
    turned = [*items[first:], *items[:first]]
    return turned if number // len(items) % 2 == 0 else turned[::-1]


def medians_in_turn(
    kinds: Iterable[str], measure: Callable[[str], float], *, number: int, times: int
) -> dict[str, float]:
    """Measure each kind so often, in turn; return each one's median: its figure of a round."""
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for again in range(times):
        for kind in in_turn(tuple(taken), number + again):
            taken[kind].append(measure(kind))
    return {kind: median(values) for kind, values in taken.items()}
