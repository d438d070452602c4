"""Interactive shells in a pseudo-terminal, whose answers to keys are timed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.verdicts import PeerFailedError
from pseudo_terminal import PseudoTerminal

from .screen import last_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS = 60.0
QUIET_SECONDS = 0.03
"""A shell that has sent nothing for so long has shown all that was typed."""

READY = b"\x1b]ready\x07"
"""A control sequence that a terminal passes over, sent when the shell waits for input."""

_CTRL_U = "\x15"
"""Empties the line. Ctrl-C may be lost where the shell has not yet come back from completing."""

_PROMPT = "> "

_ZSH_READY = r"""
PS1=$'%{\e]ready\a%}> ' RPS1= PROMPT_EOL_MARK=
unset zle_bracketed_paste
"""
_BASH_READY = r"""
PS1='\[\e]ready\a\]> '
bind 'set enable-bracketed-paste off' 'set bell-style none'
"""
_FISH_READY = r"""
set -g fish_greeting
set -g fish_autosuggestion_enabled 0
function fish_prompt; printf '\e]ready\a> '; end
"""


class Shell(PseudoTerminal):
    """An interactive shell that has read `rc` and waits for input."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], directory: Path
    ) -> None:
        started = time.perf_counter()
        super().__init__(command, environment=environment, directory=directory)
        try:
            self._wait_ready()
            self.start_ms = (time.perf_counter() - started) * 1e3
        except BaseException:
            self.end()
            raise

    def time_tab(self, line: str, completed: str) -> float:
        """Return the ms from TAB behind a line to the completed line on the screen.

        Raises PeerFailedError where anything else is there.
        """
        self.send(line)
        self._wait_for(f"> {line}")
        self._wait_quiet()
        started = time.perf_counter()
        self.send("\t")
        self._wait_for(f"> {completed}")
        taken = (time.perf_counter() - started) * 1e3
        self._wait_quiet()
        shown = last_line(self._unread)
        if shown != f"> {completed}":
            raise PeerFailedError(f"TAB behind {line!r} shows {shown!r}, not {completed!r}")
        self.send(_CTRL_U)
        self._wait_for(_PROMPT.rstrip())
        self._wait_quiet()
        self._unread = _PROMPT.encode()
        return taken

    def run(self, command: str) -> None:
        """Run a command line, and wait for the next prompt."""
        self.send(f"{command}\n")
        self._wait_ready()

    def end(self) -> None:
        """Kill it."""
        self.__exit__()

    def _wait_ready(self) -> None:
        try:
            self.read_until(READY, seconds=SECONDS)
        except (TimeoutError, AssertionError) as exc:
            raise PeerFailedError(str(exc)) from exc

    def _wait_for(self, shown: str) -> None:
        try:
            self.wait_for(lambda sent: last_line(sent) == shown, repr(shown), seconds=SECONDS)
        except (TimeoutError, AssertionError) as exc:
            raise PeerFailedError(str(exc)) from exc

    def _wait_quiet(self) -> None:
        size = -1
        while size != len(self._unread):
            size = len(self._unread)
            try:
                self.wait_for(lambda sent: len(sent) > size, "more", seconds=QUIET_SECONDS)  # noqa: B023
            except TimeoutError:
                return


def start_zsh(place: Path, rc: str, environment: Mapping[str, str]) -> Shell:
    """Return a zsh whose .zshrc in `place` is `rc`, and what makes it say that it is ready."""
    place.mkdir(exist_ok=True)
    (place / ".zshrc").write_text(f"{rc}\n{_ZSH_READY}")
    return Shell(
        ["zsh", "-d", "-i"],
        environment={**environment, "ZDOTDIR": str(place)}, directory=Path(environment["HOME"]),
    )  # fmt: skip


def start_bash(place: Path, rc: str, environment: Mapping[str, str]) -> Shell:
    """Return a bash likewise."""
    place.mkdir(exist_ok=True)
    (place / "rc").write_text(f"{rc}\n{_BASH_READY}")
    return Shell(
        ["bash", "--noprofile", "--rcfile", str(place / "rc"), "-i"],
        environment=environment, directory=Path(environment["HOME"]),
    )  # fmt: skip


def start_fish(place: Path, rc: str, environment: Mapping[str, str]) -> Shell:
    """Return a fish likewise."""
    (place / "fish").mkdir(parents=True, exist_ok=True)
    (place / "fish" / "config.fish").write_text(f"{rc}\n{_FISH_READY}")
    return Shell(
        ["fish", "-i"],
        environment={**environment, "XDG_CONFIG_HOME": str(place), "fish_history": ""},
        directory=Path(environment["HOME"]),
    )  # fmt: skip
