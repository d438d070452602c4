"""Remembering that the daemon does not answer, between processes that live for one question.

The file `zsh-away` beside the socket is the zsh plugin's, too: a line `SECONDS PID` for each shell
that waited in vain. For 30 s such a shell does not ask again, nor does any after two have seen it.
"""

from __future__ import annotations

import os

AWAY_SECONDS = 30
_FILE = "zsh-away"


def is_away(directory: str, shell: int, now: int) -> bool:
    """Tell whether a shell (its process id) need not ask. `now` is in seconds."""
    seen = _shells_that_waited(directory, now)
    return shell in seen or len(seen) > 1


def note_absence(directory: str, shell: int, now: int) -> None:
    """Remember that a shell has waited in vain."""
    line = b"%d %d\n" % (now, shell)
    kept = os.O_APPEND if _shells_that_waited(directory, now) else os.O_TRUNC
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | kept
    try:
        descriptor = os.open(f"{directory}/{_FILE}", flags, 0o600)
        os.write(descriptor, line)
        os.close(descriptor)
    except OSError:
        return  # then the next one waits, too


def _shells_that_waited(directory: str, now: int) -> set[int]:
    """Return the process ids of those that waited in vain just now."""
    seen = set()
    for line in _read(directory):
        time, _, process = line.partition(b" ")
        if time.isdigit() and process.isdigit() and 0 <= now - int(time) < AWAY_SECONDS:
            seen.add(int(process))
    return seen


def _read(directory: str) -> list[bytes]:
    try:
        with open(f"{directory}/{_FILE}", "rb") as file:
            return file.read().splitlines()
    except OSError:
        return []
