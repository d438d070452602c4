"""What a disk may hold after a crash: a log of operations, and the states that it can leave.

Kept apart, as a kernel does: what was written, what was synced, and which names a directory holds.
Written bytes reach the disk in any order until their file is synced; names until their directory
is. A failed sync makes nothing durable, then or later: the pages are gone (seen on Linux).

The same model takes the log of `recording.RecordingFiles` and the system calls that strace saw.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Create:
    """A new, empty file under a name."""

    path: str
    inode: int


@dataclass(frozen=True)
class Write:
    """Bytes at an offset of a file."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    """A file cut to a size."""

    inode: int
    size: int


@dataclass(frozen=True)
class SyncFile:
    """A file synced; `failed` if the call said so."""

    inode: int
    failed: bool = False


@dataclass(frozen=True)
class SyncDirectory:
    """A directory synced."""

    path: str


@dataclass(frozen=True)
class Rename:
    """A name changed, of a file or of a directory."""

    source: str
    target: str


@dataclass(frozen=True)
class Unlink:
    """A name removed."""

    path: str


@dataclass(frozen=True)
class MakeDirectory:
    """A new directory."""

    path: str


@dataclass(frozen=True)
class RemoveDirectory:
    """An empty directory removed."""

    path: str


@dataclass(frozen=True)
class Submitted:
    """The write of this number was given to the daemon: it may show from now on."""

    number: int


@dataclass(frozen=True)
class Acknowledged:
    """The write of this number was answered; `level` is what it asked for, None if refused."""

    number: int
    level: str | None


NameChange = Create | Rename | Unlink | MakeDirectory | RemoveDirectory
Operation = NameChange | Write | Truncate | SyncFile | SyncDirectory | Submitted | Acknowledged


@dataclass
class _File:
    """`durable` is on the disk for sure; of `pending` anything may be.

    What is `given_up` was pending in a sync that failed: no later sync makes it durable.
    """

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)
    given_up: list[Write | Truncate] = field(default_factory=list)

    def contents(self, kept: Iterable[Write | Truncate]) -> bytes:
        data = bytearray(self.durable)
        for change in kept:
            _apply_change(data, change)
        return bytes(data)


@dataclass(frozen=True)
class State:
    """Directories and files with their contents: what the next start finds."""

    directories: frozenset[str]
    files: tuple[tuple[str, bytes], ...]

    def write_to(self, root: Path, original_root: str) -> None:
        """Make a real directory that looks so. Paths are taken relative to `original_root`."""
        for directory in sorted(self.directories):
            place = root / os.path.relpath(directory, original_root)
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, data in self.files:
            (root / os.path.relpath(path, original_root)).write_bytes(data)


class Disk:
    """The disk at one moment of a log, and what a crash at this moment can leave."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: dict[int, _File] = {}
        self._names: dict[str, int | None] = {root: None}
        self._pending_names: list[NameChange] = []

    def apply(self, operation: Operation) -> None:
        """Take the next operation of the log."""
        match operation:
            case Write(inode):
                self._files[inode].pending.append(operation)
            case Truncate(inode, size):
                file = self._files[inode]
                # What is cut off cannot come back over what is written there later.
                cut = [c for c in file.given_up if isinstance(c, Write) and c.offset >= size]
                file.pending = [change for change in file.pending if change not in cut]
                file.pending.append(operation)
            case SyncFile(inode, failed):
                self._sync_file(self._files[inode], failed=failed)
            case SyncDirectory(path):
                self._sync_directory(path)
            case Create(_, inode):
                self._files[inode] = _File()
                self._pending_names.append(operation)
            case Rename() | Unlink() | MakeDirectory() | RemoveDirectory():
                self._pending_names.append(operation)
            case Submitted() | Acknowledged():
                pass

    def _sync_file(self, file: _File, *, failed: bool) -> None:
        if failed:
            file.given_up = list(file.pending)
            return
        reached = [change for change in file.pending if change not in file.given_up]
        file.durable = bytearray(file.contents(reached))
        file.pending = [change for change in file.pending if change in file.given_up]

    def _sync_directory(self, path: str) -> None:
        """Make the names in one directory durable, and with them all name changes before.

        A journaling file system commits its changes of names in order.
        """
        touched = [i for i, c in enumerate(self._pending_names) if path in _directories_of(c)]
        if touched:
            for change in self._pending_names[: touched[-1] + 1]:
                _change_names(self._names, change)
            del self._pending_names[: touched[-1] + 1]

    def crash_states(self, generator: random.Random, count: int) -> Iterator[State]:
        """Yield what a crash now can leave: extremes first, then `count` states by chance."""
        pending = self._all_pending()
        names = self._pending_names
        yield self._state(names, set(pending))
        yield self._state(names, set())
        yield self._state([], set(pending))
        yield self._state([], set())
        for lost in pending[-3:]:
            yield self._state(names, set(pending) - {lost})
        for _ in range(count):
            kept = {key for key in pending if generator.random() < 0.5}
            # A file system with a journal keeps changes of names up to some moment. POSIX does not
            # promise that a rename reaches the disk before the removal that came after it.
            yield self._state(names[: generator.randint(0, len(names))], kept, generator)
            some = [c for c in names if isinstance(c, Create) or generator.random() < 0.5]
            yield self._state(some, kept, generator)

    def after_kill(self) -> State:
        """Return what a kill of the process leaves: everything that was handed to the system."""
        return self._state(self._pending_names, set(self._all_pending()))

    def _all_pending(self) -> list[tuple[int, int]]:
        return [(inode, i) for inode, f in self._files.items() for i in range(len(f.pending))]

    def _state(
        self,
        name_changes: Sequence[NameChange],
        kept: set[tuple[int, int]],
        generator: random.Random | None = None,
    ) -> State:
        names = dict(self._names)
        for change in name_changes:
            _change_names(names, change)
        directories = frozenset(path for path, inode in names.items() if inode is None)
        files = []
        for path, inode in sorted(names.items()):
            if inode is not None and os.path.dirname(path) in directories:
                file = self._files[inode]
                changes = [c for i, c in enumerate(file.pending) if (inode, i) in kept]
                files.append((path, file.contents(_tear(changes, generator))))
        return State(directories, tuple(files))


