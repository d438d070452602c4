"""The real disk, with a log of what was done to it, and failures on demand."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

from autoloadd_daemon.storage.files import Files

from .disk_model import (
    Create,
    MakeDirectory,
    RemoveDirectory,
    Rename,
    SyncDirectory,
    SyncFile,
    Truncate,
    Unlink,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .disk_model import Operation


class RecordingFiles(Files):
    """Does everything for real, and writes down what a crash model needs to know.

    Appends are split, so that a crash between two parts of a write is one of the states.
    `fail(method, errno)` makes the next call of a method fail; `until_healed` all of them.
    """

    def __init__(self) -> None:
        self.log: list[Operation] = []
        self._lock = threading.Lock()
        self._inodes: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._failures: dict[str, tuple[int, bool]] = {}
        self._next_inode = 1
        self._by_path: dict[str, int] = {}

    def note(self, operation: Operation) -> None:
        """Add to the log."""
        with self._lock:
            self.log.append(operation)

    def fail(self, method: str, number: int = errno.EIO, *, until_healed: bool = False) -> None:
        """Make calls of a method fail with an errno."""
        self._failures[method] = (number, until_healed)

    def heal(self) -> None:
        """Let everything work again."""
        self._failures.clear()

    def _check(self, method: str) -> None:
        failure = self._failures.get(method)
        if failure is not None:
            number, stays = failure
            if not stays:
                del self._failures[method]
            raise OSError(number, os.strerror(number))

    def _opened(self, path: str, descriptor: int) -> int:
        with self._lock:
            inode = self._next_inode
            self._next_inode += 1
        self._inodes[descriptor] = inode
        self._sizes[inode] = 0
        self._by_path[path] = inode
        self.note(Create(path, inode))
        return descriptor

    def create(self, path: str) -> int:
        self._check("create")
        return self._opened(path, super().create(path))

    def create_for_image(self, path: str) -> int:
        self._check("create_for_image")
        return self._opened(path, super().create_for_image(path))

    def reopen(self, path: str) -> int:
        self._check("reopen")
        descriptor = super().reopen(path)
        self._inodes[descriptor] = self._by_path[path]
        return descriptor

    def append(self, descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
        whole = b"".join(parts)
        half = len(whole) // 2
        self._append_piece(descriptor, whole[:half])
        # A disk that is full takes a part: the failure comes after it.
        self._check("append")
        self._append_piece(descriptor, whole[half:])

    def _append_piece(self, descriptor: int, piece: bytes) -> None:
        super().append(descriptor, [piece])
        inode = self._inodes[descriptor]
        self.note(Write(inode, self._sizes[inode], piece))
        self._sizes[inode] += len(piece)

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        self._check("overwrite")
        super().overwrite(descriptor, data, offset)
        self.note(Write(self._inodes[descriptor], offset, data))

    def truncate(self, descriptor: int, size: int) -> None:
        self._check("truncate")
        super().truncate(descriptor, size)
        inode = self._inodes[descriptor]
        self._sizes[inode] = size
        self.note(Truncate(inode, size))

    def sync_data(self, descriptor: int) -> None:
        self._sync("sync_data", descriptor)

    def sync(self, descriptor: int) -> None:
        self._sync("sync", descriptor)

    def _sync(self, method: str, descriptor: int) -> None:
        inode = self._inodes[descriptor]
        try:
            self._check(method)
        except OSError:
            self.note(SyncFile(inode, failed=True))
            raise
        # The model keeps what is synced; the real disk need not wait for it.
        self.note(SyncFile(inode))

    def sync_directory(self, path: str) -> None:
        self._check("sync_directory")
        self.note(SyncDirectory(path))

    def rename(self, source: str, target: str) -> None:
        self._check("rename")
        super().rename(source, target)
        for path in [p for p in self._by_path if p == source or p.startswith(f"{source}/")]:
            self._by_path[target + path[len(source) :]] = self._by_path.pop(path)
        self.note(Rename(source, target))

    def remove(self, path: str) -> None:
        self._check("remove")
        existed = os.path.lexists(path)
        super().remove(path)
        if existed:
            self.note(Unlink(path))

    def remove_tree(self, path: str) -> None:
        self._check("remove_tree")
        super().remove_tree(path)
        self.note(RemoveDirectory(path))

    def make_directory(self, path: str) -> None:
        self._check("make_directory")
        existed = os.path.isdir(path)
        super().make_directory(path)
        if not existed:
            self.note(MakeDirectory(path))
