"""Images on disk and in memory: read, checked, built, written beside and renamed over.

The daemon never maps a file: one that is truncated would kill it with SIGBUS. An image's bytes are
copied into a memfd, which is sealed and then is the shard's memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from autoloadd_daemon.allocation import return_free_blocks
from autoloadd_daemon.errors import DamageError, StorageError, storage_error
from autoloadd_protocol.errors import ImageError
from autoloadd_protocol.image import HEADER_BYTES, Image, ImageHeader

from .files import is_damage, open_to_read, write_all
from .layout import Layout
from .pace import at_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO

    from autoloadd_protocol.producer import Producer
    from autoloadd_protocol.record import Record

    from .files import Files
    from .pace import Pace

IMAGE_NAME = "image"
TEMPORARY_NAME = "image.tmp"

_COPY_BYTES = 4 * 1024 * 1024
_WRITE_BYTES = 256 * 1024
"""Written without the GIL, but not without the memory's bandwidth and the other core."""
_SYNC_BYTES = 4 * 1024 * 1024


class SealedImage(Image):
    """An image in memory that nobody can change. `inode`: (device, inode) of its memfd, if any."""

    def __init__(self, buffer: memoryview, inode: tuple[int, int] | None) -> None:
        super().__init__(buffer)
        self._inode = inode
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int | None:
        """The memfd's descriptor, open as long as the image; None: there is none to be had.

        It is the one that the map holds, looked for when it is first asked for. One more for each
        image would be too many: with hundreds of shards the daemon could not start where
        descriptors are few.
        """
        if self._descriptor is None and self._inode is not None:
            self._descriptor = _find_descriptor(self._inode)
        return self._descriptor


def _find_descriptor(inode: tuple[int, int]) -> int | None:
    """Return a descriptor of this process by its file. Takes 1 ms where 500 are open."""
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            # Other threads close theirs meanwhile.
            with suppress(OSError):
                if _inode_of(int(name)) == inode:
                    return int(name)
    return None


