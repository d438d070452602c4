"""What a disk may hold after a crash: a log of operations, and the states that it can leave.

Kept apart, as a kernel does: what was written, what was synced, and which names a directory holds.
Written bytes reach the disk in any order, page by page, until their file is synced; names until
their directory is. A failed sync makes nothing durable, then or later: the pages are gone (seen on
Linux). A sync covers what was there when it began, not what came while it ran.

The same model takes the log of `recording.RecordingFiles` and the system calls that strace saw.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PAGE_BYTES = 4096


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
class BeginSync:
    """A sync of a file (its inode) or directory (its path) begins; its end has the same number."""

    number: int
    target: int | str


@dataclass(frozen=True)
class SyncFile:
    """A file synced; `failed` if the call said so. `begun` is the number of its BeginSync.

    Without one nothing came between the begin and the end.
    """

    inode: int
    failed: bool = False
    begun: int | None = None


@dataclass(frozen=True)
class SyncDirectory:
    """A directory synced; `begun` as for a file."""

    path: str
    begun: int | None = None


@dataclass(frozen=True)
class Rename:
    """A name changed, of a file or of a directory."""

    source: str
    target: str


@dataclass(frozen=True)
class Link:
    """A second name for a file."""

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

    shard: str
    number: int


@dataclass(frozen=True)
class Acknowledged:
    """The write of this number was answered; `level` is what it asked for, None if refused."""

    shard: str
    number: int
    level: str | None


NameChange = Create | Rename | Link | Unlink | MakeDirectory | RemoveDirectory
Sync = BeginSync | SyncFile | SyncDirectory
Operation = NameChange | Write | Truncate | Sync | Submitted | Acknowledged


@dataclass(eq=False)
class _Pending:
    """A change of a file that is on its way to the disk; once `given_up` no sync brings it there.

    Compared by identity: the same bytes may be written twice.
    """

    change: Write | Truncate
    given_up: bool = False


@dataclass(eq=False)
class _PendingName:
    """A change of names on its way to the disk; its paths follow a directory that is renamed."""

    change: NameChange

    def follow(self, moved: Rename) -> None:
        """Take the new paths of what lies in a directory that has another name on the disk now."""
        paths: dict[str, Any] = {
            key: moved.target + path[len(moved.source) :]
            for key, path in vars(self.change).items()
            if isinstance(path, str) and path.startswith(f"{moved.source}/")
        }
        self.change = replace(self.change, **paths)


@dataclass
class _File:
    """`durable` is on the disk for sure; of `pending` anything may be."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Pending] = field(default_factory=list)

    def contents(self, kept: Iterable[Write | Truncate]) -> bytes:
        data = bytearray(self.durable)
        for change in kept:
            _apply_change(data, change)
        return bytes(data)

    def truncate(self, operation: Truncate) -> None:
        # What is cut off cannot come back over what is written there later.
        self.pending = [
            p
            for p in self.pending
            if not (
                p.given_up and isinstance(p.change, Write) and p.change.offset >= operation.size
            )
        ]
        self.pending.append(_Pending(operation))

    def sync(self, covered: set[_Pending], *, failed: bool) -> None:
        if failed:
            for pending in covered:
                pending.given_up = True
            return
        reached = [p for p in self.pending if p in covered and not p.given_up]
        self.durable = bytearray(self.contents(p.change for p in reached))
        self.pending = [p for p in self.pending if p not in reached]


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
    """The disk at one moment of a log, and what a crash at this moment can leave.

    `commits_in_order` says what a sync of a directory makes durable: with it all changes of names
    before it, as a file system with a journal does; without it only those of this directory.
    """

    def __init__(self, root: str, *, commits_in_order: bool = True) -> None:
        self._commits_in_order = commits_in_order
        self._files: dict[int, _File] = {}
        self._names: dict[str, int | None] = {root: None}
        self._pending_names: list[_PendingName] = []
        self._begun_files: dict[int, set[_Pending]] = {}
        self._begun_directories: dict[int, list[_PendingName]] = {}

    def apply(self, operation: Operation) -> None:
        """Take the next operation of the log."""
        match operation:
            case Write(inode):
                self._files[inode].pending.append(_Pending(operation))
            case Truncate(inode):
                self._files[inode].truncate(operation)
            case BeginSync(number, int(inode)):
                self._begun_files[number] = set(self._files[inode].pending)
            case BeginSync(number):
                self._begun_directories[number] = list(self._pending_names)
            case SyncFile(inode, failed, begun):
                file = self._files[inode]
                covered = file.pending if begun is None else self._begun_files.pop(begun)
                file.sync(set(covered), failed=failed)
            case SyncDirectory(path, begun):
                changes = (
                    self._pending_names if begun is None else self._begun_directories.pop(begun)
                )
                self._sync_directory(path, list(changes))
            case Create(_, inode):
                self._files[inode] = _File()
                self._pending_names.append(_PendingName(operation))
            case Rename() | Link() | Unlink() | MakeDirectory() | RemoveDirectory():
                self._pending_names.append(_PendingName(operation))
            case Submitted() | Acknowledged():
                pass

    def _sync_directory(self, path: str, begun: list[_PendingName]) -> None:
        touched = [i for i, name in enumerate(begun) if path in _directories_of(name.change)]
        if not touched:
            return
        in_order = begun[: touched[-1] + 1]
        reached = set(in_order if self._commits_in_order else [begun[i] for i in touched])
        pending: list[_PendingName] = []
        for name in self._pending_names:
            if name not in reached:
                pending.append(name)
                continue
            _change_names(self._names, name.change)
            if isinstance(name.change, Rename):
                for earlier in pending:
                    earlier.follow(name.change)
        self._pending_names = pending

    @property
    def _name_changes(self) -> list[NameChange]:
        return [name.change for name in self._pending_names]

    def crash_states(self, generator: random.Random, count: int) -> Iterator[State]:
        """Yield what a crash now can leave: extremes first, then `count` pairs by chance."""
        pending = self._all_pending()
        names = self._name_changes
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
            some = [
                c for c in names if generator.random() < (0.8 if isinstance(c, Create) else 0.5)
            ]
            yield self._state(some, kept, generator)

    def after_kill(self) -> State:
        """Return what a kill of the process leaves: everything that was handed to the system."""
        return self._state(self._name_changes, set(self._all_pending()))

    def names_after_kill(self) -> dict[str, int]:
        """Return the files that are there when the process was killed: paths and inodes."""
        names = self._changed_names(self._name_changes)
        return {path: inode for path, inode in names.items() if inode is not None}

    def _all_pending(self) -> list[tuple[int, int]]:
        return [(inode, i) for inode, f in self._files.items() for i in range(len(f.pending))]

    def _changed_names(self, changes: Iterable[NameChange]) -> dict[str, int | None]:
        names = dict(self._names)
        for change in changes:
            _change_names(names, change)
        return names

    def _state(
        self,
        name_changes: Sequence[NameChange],
        kept: set[tuple[int, int]],
        generator: random.Random | None = None,
    ) -> State:
        names = self._changed_names(name_changes)
        directories = frozenset(path for path, inode in names.items() if inode is None)
        files = []
        for path, inode in sorted(names.items()):
            if inode is not None and os.path.dirname(path) in directories:
                file = self._files[inode]
                changes: list[Write | Truncate] = []
                for i, pending in enumerate(file.pending):
                    changes += _reached(pending.change, (inode, i) in kept, generator)
                files.append((path, file.contents(changes)))
        return State(directories, tuple(files))


