"""A real zsh in a pseudo-terminal: what is typed, and every byte that comes back."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PATIENCE_SECONDS = 60.0
"""A shell that says nothing for so long hangs."""

DONE = b"\x1b]done\x07"
READY = b"\x1b]ready\x07"
"""Control sequences that a terminal would pass over, printed where the shell has come to an end."""

RC = r"""
PS1='%% ' PS2= RPS1= PROMPT_EOL_MARK=
unset zle_bracketed_paste
# What was listed is on the screen when the mark is printed.
tab() { zle expand-or-complete; zle -R; printf '\e]done\a' }
line() { print -r -- "<$CURSOR:$BUFFER>" >| $ZDOTDIR/line; zle kill-buffer; printf '\e]done\a' }
zle -N tab; zle -N line
bindkey '^I' tab
bindkey '^X^X' line
zle-line-init() { printf '\e]ready\a' }; zle -N zle-line-init
"""


class Terminal:
    """An interactive zsh. Its start-up file is `rc` behind what the tests need themselves."""

    def __init__(
        self,
        directory: Path,
        rc: str = "",
        *,
        environment: Mapping[str, str],
        options: Sequence[str] = (),
        rows: int = 60,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        (directory / ".zshrc").write_text(f"{rc}\n{RC}")
        child = {**environment, "ZDOTDIR": str(directory), "TERM": "xterm", "PS1": "% "}
        self.pid, self._master = pty.fork()
        if self.pid == 0:  # pragma: no cover  another program by the time coverage would save
            os.execvpe("zsh", ["zsh", "-d", "-i", *options], child)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 100, 0, 0))
        self._unread = b""
        self.startup = self.read_until(READY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._master)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def send(self, keys: bytes | str) -> None:
        """Type keys."""
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def read_until(self, mark: bytes) -> bytes:
        """Return what the shell prints up to a mark."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while mark not in self._unread:
            if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise AssertionError(f"waited for {mark!r} behind {self._unread!r}")
            try:
                data = os.read(self._master, 65536)
            except OSError as exc:
                raise AssertionError(f"zsh ended: {self._unread!r}") from exc
            self._unread += data
        found, _, self._unread = self._unread.partition(mark)
        return found

    def run(self, command: str) -> str:
        """Run a command line; return what it printed."""
        self.send(f"{command}\n")
        printed = self.read_until(READY).decode(errors="replace")
        # Echo and prompt are the terminal's: what is left is between the first newline and the end.
        return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\x1b[=>]", "", printed).partition("\r\r\n")[2]

    def tab(self, line: str) -> tuple[bytes, str]:
        """Type a line and TAB; return what the terminal was sent, and the line as it is then."""
        self.send(line)
        self.send("\t")
        shown = self.read_until(DONE)
        self.send("\x18\x18")
        self.read_until(DONE)
        return shown, (self._directory / "line").read_text()
