"""Remembering that the daemon does not answer, between processes that live for one question.

The file `zsh-away` beside the socket is the zsh plugin's, too: a line `SECONDS PID` for each shell
that waited in vain. For 30 s such a shell does not ask again, nor does any after two have seen it;
until a daemon is started: its socket is newer than the file then.
"""

from __future__ import annotations

import os

AWAY_SECONDS = 30
_FILE = "zsh-away"


def is_away(socket: str, shell: int, now: int) -> bool:
    """Tell whether a shell (its process id) need not ask at a socket. `now` is in seconds."""
    seen = _read(socket, now)
    return shell in seen or len(seen) > 1


def note_absence(socket: str, shell: int, now: int) -> None:
    """Remember that a shell has waited in vain."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    flags |= os.O_APPEND if _read(socket, now) else os.O_TRUNC
    try:
        descriptor = os.open(_path(socket), flags, 0o600)
        try:
            os.write(descriptor, b"%d %d\n" % (now, shell))
        finally:
            os.close(descriptor)
    except OSError:
        return  # then the next one waits, too


def _path(socket: str) -> str:
    return f"{os.path.dirname(socket)}/{_FILE}"


def _read(socket: str, now: int) -> set[int]:
    """Return the shells that have waited for this daemon, and not too long ago."""
    try:
        with open(_path(socket), "rb") as file:
            lines = file.read().splitlines()
            noted_ns = os.fstat(file.fileno()).st_mtime_ns
        if os.stat(socket).st_mtime_ns > noted_ns:
            return set()
    except OSError:
        return set()
    seen = set()
    for line in lines:
        time, _, process = line.partition(b" ")
        if time.isdigit() and process.isdigit() and 0 <= now - int(time) < AWAY_SECONDS:
            seen.add(int(process))
    return seen
