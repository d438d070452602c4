"""Files that are kept and never served: damaged, of an unknown version, or behind a gap."""

from __future__ import annotations

import os
import re
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from .files import is_directory

if TYPE_CHECKING:
    from .files import Files

MAX_FILES = 3

_SET_ASIDE = ".set-aside-"
_STAMP = "%Y%m%dT%H%M%SZ"
_STAMP_LETTERS = 16
_REASON_LETTERS = 60


class SetAside(NamedTuple):
    """A file that is kept but not served, and why."""

    file: str
    reason: str


def set_aside_file(files: Files, path: str, reason: str) -> SetAside:
    """Rename a file so that it is kept and never served. Raises OSError."""
    target = _name_to_set_aside(path, reason)
    files.rename(path, target)
    return SetAside(target, reason)


def set_aside_copy(files: Files, path: str, reason: str) -> SetAside:
    """Keep a file whose name another one is about to take. Raises OSError."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        # No second name can be given to a directory, and none is needed: nothing is read from it.
        return set_aside_file(files, path, reason)
    target = _name_to_set_aside(path, reason)
    files.link(path, target)
    return SetAside(target, reason)


def clear_away(files: Files, path: str) -> list[SetAside]:
    """Remove a file that is not needed; a directory in its place is set aside. Raises OSError."""
    if is_directory(path):
        return [set_aside_file(files, path, "a directory where a file belongs")]
    files.remove(path)
    return []


def _name_to_set_aside(path: str, reason: str) -> str:
    """Return a name that is free, and says when the file got it, and why."""
    stamp = time.strftime(_STAMP, time.gmtime())
    without_folders = re.sub(r"\S*/", "", reason).lower()
    why = re.sub(r"[^a-z0-9]+", "-", without_folders)[:_REASON_LETTERS].strip("-")
    target = first = f"{path}{_SET_ASIDE}{stamp}-{why}"
    again = 1
    while os.path.lexists(target):
        # Two starts within a second: the earlier file is kept too.
        again += 1
        target = f"{first}-{again}"
    return target


def reason_of(path: str) -> str:
    """Return what the name of a file that was set aside says of the reason."""
    return _suffix(path)[_STAMP_LETTERS + 1 :].replace("-", " ") or "not known"


def is_set_aside(name: str) -> bool:
    """Tell whether a file's name says that it was set aside."""
    return _SET_ASIDE in name


def find_set_aside(files: Files, directories: list[str]) -> list[str]:
    """Return the paths of all files that were set aside in these directories, newest first."""
    paths = [f"{directory}/{name}" for directory in directories for name in files.names(directory)]
    found = [path for path in paths if is_set_aside(os.path.basename(path))]
    return sorted(found, key=_by_age, reverse=True)


def remove_excess(files: Files, paths: list[str], max_bytes: int) -> list[str]:
    """Remove all but the newest 3 files, and those that pass `max_bytes`; return their paths.

    `paths` come newest first. Raises OSError.
    """
    excess: list[str] = []
    kept_bytes = 0
    for number, path in enumerate(paths):
        kept_bytes += size_of(path)
        if number >= MAX_FILES or kept_bytes > max_bytes:
            files.remove_tree(path)
            excess.append(path)
    return excess


def size_of(path: str) -> int:
    """Return the bytes of a file, or of all files in a directory. Raises OSError."""
    if not is_directory(path):
        return os.lstat(path).st_size
    return sum(size_of(f"{path}/{name}") for name in os.listdir(path))


def _suffix(path: str) -> str:
    return path.rpartition(_SET_ASIDE)[2]


def _by_age(path: str) -> tuple[str, bool, str]:
    """Return what sorts the newest last; a journal or an image after its bulks."""
    is_bulk = os.path.basename(path).startswith("bulk.")
    return _suffix(path)[:_STAMP_LETTERS], not is_bulk, path
