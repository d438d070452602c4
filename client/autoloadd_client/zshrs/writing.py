"""Writing zshrs's file: the bytes that zshrs's own code would write for the same entries."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from .errors import InexpressibleError
from .layout import (
    DISPLACEMENT_BYTES,
    DISPLACEMENTS_AT,
    ENTRIES_AT,
    ENTRY_BYTES,
    FORMAT_VERSION,
    INLINE_BYTES,
    MAGIC,
    MAX_BYTES,
    ROOT,
    ROOT_BYTES,
    TEXT_AT,
    Header,
    Layout,
    padding,
)
from .phf import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class EntryToWrite(NamedTuple):
    """An entry as the file has it. Times are seconds since the epoch."""

    blob: bytes
    binary_mtime_secs: int
    cached_at_secs: int


class _Placed(NamedTuple):
    """An entry in its slot, and where its text and its blob lie in the file."""

    name: bytes
    entry: EntryToWrite
    start: int


def encode_shard_file(
    header: Header, entries: Mapping[bytes, EntryToWrite], layout: Layout
) -> Iterator[bytes]:
    """Return the file in parts; blobs are not copied. `entries` is by name, in UTF-8.

    Everything that can fail has been done when it returns. Raises InexpressibleError.
    """
    version = header.zshrs_version.encode()
    names = list(entries)
    _check_expressible(header, version, entries)
    placement = place(names)
    start = len(_text(version))
    displacements_at = start + padding(start, DISPLACEMENT_BYTES)
    position = displacements_at + DISPLACEMENT_BYTES * len(names)
    placed = []
    for index in placement.slots:
        name = names[index]
        placed.append(_Placed(name, entries[name], position))
        position += len(_text(name)) + len(entries[name].blob)
    entries_at = position + padding(position, 8)
    root_at = entries_at + ENTRY_BYTES * len(names)
    first = _text(version).ljust(displacements_at, b"\0")
    first += Struct(f"<{len(names)}I").pack(*placement.displacements)
    root = ROOT.pack(
        _encode_header(header, layout, root_at),
        len(names),
        displacements_at - (root_at + DISPLACEMENTS_AT),
        entries_at - (root_at + ENTRIES_AT),
    )
    return _parts(first, placed, bytes(entries_at - position), layout, entries_at, root)


def _check_expressible(
    header: Header, version: bytes, entries: Mapping[bytes, EntryToWrite]
) -> None:
    if header.built_at_secs < 0:
        raise InexpressibleError("zshrs's file cannot say that it was built before 1970")
    size = len(version) + sum(len(name) + len(entry.blob) for name, entry in entries.items())
    size += len(entries) * (DISPLACEMENT_BYTES + ENTRY_BYTES) + ROOT_BYTES
    if size > MAX_BYTES:
        raise InexpressibleError(f"zshrs's file cannot be larger than 2 GiB, this has {size:,} B")


def _text(text: bytes) -> bytes:
    """Return what of a string lies out of its field."""
    return text if len(text) > INLINE_BYTES else b""


def _encode_string(text: bytes, at: int, text_at: int) -> bytes:
    if len(text) <= INLINE_BYTES:
        return text.ljust(INLINE_BYTES, b"\0") + bytes([len(text)])
    return TEXT_AT.pack(len(text), text_at - at)


def _encode_header(header: Header, layout: Layout, at: int) -> bytes:
    values: dict[str, bytes | int] = {
        "version": _encode_string(header.zshrs_version.encode(), at + layout.version_at, 0),
        "built_at": header.built_at_secs,
        "magic": MAGIC,
        "format_version": FORMAT_VERSION,
        "pointer_width": header.pointer_width,
    }
    return layout.header.pack(*(values[field] for field in layout.header_fields))


def _encode_entry(placed: _Placed, layout: Layout, at: int) -> bytes:
    name, entry, start = placed
    blob_at = start + len(_text(name))
    values: dict[str, bytes | int] = {
        "key": _encode_string(name, at + layout.key_at, start),
        "mtime": entry.binary_mtime_secs,
        "cached_at": entry.cached_at_secs,
        "blob_offset": blob_at - (at + layout.blob_at),
        "blob_bytes": len(entry.blob),
    }
    return layout.entry.pack(*(values[field] for field in layout.entry_fields))


def _parts(
    first: bytes, placed: list[_Placed], gap: bytes, layout: Layout, entries_at: int, root: bytes
) -> Iterator[bytes]:
    yield first
    for name, entry, _ in placed:
        yield _text(name)
        yield entry.blob
    yield gap
    for slot, each in enumerate(placed):
        yield _encode_entry(each, layout, entries_at + slot * ENTRY_BYTES)
    yield root
