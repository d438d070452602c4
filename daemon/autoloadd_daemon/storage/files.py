"""The only module that changes files: every write, sync, rename and removal of the daemon.

It is a class so that tests can put a simulated disk in its place, one that forgets what was never
synced. Prior art for the order of steps: https://lwn.net/Articles/457667/ and
https://danluu.com/file-consistency/.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COPY_SUFFIX = ".tmp"
_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_PARTS_PER_WRITE = 512  # below IOV_MAX, which is 1,024 on Linux and macOS

_DAMAGE = (errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EINVAL, errno.EACCES)
"""A disk that cannot read what it has; a link, directory, pipe, socket or foreign file, which no
daemon made. Not a lack of descriptors or memory."""


# macOS has no fdatasync.
_sync_data = getattr(os, "fdatasync", os.fsync)


def is_damage(error: OSError) -> bool:
    """Tell whether an error in reading a file is the file's own fault: it is to be set aside."""
    return error.errno in _DAMAGE


def is_directory(path: str) -> bool:
    """Tell whether a directory itself lies at a path, not a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def open_to_read(path: str) -> int:
    """Return a descriptor of a regular file. Raises OSError; never waits for a pipe's writer."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def write_all(descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
    """Write all parts at the descriptor's place, without the GIL and without joining them."""
    pending = [part for part in parts if len(part)]
    while pending:
        some = pending[:_PARTS_PER_WRITE]
        written = os.writev(descriptor, some)
        if written == sum(map(len, some)):
            # Nearly always: a disk that is not full takes all of it.
            del pending[:_PARTS_PER_WRITE]
            continue
        while written >= len(pending[0]):
            written -= len(pending.pop(0))
        pending[0] = memoryview(pending[0])[written:]


class Files:
    """The real disk. Every method may raise OSError."""

    def create(self, path: str) -> int:
        """Return a descriptor of a new, empty file that is written from its beginning on."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(path, flags, _FILE_MODE)

    def append(self, descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
        """Write all parts behind what was appended last. After an OSError, some may be there."""
        write_all(descriptor, parts)

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write `data` at an offset, also behind the file's end; appends go on where they were."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def reopen(self, path: str) -> int:
        """Return a descriptor of a file that is there, to sync it."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)

    def create_for_image(self, path: str) -> int:
        """Return a descriptor of a new, empty file.

        Never of one that is there: its sync may have failed, and must not be tried again.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, _FILE_MODE)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file back to `size` bytes; appends go on there."""
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)

    def sync_data(self, descriptor: int) -> None:
        """Return when a file's bytes are on stable storage, and its size with them."""
        _sync_data(descriptor)

    def sync(self, descriptor: int) -> None:
        """Return when a file is on stable storage with everything known about it."""
        os.fsync(descriptor)

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on stable storage."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def identity(self, path: str) -> tuple[int, int] | None:
        """Return what tells the file at a path from any other; None where there is none."""
        try:
            found = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name, replacing what had that name."""
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name."""
        os.link(source, target)

    def remove(self, path: str) -> None:
        """Remove a file; that there is none is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def remove_tree(self, path: str) -> None:
        """Remove a directory with what is in it, or a single file."""
        if not is_directory(path):
            self.remove(path)
            return
        for name in self.names(path):
            inner = f"{path}/{name}"
            if is_directory(inner):
                self.remove_tree(inner)
            else:
                self.remove(inner)
        self.remove_directory(path)

    def remove_directory(self, path: str) -> None:
        """Remove a directory that is empty."""
        os.rmdir(path)

    def make_directory(self, path: str) -> None:
        """Make a directory that is ours alone; that there is one is no error."""
        try:
            os.mkdir(path, _DIRECTORY_MODE)
        except FileExistsError:
            return

    def make_directories(self, path: str) -> None:
        """Make a directory and what it lies in, each of them durably; what is there stays."""
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path)
        self.make_directories(parent)
        self.make_directory(path)
        self.sync_directory(parent)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none where there is no directory."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def read(self, path: str) -> bytes:
        """Return a whole file's bytes."""
        with open(open_to_read(path), "rb", buffering=0) as file:
            return file.readall()

    def replace_by_copy(self, path: str, size: int) -> None:
        """Put a synced copy of a file's first `size` bytes in its place, all at once.

        For a file that an earlier process wrote: a sync that failed there is reported to nobody
        here, and the pages it lost would count as stored. A new file's sync speaks for itself.
        Raises OSError; then the file is as it was.
        """
        temporary = f"{path}{COPY_SUFFIX}"
        self.remove(temporary)
        data = self.read(path)[:size]
        descriptor = self.create(temporary)
        try:
            try:
                self.append(descriptor, [data])
                self.sync(descriptor)
            finally:
                self.close(descriptor)
            self.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                self.remove(temporary)
            raise
