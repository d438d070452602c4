"""Python file cache: lock, rewrite, fsync per put. What a cache without a daemon has to do.

It is written as one would write it with care, so that the comparison is fair: one `flock`, one
read, one MessagePack decode and encode by compiled code, one write, one fsync, one rename. It does
not even sync the directory.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import msgpack  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "Python file cache: lock, rewrite, fsync per put"


class LockedFileCache:
    """`name -> blob` in one file, which every put reads and rewrites under an exclusive lock."""

    def __init__(self, path: str) -> None:
        self._path = path
        # The lock has a file of its own: the data file is another inode after each rename.
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Let go of the lock's file."""
        os.close(self._lock)

    def get(self, name: str) -> bytes | None:
        """Return the blob, or None. Needs no lock: a rename replaces the file at once."""
        return self._read().get(name)

    def put(self, name: str, blob: bytes) -> None:
        """Store one entry; it is on stable storage when this returns."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            entries = self._read()
            entries[name] = blob
            self._write(entries)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def replace_all(self, entries: Mapping[str, bytes]) -> None:
        """Store exactly these entries."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._write(dict(entries))
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _read(self) -> dict[str, bytes]:
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return {}
        entries: dict[str, bytes] = msgpack.unpackb(data)
        return entries

    def _write(self, entries: dict[str, bytes]) -> None:
        temporary = f"{self._path}.new"
        with open(temporary, "wb", buffering=0) as file:
            file.write(msgpack.packb(entries))
            os.fsync(file.fileno())
        os.rename(temporary, self._path)
