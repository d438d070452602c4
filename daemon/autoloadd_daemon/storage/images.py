"""Images on disk and in memory: read, checked, built, written beside and renamed over.

The daemon never maps a file: one that is truncated would kill it with SIGBUS. An image's bytes are
copied into a memfd, which is sealed and then is the shard's memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING
from zlib import crc32

from autoloadd_daemon.errors import DamageError, StorageError, storage_error
from autoloadd_protocol.errors import ImageError
from autoloadd_protocol.image import MAX_INDEX_BYTES, Image, ImageHeader, Placed, build_index
from autoloadd_protocol.record import PREFIX_BYTES, Record

from .files import is_damage, open_to_read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import FileIO

    from autoloadd_protocol.producer import Producer

    from .files import Files

IMAGE_NAME = "image"
TEMPORARY_NAME = "image.tmp"

_PARTS_PER_CHUNK = 256
_COPY_BYTES = 4 * 1024 * 1024


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

    def append(self, data: bytes | memoryview) -> None:
        """Write at the end. Raises OSError when memory is short."""
        self.size += len(data)
        if self._descriptor is None:
            self._plain += data
            return
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

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
            memory.append(chunk)
        image = memory.seal()
    finally:
        memory.close()
    image.verify()
    return image


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A shard at one generation: what a build makes an image of.

    `changes` win over `base`, in the order in which they were made; None is a tombstone.
    `keep_bytes` bounds the image's records: over it, the lowest generations are left out.
    """

    producer: Producer
    epoch: int
    generation: int
    built_at_ns: int
    base: Image | None
    changes: Mapping[bytes, Record | None]
    keep_bytes: int | None = None


@dataclass(slots=True)
class _Layout:
    """Which records go into an image, and where each blob comes to lie."""

    records: list[Record] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    record_bytes: int = 0
    blob_bytes: int = 0

    def add(self, name: bytes, record: Record) -> None:
        shift = self.record_bytes - record.start + PREFIX_BYTES
        self.records.append(record)
        start, end = record.blob_start + shift, record.blob_end + shift
        self.placed.append(Placed(name, record.binary_mtime_ns, start, end))
        self.record_bytes += record.stored_bytes
        self.blob_bytes += record.blob_bytes


def build_image(files: Files, directory: str, snapshot: Snapshot) -> tuple[SealedImage, int]:
    """Build an image in memory and on disk; return it and how many entries were evicted.

    On disk it is written beside, synced, renamed over, and the directory synced: at any crash the
    old or the new image is there, whole. Raises StorageError; then the old one is.
    Runs in a thread. It gives way to the loop by writing in large pieces without the GIL.
    """
    kept, evicted = _select(snapshot)
    layout = _Layout()
    for name, record in kept:
        layout.add(name, record)
    temporary = f"{directory}/{TEMPORARY_NAME}"
    memory: Memory | None = None
    try:
        memory = Memory()
        files.make_directory(directory)
        descriptor = _create(files, temporary)
        try:
            _write(files, descriptor, memory, layout, snapshot)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(temporary, f"{directory}/{IMAGE_NAME}")
        files.sync_directory(directory)
        files.sync_directory(directory.rpartition("/")[0])
        return memory.seal(), evicted
    except (OSError, ImageError) as exc:
        if memory is not None:
            memory.close()
        _remove_temporary(files, temporary)
        what = f"{directory}: building an image failed"
        if isinstance(exc, OSError):
            raise storage_error(what, exc) from exc
        raise StorageError(f"{what}: {exc}") from exc


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


def _select(snapshot: Snapshot) -> tuple[list[tuple[bytes, Record]], int]:
    """Return (name, record) of what the image holds, oldest first, and how many are left out."""
    old: list[tuple[bytes, Record]] = []
    if snapshot.base is not None:
        old = [entry for entry in snapshot.base.entries() if entry[0] not in snapshot.changes]
        old.sort(key=_place)
    new = [(name, record) for name, record in snapshot.changes.items() if record is not None]
    entries = old + new
    if snapshot.keep_bytes is None:
        return entries, 0
    excess = sum(map(_image_bytes, entries)) - snapshot.keep_bytes
    first = 0
    while excess > 0 and first < len(entries):
        excess -= _image_bytes(entries[first])
        first += 1
    return entries[first:], first


def _image_bytes(entry: tuple[bytes, Record]) -> int:
    return entry[1].stored_bytes + MAX_INDEX_BYTES


def _place(entry: tuple[bytes, Record]) -> int:
    return entry[1].start


def _write(
    files: Files, descriptor: int, memory: Memory, layout: _Layout, snapshot: Snapshot
) -> None:
    slots, index = build_index(layout.placed)
    checksum = 0
    blank = bytes(len(_header(snapshot, layout, slots, index, 0)))
    for piece in (blank, index):
        memory.append(piece)
        files.append(descriptor, [piece])
    for chunk in _chunks(_runs(layout.records)):
        checksum = crc32(chunk, checksum)
        memory.append(chunk)
        files.append(descriptor, [chunk])
    head = _header(snapshot, layout, slots, index, checksum)
    memory.overwrite(head, 0)
    files.overwrite(descriptor, head, 0)


def _header(
    snapshot: Snapshot, layout: _Layout, slots: int, index: bytes, records_checksum: int
) -> bytes:
    mtimes = [place.binary_mtime_ns for place in layout.placed] or [0]
    return ImageHeader(
        producer=snapshot.producer,
        epoch=snapshot.epoch,
        generation=snapshot.generation,
        built_at_ns=snapshot.built_at_ns,
        slots=slots,
        entries=len(layout.placed),
        blob_bytes=layout.blob_bytes,
        record_bytes=layout.record_bytes,
        oldest_mtime_ns=min(mtimes),
        newest_mtime_ns=max(mtimes),
        index_checksum=crc32(index),
        records_checksum=records_checksum,
    ).pack()


def _runs(records: list[Record]) -> Iterator[bytes | memoryview]:
    """Return the records' bytes; neighbours in one buffer stay one piece."""
    pending: Record | None = None
    for record in records:
        if (
            pending is not None
            and record.buffer is pending.buffer
            and record.start - PREFIX_BYTES == pending.end
        ):
            pending = pending._replace(end=record.end)
            continue
        if pending is not None:
            yield pending.stored()
        pending = record
    if pending is not None:
        yield pending.stored()


def _chunks(runs: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Return runs joined to pieces that are worth a system call, long ones cut."""
    while batch := list(islice(runs, _PARTS_PER_CHUNK)):
        joined: memoryview = memoryview(b"".join(batch)) if len(batch) > 1 else memoryview(batch[0])
        for start in range(0, len(joined), _COPY_BYTES):
            yield joined[start : start + _COPY_BYTES]
