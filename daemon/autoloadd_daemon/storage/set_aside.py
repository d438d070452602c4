"""Files that are kept and never served: damaged, of an unknown version, or behind a gap."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .files import Files

MAX_FILES = 3

_SET_ASIDE = ".set-aside-"


class SetAside(NamedTuple):
    """A file that is kept but not served, and why."""

    file: str
    reason: str


def set_aside_file(files: Files, path: str, reason: str) -> SetAside:
    """Rename a file so that it is kept and never served. Raises OSError."""
    target = name_to_set_aside(path)
    files.rename(path, target)
    return SetAside(target, reason)


def name_to_set_aside(path: str) -> str:
    """Return a name that is free, and says when the file got it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = f"{path}{_SET_ASIDE}{stamp}"
    again = 1
    while os.path.lexists(target):
        # Two starts within a second: the earlier file is kept too.
        again += 1
        target = f"{path}{_SET_ASIDE}{stamp}-{again}"
    return target


def is_set_aside(name: str) -> bool:
    """Tell whether a file's name says that it was set aside."""
    return _SET_ASIDE in name


def find_set_aside(files: Files, directories: list[str]) -> list[str]:
    """Return the paths of all files that were set aside in these directories, newest first."""
    paths = [f"{directory}/{name}" for directory in directories for name in files.names(directory)]
    found = [path for path in paths if is_set_aside(os.path.basename(path))]
    return sorted(found, key=_when, reverse=True)


def remove_excess(files: Files, paths: list[str], max_bytes: int) -> list[str]:
    """Remove all but the newest 3 files, and those that pass `max_bytes`; return their paths.

    `paths` come newest first. Raises OSError.
    """
    excess: list[str] = []
    kept_bytes = 0
    for number, path in enumerate(paths):
        kept_bytes += os.lstat(path).st_size
        if number >= MAX_FILES or kept_bytes > max_bytes:
            files.remove(path)
            excess.append(path)
    return excess


def _when(path: str) -> str:
    return path.rpartition(_SET_ASIDE)[2]
