"""Which part of a stored fingerprint is not as it was: the files, then the variables.

A fingerprint is opaque to the daemon. To a client it is a row of texts, `path NUL size NUL inode
NUL mtime_ns NUL` for a file (`path NUL NUL NUL NUL` where there was none) and `NAME=value NUL` or
`NAME NUL` for a variable. A path alone, behind the first file, is where that was found, if that is
not its real path.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NUMBERS = ("size", "inode", "mtime_ns")
_FILE_FIELDS = 1 + len(_NUMBERS)


@dataclass(frozen=True, slots=True)
class Difference:
    """One part that differs: of a file its path, size (bytes), inode or mtime_ns; or a variable.

    `subject` is the file's path or the variable's name. None: there was, or is, no such thing.
    """

    subject: str
    part: str
    stored: str | None
    now: str | None


def differences(
    fingerprint: bytes,
    environment: Mapping[str, str],
    *,
    program: str | None = None,
    found_as: str | None = None,
) -> list[Difference]:
    """Return what differs between a stored fingerprint and the files and variables of now.

    `program` is the file that is meant now by the first one; None: the same path. `found_as` is
    where it is found now, in fingerprints that tell it. Raises ValueError for what is no such
    fingerprint.
    """
    found: list[Difference] = []
    items = list(_split(fingerprint))
    if found_as is not None and items:
        found += _compare_place(items, os.path.abspath(found_as))
    for number, item in enumerate(items):
        if isinstance(item, str) and item.startswith("/"):
            continue
        if isinstance(item, str):
            found += _compare_variable(item, environment)
        else:
            found += _compare_file(item, program if number == 0 else None)
    return found


def _split(fingerprint: bytes) -> Iterator[str | list[str]]:
    """Yield a variable's text, or a file's four."""
    fields = os.fsdecode(fingerprint).split("\0")
    if fields.pop():
        raise ValueError("a fingerprint ends with NUL")
    position = 0
    while position < len(fields):
        file = fields[position : position + _FILE_FIELDS]
        if _is_file(file):
            yield file
            position += _FILE_FIELDS
        elif not fields[position]:
            raise ValueError("a fingerprint has no empty name")
        else:
            yield fields[position]
            position += 1


def _is_file(fields: list[str]) -> bool:
    numbers = fields[1:]
    return (
        len(fields) == _FILE_FIELDS
        and fields[0].startswith("/")
        and (all(each.isdigit() for each in numbers) or not any(numbers))
    )


def _compare_file(stored: list[str], meant: str | None) -> Iterator[Difference]:
    path = stored[0]
    if meant is not None and os.path.realpath(meant) != path:
        yield Difference(path, "path", path, os.path.realpath(meant))
        return
    try:
        found = os.stat(path)
    except OSError:
        if stored[1]:
            yield Difference(path, "path", path, None)
        return
    if not stored[1]:
        yield Difference(path, "path", None, path)
        return
    now = (found.st_size, found.st_ino, found.st_mtime_ns)
    for part, was, value in zip(_NUMBERS, stored[1:], now, strict=True):
        if was != str(value):
            yield Difference(path, part, was, str(value))


def _compare_place(items: list[str | list[str]], now: str) -> Iterator[Difference]:
    """Compare where the program was found; another program is told of elsewhere."""
    first, *rest = items
    real = os.path.realpath(now)
    if isinstance(first, str) or first[0] != real:
        return
    told = rest[0] if rest and isinstance(rest[0], str) and rest[0].startswith("/") else real
    if told != now:
        yield Difference(str(told), "path", str(told), now)


def _compare_variable(text: str, environment: Mapping[str, str]) -> Iterator[Difference]:
    name, equals, value = text.partition("=")
    stored = value if equals else None
    now = environment.get(name)
    if stored != now:
        yield Difference(name, "variable", stored, now)
