"""What fpath's files look like now: all that decides whether a published farm is still right.

A shell that starts runs this, so it imports little, and costs one `stat` for each file. "Different"
is what counts, not "newer": a package brings its files' old times along.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT = b"autoloadd farm 1\0"
"""What a state begins with. Another layout of the farm gets another number."""

DIGEST = "farm.zwc"
FARM = "farm"
STATE = "state"

_SECOND = 10**9
_MINUTE_SECONDS = 60
_RECENT = b"written in the second in which it was looked at\0"


def observe(binary: str, directories: Iterable[str], now_ns: int) -> bytes:
    """Return a text that differs whenever the shell's program or a file in its fpath does.

    For each, `path NUL size NUL inode NUL mtime_ns NUL`, links followed. A file of this second, by
    `now_ns`, may be written once more without a new time that zsh could see: with such a file the
    text differs from every other one. Raises OSError where the program is not there.
    """
    texts = [FORMAT, _describe(os.path.realpath(binary), os.stat(binary))]
    recent = False
    for directory in directories:
        texts.append(os.fsencode(directory) + b"\0")
        for path, found in _stats_of(directory):
            texts.append(_describe(path, found))
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


def read_state(place: str) -> bytes:
    """Return what was observed for what is published at a place; nothing where nothing is."""
    try:
        with open(f"{place}/{STATE}", "rb") as file:
            state = file.read()
        digest = os.stat(f"{place}/{DIGEST}")
    except OSError:
        return b""
    mark, _, observed = state.partition(b"\0")
    return observed if mark == mark_of(digest) else b""


def mark_of(digest: os.stat_result) -> bytes:
    """Return what tells the digest that belongs to a state from any other."""
    return b"%d %d" % (digest.st_size, digest.st_mtime_ns)


def place_of(socket_path: str, version: str) -> str:
    """Return where the farm for a version of zsh is: beside the socket."""
    return f"{os.path.dirname(socket_path)}/zsh-{version}"


def is_unchanged(socket_path: str, binary: str, fpath: Iterable[str], now_ns: int) -> bool:
    """Tell whether a farm of this program for this fpath is published and still right.

    Raises OSError where that cannot be told.
    """
    observed = observe(binary, absolute(fpath), now_ns)
    base = os.path.dirname(socket_path)
    return any(
        read_state(f"{base}/{name}") == observed
        for name in os.listdir(base)
        if name.startswith("zsh-")
    )


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


def _describe(path: str, found: os.stat_result) -> bytes:
    return os.fsencode(path) + b"\0%d\0%d\0%d\0" % (
        found.st_size,
        found.st_ino,
        found.st_mtime_ns,
    )
