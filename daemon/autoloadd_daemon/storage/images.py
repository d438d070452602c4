"""Images on disk and in memory: read, checked, built, written beside and renamed over.

The daemon never maps a file: one that is truncated would kill it with SIGBUS. An image's bytes are
copied into a memfd, which is sealed and then is the shard's memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from autoloadd_daemon.errors import DamageError, StorageError, storage_error
from autoloadd_protocol.errors import ImageError
from autoloadd_protocol.image import HEADER_BYTES, Image, ImageHeader

from .files import is_damage, open_to_read, write_all
from .layout import Layout
from .pace import at_once

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    """Bytes written once, then sealed and only read: a memfd, plain memory where there is none."""

    def __init__(self) -> None:
        self.size = 0
        self._descriptor = _create_memfd()
        self._plain = bytearray()

    def append(self, parts: Sequence[bytes | memoryview]) -> None:
        """Write parts at the end. Raises OSError when memory is short."""
        self.size += sum(map(len, parts))
        if self._descriptor is None:
            self._plain += b"".join(parts)
        else:
            write_all(self._descriptor, parts)

    def overwrite(self, data: bytes, offset: int) -> None:
        """Write over bytes that are there."""
        if self._descriptor is None:
            self._plain[offset : offset + len(data)] = data
        else:
            os.pwrite(self._descriptor, data, offset)

    def seal(self) -> SealedImage:
        """Return what was written as an image that nobody can change or cut. Raises ImageError."""
        if self._descriptor is None:
            return SealedImage(memoryview(self._plain).toreadonly(), None)
        descriptor, self._descriptor = self._descriptor, None
        try:
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            if not self.size:
                raise ImageError("0 bytes are less than a header")
            mapped = mmap.mmap(descriptor, self.size, prot=mmap.PROT_READ)
            return SealedImage(memoryview(mapped), _inode_of(descriptor))
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Give the memory up without having sealed it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _create_memfd() -> int | None:
    if not hasattr(os, "memfd_create"):
        return None
    return os.memfd_create("autoloadd-image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def load_image(path: str) -> SealedImage | None:
    """Return a checked copy of an image file, or None where there is no file.

    Raises DamageError when the file is not a good image, OSError when it cannot be read: that is
    no damage. Runs 0.9 ms for each MB, without the GIL.
    """
    try:
        with open(open_to_read(path), "rb", buffering=0) as file:
            return _copy(file)
    except FileNotFoundError:
        return None
    except ImageError as exc:
        raise DamageError(f"{path}: {exc}") from exc
    except OSError as exc:
        if not is_damage(exc):
            raise
        raise DamageError(f"{path}: {exc.strerror}") from exc


def _copy(file: FileIO) -> SealedImage:
    memory = Memory()
    try:
        while chunk := file.read(_COPY_BYTES):
            memory.append([chunk])
        image = memory.seal()
    finally:
        memory.close()
    image.verify()
    return image


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A shard at one generation: what a build makes an image of.

    `changes` win over `base`, in the order in which they were made; None is a tombstone. They stay
    as they are while it is built.
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
    try:
        files.make_directory(directory)
        descriptor = _create(files, temporary)
        try:
            image, evicted = _make(snapshot, pace)
            _write(files, descriptor, image, pace)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(temporary, f"{directory}/{IMAGE_NAME}")
        files.sync_directory(directory)
        files.sync_directory(directory.rpartition("/")[0])
    except (OSError, ImageError) as exc:
        _remove_temporary(files, temporary)
        what = f"{directory}: building an image failed"
        if isinstance(exc, OSError):
            raise storage_error(what, exc) from exc
        raise StorageError(f"{what}: {exc}") from exc
    return image, evicted


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


def _make(snapshot: Snapshot, pace: Pace) -> tuple[SealedImage, int]:
    """Return the image in memory, and how many entries were evicted."""
    layout = Layout(snapshot.base, snapshot.changes, snapshot.keep_bytes, pace)
    memory = Memory()
    try:
        memory.append([bytes(HEADER_BYTES)])
        index_checksum = _write_index(memory, layout, pace)
        checksum = 0
        for piece in layout.pieces():
            for part in piece:
                checksum = crc32(part, checksum)
            memory.append(piece)
            pace.rest()
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
            records_checksum=checksum,
        )
        memory.overwrite(header.pack(), 0)
        return memory.seal(), layout.evicted
    finally:
        memory.close()


def _write_index(memory: Memory, layout: Layout, pace: Pace) -> int:
    """Write table and order; return their checksum."""
    # Mapped for the time: zeroing and freeing 16 MB of the heap would hold the GIL.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    index = memoryview(mmap.mmap(-1, layout.index_bytes, flags=flags))
    layout.fill(index)
    checksum = 0
    for start in range(0, len(index), _WRITE_BYTES):
        part = index[start : start + _WRITE_BYTES]
        checksum = crc32(part, checksum)
        memory.append([part])
        pace.rest()
    return checksum


def _write(files: Files, descriptor: int, image: Image, pace: Pace) -> None:
    """Write an image to a file, and sync now and then.

    What is written at once at the end, 49 MB, would hold up the journal's syncs for as long.
    """
    for start in range(0, len(image.buffer), _WRITE_BYTES):
        if start and start % _SYNC_BYTES == 0:
            files.sync_data(descriptor)
        files.append(descriptor, [image.buffer[start : start + _WRITE_BYTES]])
        pace.rest()