def _tear(
    changes: list[Write | Truncate], generator: random.Random | None
) -> Iterable[Write | Truncate]:
    """Sometimes let only a part of the last write reach the disk."""
    if generator is None or not changes or generator.random() < 0.5:
        return changes
    last = changes[-1]
    if not isinstance(last, Write) or len(last.data) < 2:
        return changes
    cut = generator.randrange(1, len(last.data))
    return chain(changes[:-1], [Write(last.inode, last.offset, last.data[:cut])])


def _apply_change(data: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, Truncate):
        del data[change.size :]
        data.extend(bytes(change.size - len(data)))
        return
    if len(data) < change.offset:
        # The write before did not reach the disk: a hole reads as zeros.
        data.extend(bytes(change.offset - len(data)))
    data[change.offset : change.offset + len(change.data)] = change.data


def _directories_of(change: NameChange) -> set[str]:
    if isinstance(change, Rename):
        return {os.path.dirname(change.source), os.path.dirname(change.target)}
    return {os.path.dirname(change.path)}


def _change_names(names: dict[str, int | None], change: NameChange) -> None:
    match change:
        case Create(path, inode):
            names[path] = inode
        case MakeDirectory(path):
            names[path] = None
        case Unlink(path) | RemoveDirectory(path):
            names.pop(path, None)
        case Rename(source, target):
            moved = [p for p in names if p == source or p.startswith(f"{source}/")]
            for path in moved:
                names[target + path[len(source) :]] = names.pop(path)
