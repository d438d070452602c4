"""The real disk, with a log of what was done to it, and failures on demand."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoloadd_daemon.storage.files import Files

from .disk_model import (
    BeginSync,
    Create,
    Link,
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
    from collections.abc import Iterable, Mapping, Sequence

    from .disk_model import Operation
    from .turnstile import Turnstile

OPENING = ("create", "create_for_image", "reopen")
READING = ("names", "read")
METHODS = (
    *OPENING,
    *("append", "overwrite", "truncate", "identity", "close"),
    *("sync_data", "sync", "sync_directory"),
    *("rename", "link", "remove", "remove_tree", "remove_directory", "make_directory"),
)


@dataclass
class _Failure:
    """What calls of a method on paths with `on` in them fail with, `skip` calls later."""

    number: int
    stays: bool
    on: str
    skip: int


class RecordingFiles(Files):
    """Does everything for real, and writes down what a crash model needs to know.

    Appends are split, so that a crash between two parts of a write is one of the states; one that
    fails leaves a part behind, as a full disk does. Threads come one at a time: see `turnstile`.
    """

    def __init__(self) -> None:
        self.log: list[Operation] = []
        self.calls: Counter[str] = Counter()
        self.failed: list[tuple[str, str]] = []
        self.turnstile: Turnstile | None = None
        self._inodes: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._by_path: dict[str, int] = {}
        self._failures: dict[str, _Failure] = {}
        self._cuts = random.Random(0)
        self._syncs = 0

    def go_on(self, log: Sequence[Operation], names: Mapping[str, int]) -> None:
        """Take a disk over that an earlier process left: its log, and the files with inodes."""
        self.log = list(log)
        self._by_path = dict(names)
        self._sizes = {inode: os.path.getsize(path) for path, inode in names.items()}
        earlier = [op.inode for op in log if isinstance(op, Create)]
        self._sizes.update(dict.fromkeys(set(earlier) - set(self._sizes), 0))
        self._syncs = len(log)

    def adopt(self, root: str) -> None:
        """Take a disk over as it is: everything on it is durable."""
        for directory, _, names in os.walk(root):
            if directory != root:
                self.log.append(MakeDirectory(directory))
            for name in names:
                path = f"{directory}/{name}"
                inode = self._new_inode(path)
                data = super().read(path)
                self._sizes[inode] = len(data)
                self.log += [Create(path, inode), Write(inode, 0, data), SyncFile(inode)]
        everywhere = [op.path for op in self.log if isinstance(op, MakeDirectory)]
        self.log += [SyncDirectory(path) for path in (root, *everywhere)]

    def make_root(self, path: str) -> None:
        """Make the cache directory, durably: it is there before the log begins."""
        super().make_directory(path)

    def note(self, operation: Operation) -> None:
        """Add to the log."""
        self.log.append(operation)

    def fail(
        self,
        method: str,
        number: int = errno.EIO,
        *,
        until_healed: bool = False,
        on: str = "",
        skip: int = 0,
    ) -> None:
        """Make calls of a method fail with an errno: one of them, or all `until_healed`."""
        self._failures[method] = _Failure(number, until_healed, on, skip)

    def heal(self) -> None:
        """Let everything work again."""
        self._failures.clear()

    def _begin(self, method: str, path: str) -> None:
        """Wait for the turn; fail if this call is to."""
        if self.turnstile is not None:
            self.turnstile.step()
        self.calls[method] += 1
        failure = self._failures.get(method)
        if failure is None or failure.on not in path:
            return
        if failure.skip:
            failure.skip -= 1
            return
        if not failure.stays:
            del self._failures[method]
        self.failed.append((method, path))
        raise OSError(failure.number, os.strerror(failure.number))

    def _new_inode(self, path: str) -> int:
        inode = len(self._sizes) + 1
        self._sizes[inode] = 0
        self._by_path[path] = inode
        return inode

    def _opened(self, path: str, descriptor: int) -> int:
        self._inodes[descriptor] = self._new_inode(path)
        self.note(Create(path, self._inodes[descriptor]))
        return descriptor

    def _path_of(self, descriptor: int) -> str:
        inode = self._inodes[descriptor]
        return next((path for path, other in self._by_path.items() if other == inode), "")

    def create(self, path: str) -> int:
        self._begin("create", path)
        return self._opened(path, super().create(path))

    def create_for_image(self, path: str) -> int:
        self._begin("create_for_image", path)
        existed = os.path.lexists(path)
        descriptor = super().create_for_image(path)
        if not existed:
            return self._opened(path, descriptor)
        self._inodes[descriptor] = self._by_path[path]
        self._sizes[self._by_path[path]] = 0
        self.note(Truncate(self._by_path[path], 0))
        return descriptor

    def reopen(self, path: str) -> int:
        self._begin("reopen", path)
        descriptor = super().reopen(path)
        self._inodes[descriptor] = self._by_path[path]
        return descriptor

    def append(self, descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
        whole = b"".join(parts)
        try:
            self._begin("append", self._path_of(descriptor))
        except OSError:
            self._append_piece(descriptor, whole[: self._cuts.randint(0, len(whole))])
            raise
        half = len(whole) // 2
        self._append_piece(descriptor, whole[:half])
        if self.turnstile is not None:
            self.turnstile.step()
        self._append_piece(descriptor, whole[half:])

    def _append_piece(self, descriptor: int, piece: bytes) -> None:
        if not piece:
            return
        super().append(descriptor, [piece])
        inode = self._inodes[descriptor]
        self.note(Write(inode, self._sizes[inode], piece))
        self._sizes[inode] += len(piece)

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        self._begin("overwrite", self._path_of(descriptor))
        super().overwrite(descriptor, data, offset)
        self.note(Write(self._inodes[descriptor], offset, data))

    def truncate(self, descriptor: int, size: int) -> None:
        self._begin("truncate", self._path_of(descriptor))
        super().truncate(descriptor, size)
        inode = self._inodes[descriptor]
        self._sizes[inode] = size
        self.note(Truncate(inode, size))

    def names(self, path: str) -> list[str]:
        self._begin("names", path)
        return super().names(path)

    def read(self, path: str) -> bytes:
        self._begin("read", path)
        return super().read(path)

    def identity(self, path: str) -> tuple[int, int] | None:
        self._begin("identity", path)
        return super().identity(path)

    def close(self, descriptor: int) -> None:
        # After an error it is closed too (Linux); a second time it may be somebody else's.
        assert descriptor in self._inodes, "closed twice"
        path = self._path_of(descriptor)
        del self._inodes[descriptor]
        super().close(descriptor)
        self._begin("close", path)

    def close_all(self) -> None:
        """Close what is open still, as the end of a process does."""
        for descriptor in self._inodes:
            super().close(descriptor)
        self._inodes.clear()

    def sync_data(self, descriptor: int) -> None:
        self._sync("sync_data", descriptor)

    def sync(self, descriptor: int) -> None:
        self._sync("sync", descriptor)

    def _sync(self, method: str, descriptor: int) -> None:
        # The model keeps what is synced; the real disk need not wait for it.
        inode = self._inodes[descriptor]
        number = self._begin_sync(inode)
        try:
            self._begin(method, self._path_of(descriptor))
        except OSError:
            self.note(SyncFile(inode, failed=True, begun=number))
            raise
        self.note(SyncFile(inode, begun=number))

    def _begin_sync(self, target: int | str) -> int:
        if self.turnstile is not None:
            self.turnstile.step()
        self._syncs += 1
        self.note(BeginSync(self._syncs, target))
        return self._syncs

    def sync_directory(self, path: str) -> None:
        number = self._begin_sync(path)
        self._begin("sync_directory", path)
        self.note(SyncDirectory(path, begun=number))

    def rename(self, source: str, target: str) -> None:
        self._begin("rename", source)
        super().rename(source, target)
        for path in [p for p in self._by_path if p == source or p.startswith(f"{source}/")]:
            self._by_path[target + path[len(source) :]] = self._by_path.pop(path)
        self.note(Rename(source, target))

    def link(self, source: str, target: str) -> None:
        self._begin("link", source)
        super().link(source, target)
        self._by_path[target] = self._by_path[source]
        self.note(Link(source, target))

    def remove(self, path: str) -> None:
        self._begin("remove", path)
        existed = os.path.lexists(path)
        super().remove(path)
        if existed:
            self._by_path.pop(path, None)
            self.note(Unlink(path))

    def remove_tree(self, path: str) -> None:
        self._begin("remove_tree", path)
        super().remove_tree(path)

    def remove_directory(self, path: str) -> None:
        self._begin("remove_directory", path)
        super().remove_directory(path)
        self.note(RemoveDirectory(path))

    def make_directory(self, path: str) -> None:
        self._begin("make_directory", path)
        existed = os.path.isdir(path)
        super().make_directory(path)
        if not existed:
            self.note(MakeDirectory(path))