def _inode_of(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


class Memory:
    """Bytes written, then sealed and only read: a memfd, plain memory where there is none.

    `size`: how many there will be at least, in bytes.
    """

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self._at = 0
        self._descriptor = _create_memfd()
        self._plain = bytearray(0 if self._descriptor is not None else size)
        self._view: memoryview | None = None
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, size)

    def go_to(self, offset: int) -> None:
        """Have the next parts written from there on."""
        self._at = offset
        if self._descriptor is not None:
            os.lseek(self._descriptor, offset, os.SEEK_SET)

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Write parts behind those before. Raises OSError when memory is short."""
        first, self._at = self._at, self._at + sum(map(len, parts))
        self.size = max(self.size, self._at)
        if self._descriptor is None:
            self._plain[first : self._at] = b"".join(parts)
        else:
            write_all(self._descriptor, parts)

    def view(self) -> memoryview:
        """Return all of it, to be read, also of what is written later; it grows no more.

        Raises ImageError where it is empty.
        """
        if not self.size:
            raise ImageError("0 bytes are less than a header")
        if self._view is None:
            self._view = self._map().toreadonly()
        return self._view

    def _map(self) -> memoryview:
        if self._descriptor is None:
            return memoryview(self._plain)
        # Private: a shared map of a descriptor that may write stands against the seals.
        flags, prot = mmap.MAP_PRIVATE, mmap.PROT_READ
        return memoryview(mmap.mmap(self._descriptor, self.size, flags=flags, prot=prot))

    def seal(self) -> SealedImage:
        """Return what was written as an image that nobody can change or cut. Raises ImageError."""
        inode = None
        if self._descriptor is not None:
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, seals)
            inode = _inode_of(self._descriptor)
        return SealedImage(self.view(), inode)

    def close(self) -> None:
        """Give up the descriptor; the image's map has one of its own."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _create_memfd() -> int | None:
    if not hasattr(os, "memfd_create"):
        return None
    return os.memfd_create("autoloadd-image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


class DamageOf:
    """Has what is wrong with the image at a path raised as DamageError; other OSErrors stay.

    Not a generator: with that, Python 3.13 makes a cycle of the error, its frames and the image in
    them, which stays in memory until the garbage collector comes.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Raise DamageError where it is damage."""
        match error:
            case ImageError():
                raise DamageError(f"{self._path}: {error}") from error
            case OSError() if is_damage(error):
                raise DamageError(f"{self._path}: {error.strerror}") from error


def load_image(path: str) -> SealedImage | None:
    """Return a checked copy of an image file, or None where there is no file.

    Raises DamageError when the file is not a good image, OSError when it cannot be read: that is
    no damage. Runs 0.9 ms for each MB, without the GIL.
    """
    with suppress(FileNotFoundError), DamageOf(path), _opened(path) as file:
        return copy_image(file)
    return None


def _opened(path: str) -> FileIO:
    return open(open_to_read(path), "rb", buffering=0)


def copy_image(file: FileIO) -> SealedImage:
    """Return what a file holds from where it stands, checked. Raises ImageError, OSError."""
    memory = Memory()
    try:
        while chunk := file.read(_COPY_BYTES):
            memory.write([chunk])
        image = memory.seal()
    finally:
        memory.close()
    image.verify()
    return image


class Snapshot(NamedTuple):
    """A shard at one generation: what a build makes an image of.

    `changes` win over `base`, in the order in which they were made; None is a tombstone. Nobody
    else changes them while it is built; afterwards their records lie in the new image.
    `keep_bytes` bounds the image's records: over it, the lowest generations are left out.
    """

    producer: Producer
    epoch: int
    generation: int
    built_at_ns: int
    base: Image | None
    changes: dict[bytes, Record | None]
    keep_bytes: int | None = None


def build_image(
    files: Files, directory: str, snapshot: Snapshot, pace: Pace | None = None
) -> tuple[SealedImage, int]:
    """Build an image in memory and on disk; return it and how many entries were evicted.

    On disk it is written beside, synced, renamed over, and the directory synced: at any crash the
    old or the new image is there, whole. Raises StorageError; then the old one is.
    Runs in a thread, at a `pace` that leaves the loop its time; without one as fast as it can.
    """
    temporary = f"{directory}/{TEMPORARY_NAME}"
    pace = pace or at_once()
    layout = Layout(snapshot.base, snapshot.changes, snapshot.keep_bytes, pace)
    try:
        files.make_directory(directory)
        descriptor = _create(files, temporary)
        try:
            image = _make(layout, snapshot, pace)
            _write(files, descriptor, image, pace)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(temporary, f"{directory}/{IMAGE_NAME}")
        files.sync_directory(directory)
        files.sync_directory(directory.rpartition("/")[0])
    except (OSError, ImageError) as exc:
        layout.take_back()
        _remove_temporary(files, temporary)
        what = f"{directory}: building an image failed"
        if isinstance(exc, OSError):
            raise storage_error(what, exc) from exc
        raise StorageError(f"{what}: {exc}") from exc
    return image, layout.evicted


def _create(files: Files, temporary: str) -> int:
    try:
        return files.create_for_image(temporary)
    except FileExistsError:
        # Left by a build whose file could not be removed: its sync may have failed.
        files.remove(temporary)
        return files.create_for_image(temporary)


def _remove_temporary(files: Files, temporary: str) -> None:
    # What cannot be removed now (the directory is gone, read-only) is removed by recovery.
    with suppress(OSError):
        files.remove(temporary)


def _make(layout: Layout, snapshot: Snapshot, pace: Pace) -> SealedImage:
    """Return the image in memory. From then on the changes lie in it."""
    memory = Memory(layout.total_bytes)
    try:
        index_checksum = _write_index(memory, layout, pace)
        records_checksum = _write_records(memory, layout, pace)
        header = ImageHeader(
            producer=snapshot.producer,
            epoch=snapshot.epoch,
            generation=snapshot.generation,
            built_at_ns=snapshot.built_at_ns,
            slots=layout.slots,
            entries=layout.entries,
            blob_bytes=layout.blob_bytes,
            record_bytes=layout.record_bytes,
            oldest_mtime_ns=layout.oldest_mtime_ns,
            newest_mtime_ns=layout.newest_mtime_ns,
            index_checksum=index_checksum,
            records_checksum=records_checksum,
        )
        memory.go_to(0)
        memory.write([header.pack()])
        return memory.seal()
    finally:
        memory.close()


def _write_index(memory: Memory, layout: Layout, pace: Pace) -> int:
    """Write table and order; return their checksum."""
    # Mapped for the time: zeroing and freeing 16 MB of the heap would hold the GIL.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    index = memoryview(mmap.mmap(-1, layout.index_bytes, flags=flags))
    layout.fill(index)
    memory.go_to(HEADER_BYTES)
    checksum = 0
    for part in _parts(index, pace):
        checksum = crc32(part, checksum)
        memory.write([part])
    return checksum


def _write_records(memory: Memory, layout: Layout, pace: Pace) -> int:
    """Write what is put, then what stays before it; return the checksum of both."""
    memory.go_to(layout.puts_at)
    for piece in layout.put_pieces():
        memory.write(piece)
        pace.rest()
    layout.move_puts(memory.view())
    if layout.total_bytes - layout.puts_at >= _COPY_BYTES:
        # Now, not only at the end: the rest of the image takes the place of what they took.
        return_free_blocks()
    memory.go_to(layout.records_at)
    checksum = 0
    for piece in layout.old_pieces():
        for part in piece:
            checksum = crc32(part, checksum)
        memory.write(piece)
        pace.rest()
    for part in _parts(memory.view()[layout.puts_at :], pace):
        checksum = crc32(part, checksum)
    return checksum


def _write(files: Files, descriptor: int, image: Image, pace: Pace) -> None:
    """Write an image to a file, and sync now and then.

    What is written at once at the end, 49 MB, would hold up the journal's syncs for as long.
    """
    unsynced = 0
    for part in _parts(image.buffer, pace):
        if unsynced >= _SYNC_BYTES:
            files.sync_data(descriptor)
            unsynced = 0
        files.append(descriptor, [part])
        unsynced += len(part)


def _parts(whole: memoryview, pace: Pace) -> Iterator[memoryview]:
    """Yield a buffer in parts that are worked on without the GIL, with rests in between."""
    for start in range(0, len(whole), _WRITE_BYTES):
        yield whole[start : start + _WRITE_BYTES]
        pace.rest()
