"""The plugin's line in .zshrc: what it takes a new zsh to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.daemons import wait_until
from bench.setting import medians_in_turn
from bench.verdicts import Goal, PeerFailedError

from .comparing import Comparison
from .place import InPlace
from .terminals import start_zsh

if TYPE_CHECKING:
    from bench.verdicts import Figures

EMPTY = "zsh, an empty file read, ms"
TEXT = "zsh, the plugin read as text, ms"
COPIED = "zsh, the plugin read from the copy that a shell left, ms"
COMPILED = "zsh, the plugin read compiled, ms"

_IS_TEXT = {EMPTY: "-", TEXT: "1", COPIED: "0", COMPILED: "0"}

_READ = """
zmodload zsh/datetime
%s
started=$EPOCHREALTIME
%s
taken=$(( (EPOCHREALTIME - started) * 1e3 ))
print -r -- $taken ${_autoloadd_is_text--}
"""
_COPY_SECONDS = 20.0


class Reading(InPlace):
    """Goal 6: sourcing it costs under 2 ms; timed by zsh itself."""

    NAME = "reading"
    TIMES = 15
    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=6, what="zsh, the plugin read as text", unit="ms", ours=TEXT, at_most=2),
        Goal(number=6, what="zsh, the plugin read by later shells", unit="ms", ours=COPIED,
             at_most=2),
    )  # fmt: skip
    COMPARISONS: ClassVar[tuple[Comparison, ...]] = (
        Comparison(what="zsh, the plugin read as text, an empty file before", before=EMPTY,
                   after=TEXT, goal=GOALS[0], wanted="2 ms"),
        Comparison(what="zsh, the plugin read by later shells", before=EMPTY, after=COPIED,
                   goal=GOALS[1], wanted="2 ms"),
        Comparison(what="zsh, the plugin read compiled", before=EMPTY, after=COMPILED),
    )  # fmt: skip

    def start(self) -> None:
        """Lay the files out. Raises PeerFailedError where a shell leaves no copy of the plugin."""
        empty = self.place.directory / "empty"
        empty.touch()
        # Where no shell has left anything.
        private = self.place.directory / "private"
        private.mkdir(mode=0o700)
        self._lines = {
            EMPTY: ("", f"source {empty}"),
            TEXT: (f"AUTOLOADD_SOCKET={private}/socket", self.place.plain_plugin),
            COPIED: ("", self.place.plain_plugin),
            COMPILED: ("", self.place.plugin),
        }
        self._leave_copy()

    def _leave_copy(self) -> None:
        place = self.place
        shell = start_zsh(place.directory / "rc", place.plain_plugin, place.environment)
        try:
            wait_until(lambda: list(place.directory.glob("plugin-*.zwc")), _COPY_SECONDS, "a copy")
        finally:
            shell.end()

    def run_round(self, number: int, figures: Figures) -> None:
        """Read them in new shells, in turn; a round's figure is the median."""
        figures.add_all(medians_in_turn(self._lines, self._time, number=number, times=self.times))

    def _time(self, kind: str) -> float:
        """Return the ms. Raises PeerFailedError where something else was read."""
        taken, is_text = self.place.zsh(_READ % self._lines[kind]).split()
        if is_text != _IS_TEXT[kind]:
            raise PeerFailedError(f"{kind}: read in another way")
        return float(taken)
