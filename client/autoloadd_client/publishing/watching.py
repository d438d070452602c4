"""What fpath's files look like now: all that decides whether a published farm is still right.

A shell that starts runs this, so it imports little, and costs one `stat` for each file. "Different"
is what counts, not "newer": a package brings its files' old times along.
"""

from __future__ import annotations

import os

from autoloadd_client.shells.fingerprint import describe

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT = b"autoloadd farm 2\0"
"""What a state begins with. Another layout of the farm gets another number."""

FARM = "farm"
COMPLETIONS = "completions"
PARTS = (FARM, COMPLETIONS)
"""Directories of links, each with its digest `PART.zwc` beside it where there are functions."""

STATE = "state"
FPATH = "fpath"
USED = "used"

_SECOND = 10**9
_TICK_NS = 10**7
"""What changes gets the time of the kernel's last tick: up to 10 ms ago."""

_MINUTE_SECONDS = 60
_RECENT = b"written in the second in which it was looked at\0"


def observe(binary: str, directories: Iterable[str], now_ns: int) -> bytes:
    """Return a text that differs whenever the shell's program or a file in its fpath does.

    For each, `path NUL size NUL inode NUL mtime_ns NUL`, links followed. A file of this second, by
    `now_ns`, may be written once more without a new time that zsh could see: with such a file the
    text differs from every other one. Raises OSError where the program is not there.
    """
    texts = [FORMAT, describe(os.path.realpath(binary), os.stat(binary))]
    recent = False
    for directory in directories:
        texts.append(os.fsencode(directory) + b"\0")
        for path, found in _stats_of(directory):
            texts.append(describe(path, found))
            recent = recent or is_recent(found.st_mtime_ns, now_ns)
    if recent:
        texts.append(_RECENT + b"%d\0" % now_ns)
    return b"".join(texts)


def is_recent(mtime_ns: int, now_ns: int) -> bool:
    """Tell whether a file may change without a change that zsh sees: it compares whole seconds.

    A minute is left for the time that passes since `now_ns`. Files from the farther future never
    come to rest: zsh takes their source.
    """
    return 0 <= mtime_ns // _SECOND - now_ns // _SECOND < _MINUTE_SECONDS


def absolute(fpath: Iterable[str]) -> list[str]:
    """Return those of fpath that do not depend on where we stand, each once."""
    return list(dict.fromkeys(directory for directory in fpath if directory.startswith("/")))


def without_farms(socket_path: str, fpath: Iterable[str]) -> list[str]:
    """Return fpath as it is without the farms that a shell has put into it."""
    base = os.path.dirname(socket_path)
    return [directory for directory in fpath if not _is_of_farm(base, directory)]


def _is_of_farm(base: str, directory: str) -> bool:
    place, part = os.path.split(directory.rstrip("/"))
    above, name = os.path.split(place)
    return part in PARTS and name.startswith("zsh-") and above == base


def read_state(place: str) -> bytes:
    """Return what was observed for what is published at a place; nothing where nothing is."""
    try:
        with open(f"{place}/{STATE}", "rb") as file:
            state = file.read()
    except OSError:
        return b""
    mark, _, observed = state.partition(b"\0")
    return observed if mark == mark_of(place) else b""


def mark_of(place: str) -> bytes:
    """Return what tells the digests that belong to a state from any others."""
    found = (_stat_of(f"{place}/{part}.zwc") for part in PARTS)
    marks = (b"%d %d" % (each.st_size, each.st_mtime_ns) if each else b"-" for each in found)
    return b",".join(marks)


def find_unchanged(socket_path: str, binary: str, fpath: Iterable[str], now_ns: int) -> str | None:
    """Return the place of a farm of this program for this fpath that is still right; None: none.

    Raises OSError where that cannot be told.
    """
    directories = absolute(without_farms(socket_path, fpath))
    observed = observe(binary, directories, now_ns)
    base = os.path.dirname(socket_path)
    places = (f"{base}/{name}" for name in os.listdir(base) if name.startswith("zsh-"))
    return next((place for place in places if read_state(place) == observed), None)


def note_observation(place: str, now_ns: int) -> None:
    """Have shells look for directories that change from `now_ns` on. Raises OSError."""
    at = now_ns - _TICK_NS
    os.utime(f"{place}/{STATE}", ns=(at, at))


def _stats_of(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what zsh looks at for an element of fpath: a digest beside it, and all files in it."""
    beside = directory if directory.endswith(".zwc") else f"{directory}.zwc"
    if (found := _stat_of(beside)) is not None:
        yield beside, found
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    real = os.path.realpath(directory)
    for entry in entries:
        name = entry.name
        if name.startswith(".") or name.endswith("~"):
            continue
        if (found := _stat_of(entry.path)) is not None:
            path = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{name}"
            yield path, found


def _stat_of(path: str) -> os.stat_result | None:
    """Return what there is at a path, links followed; None for a link that leads nowhere."""
    try:
        return os.stat(path)
    except OSError:
        return None