def _reached(
    change: Write | Truncate, kept: bool, generator: random.Random | None
) -> list[Write | Truncate]:
    """Return what of a change is on the disk: by chance a part, some pages, or only its length."""
    if generator is None or not isinstance(change, Write) or generator.random() < 0.6:
        return [change] if kept else []
    if not kept:
        # The file has grown, its blocks are not written yet: they read as zeros.
        return [Write(change.inode, change.offset + len(change.data), b"")]
    if generator.random() < 0.5 and len(change.data) > 1:
        cut = generator.randrange(1, len(change.data))
        return [Write(change.inode, change.offset, change.data[:cut])]
    return [page for page in _pages(change) if generator.random() < 0.5]


def _pages(write: Write) -> Iterator[Write]:
    """Return a write cut where the file's pages end."""
    start, end = write.offset, write.offset + len(write.data)
    while start < end:
        stop = min(end, start - start % PAGE_BYTES + PAGE_BYTES)
        yield Write(write.inode, start, write.data[start - write.offset : stop - write.offset])
        start = stop


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
    path = change.target if isinstance(change, Link) else change.path
    return {os.path.dirname(path)}


def _change_names(names: dict[str, int | None], change: NameChange) -> None:
    match change:
        case Create(path, inode):
            names[path] = inode
        case MakeDirectory(path):
            names[path] = None
        case Unlink(path) | RemoveDirectory(path):
            names.pop(path, None)
        case Link(source, target):
            if source in names:
                names[target] = names[source]
        case Rename(source, target):
            moved = [p for p in names if p == source or p.startswith(f"{source}/")]
            for path in moved:
                names[target + path[len(source) :]] = names.pop(path)
