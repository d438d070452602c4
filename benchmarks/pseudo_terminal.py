"""A shell in a pseudo-terminal: keys in, and every byte that comes back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PATIENCE_SECONDS = 60.0
"""A shell that says nothing for so long hangs."""


class PseudoTerminal:
    """A program whose terminal is ours; it is killed at the end."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], directory: Path
    ) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:  # pragma: no cover  another program by the time coverage would save
            # Not when it runs: a shell whose window changes draws its line once more.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 100, 0, 0))
            os.chdir(directory)
            os.execvpe(command[0], list(command), {**environment, "TERM": "xterm"})  # noqa: S606  no shell of ours
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._master)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def send(self, keys: str) -> None:
        """Type keys."""
        os.write(self._master, keys.encode())

    def type_until(self, keys: str, mark: bytes) -> None:
        """Type keys again and again until a mark comes: for what may be lost."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.send(keys)
            try:
                self.read_until(mark, seconds=0.5)
            except TimeoutError:
                assert time.monotonic() < deadline, f"no {mark!r} behind {self._unread!r}"
            else:
                return

    def read_until(self, mark: bytes, *, seconds: float = PATIENCE_SECONDS) -> bytes:
        """Return what comes up to a mark. Raises TimeoutError after so many seconds."""
        self.wait_for(lambda unread: mark in unread, repr(mark), seconds=seconds)
        found, _, self._unread = self._unread.partition(mark)
        return found

    def wait_for(
        self, is_there: Callable[[bytes], object], what: str, *, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Return as soon as what was not read yet has something. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not is_there(self._unread):
            if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise TimeoutError(f"waited for {what} behind {self._unread!r}")
            try:
                data = os.read(self._master, 65536)
            except OSError as exc:
                raise AssertionError(f"the shell ended: {self._unread!r}") from exc
            self._unread += data
