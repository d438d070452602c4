"""The places of all fields in zshrs's file. docs/zshrs.md has the same as tables.

The compiler chose the order of the fields; two compilers are known to have chosen differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

MAGIC = 0x5A52_414C
FORMAT_VERSION = 1

ROOT = Struct("<32sIii4x")
"""Header, number of entries, relative pointers to displacements and entries."""

ROOT_BYTES = 48
DISPLACEMENTS_AT = 36
ENTRIES_AT = 40
ENTRY_BYTES = 32
DISPLACEMENT_BYTES = 4

INLINE_BYTES = 7
"""A string of at most so many bytes lies in its own field."""
OUT_OF_LINE = 0x80
"""This bit of a string's last byte says that its text lies elsewhere."""

TEXT_AT = Struct("<Ii")
"""A string out of line: length, offset of the text from the string's own start."""

EMPTY_BUCKET = 0xFFFF_FFFF
FIRST_SEED = 0x8000_0000
"""A displacement from here on is a seed; below, it is a slot."""

MAX_BYTES = 2**31 - 1
"""Pointers are signed 32-bit numbers, and a file's last reaches back to its beginning."""


class Header(NamedTuple):
    """Whose entries a file holds, and when it was built (seconds since the epoch)."""

    zshrs_version: str
    pointer_width: int
    built_at_secs: int


@dataclass(frozen=True, slots=True)
class Layout:
    """One order of the fields. Offsets are bytes from the start of header or entry.

    `header` unpacks to the fields that `header_fields` names, `entry` likewise: each in the order
    of the file.
    """

    name: str
    header: Struct
    header_fields: tuple[str, ...]
    magic_at: int
    version_at: int
    pointer_width_at: int
    built_at: int
    entry: Struct
    entry_fields: tuple[str, ...]
    key_at: int
    blob_at: int
    mtime_at: int
    cached_at: int


RUSTC_1_95 = Layout(
    name="1.95",
    header=Struct("<8sQIII4x"),
    header_fields=("version", "built_at", "magic", "format_version", "pointer_width"),
    magic_at=16,
    version_at=0,
    pointer_width_at=24,
    built_at=8,
    entry=Struct("<8sqqiI"),
    entry_fields=("key", "mtime", "cached_at", "blob_offset", "blob_bytes"),
    key_at=0,
    blob_at=24,
    mtime_at=8,
    cached_at=16,
)

RUSTC_1_63 = Layout(
    name="1.63",
    header=Struct("<II8sI4xQ"),
    header_fields=("magic", "format_version", "version", "pointer_width", "built_at"),
    magic_at=0,
    version_at=8,
    pointer_width_at=16,
    built_at=24,
    entry=Struct("<qqiI8s"),
    entry_fields=("mtime", "cached_at", "blob_offset", "blob_bytes", "key"),
    key_at=24,
    blob_at=16,
    mtime_at=0,
    cached_at=8,
)

LAYOUTS = {layout.name: layout for layout in (RUSTC_1_95, RUSTC_1_63)}
"""In the order in which a reader tries them.

A file of 1.63 has its pointer width where 1.95 has the magic, so 1.95 is told first and for sure.
"""


def padding(size: int, alignment: int) -> int:
    """Return how many bytes are missing to a multiple of `alignment`."""
    return -size % alignment
