"""The plugin's line in .zshrc: what it takes a new zsh to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.setting import medians_in_turn
from bench.verdicts import Goal, PeerFailedError

from .comparing import Comparison
from .place import InPlace

if TYPE_CHECKING:
    from bench.verdicts import Figures

EMPTY = "zsh, an empty file read, ms"
TEXT = "zsh, the plugin read as text, ms"
COMPILED = "zsh, the plugin read compiled, ms"

_READ = """
zmodload zsh/datetime
started=$EPOCHREALTIME
%s
taken=$(( (EPOCHREALTIME - started) * 1e3 ))
print -r -- $taken $+functions[autoloadd-eval]
"""


class Reading(InPlace):
    """Goal 6: sourcing it costs under 2 ms; timed by zsh itself."""

    NAME = "reading"
    TIMES = 15
    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=6, what="zsh, the plugin read as text", unit="ms", ours=TEXT, at_most=2),
    )
    COMPARISONS: ClassVar[tuple[Comparison, ...]] = (
        Comparison(what="zsh, the plugin read as text, an empty file before", before=EMPTY,
                   after=TEXT, goal=GOALS[0], wanted="2 ms"),
        Comparison(what="zsh, the plugin read compiled", before=EMPTY, after=COMPILED),
    )  # fmt: skip

    def start(self) -> None:
        """Lay the files out."""
        empty = self.place.directory / "empty"
        empty.touch()
        self._lines = {
            EMPTY: f"source {empty}",
            TEXT: self.place.plain_plugin,
            COMPILED: self.place.plugin,
        }

    def run_round(self, number: int, figures: Figures) -> None:
        """Read them in new shells, in turn; a round's figure is the median."""
        figures.add_all(medians_in_turn(self._lines, self._time, number=number, times=self.times))

    def _time(self, kind: str) -> float:
        """Return the ms. Raises PeerFailedError where other functions are there than must be."""
        taken, is_there = self.place.zsh(_READ % self._lines[kind]).split()
        if (is_there == "1") is (kind == EMPTY):
            raise PeerFailedError(f"{kind}: the plugin was not read")
        return float(taken)
