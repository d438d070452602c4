"""Workload W: which entries there are. Everything is drawn from a seed, so all processes agree.

A blob is a version and the entry's number (u32 each, little-endian), then a piece of one filler
that the entry's number chooses: any process can tell whether a blob is whole and whose it is,
without holding 49 MB of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from math import log
from random import Random
from typing import TYPE_CHECKING

from .verdicts import WrongBytesError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENTRIES = 16_000
MEAN_BYTES = 3_000
SIGMA = 0.8
NAME_CHARACTERS = range(8, 31)
MIN_BLOB_BYTES = 16
MAX_BLOB_BYTES = 256 * 1024

PRODUCER = "bench/1/8"
MTIME_NS = 1_700_000_000_000_000_000
"""Every entry is stored with this binary_mtime_ns, and asked for with it: compared, and fresh."""

FILLER = Random("filler").randbytes(2 * MAX_BLOB_BYTES)

_HEAD = struct.Struct("<II")
_FILE_HEAD = struct.Struct("<II")
_FILE_ENTRY = struct.Struct("<B31sII")
_LETTERS = "abcdefghijklmnopqrstuvwxyz_-"


@dataclass(frozen=True)
class Workload:
    """Entries by number: name, size of the blob in bytes, where in the filler it begins."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    offsets: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.names)

    @property
    def blob_bytes(self) -> int:
        """Return the size of all blobs together."""
        return sum(self.sizes)

    def blob(self, number: int, version: int = 0) -> bytes:
        """Return an entry's blob after `version` writes."""
        start = self.offsets[number]
        body = FILLER[start : start + self.sizes[number] - _HEAD.size]
        return _HEAD.pack(version, number) + body

    def entries(self, *, version: int = 0) -> Iterator[tuple[str, bytes]]:
        """Yield (name, blob) of all entries, one after another."""
        for number, name in enumerate(self.names):
            yield name, self.blob(number, version)

    def check(self, number: int, blob: bytes | None) -> None:
        """Raise WrongBytesError unless these are an entry's bytes, of whatever version."""
        if blob is None:
            raise WrongBytesError(f"{self.names[number]}: a miss")
        version = _HEAD.unpack_from(blob)[0] if len(blob) >= _HEAD.size else 0
        if blob != self.blob(number, version):
            raise WrongBytesError(f"{self.names[number]}: {len(blob):,} bytes nobody stored there")

    def write(self, path: Path) -> None:
        """Write the file that the compiled load generator reads."""
        rows = zip(self.names, self.sizes, self.offsets, strict=True)
        with path.open("wb") as file:
            file.write(_FILE_HEAD.pack(len(self), len(FILLER)) + FILLER)
            for name, size, offset in rows:
                file.write(_FILE_ENTRY.pack(len(name), name.encode(), size, offset))


@cache
def make_workload(entries: int = ENTRIES) -> Workload:
    """Return the workload with this many entries: W, or one like it. A larger one begins alike."""
    random = Random("W")
    names: dict[str, None] = {}
    sizes: list[int] = []
    offsets: list[int] = []
    while len(names) < entries:
        names["".join(random.choices(_LETTERS, k=random.choice(NAME_CHARACTERS)))] = None
        if len(names) > len(sizes):
            sizes.append(_draw_size(random))
            offsets.append(random.randrange(MAX_BLOB_BYTES))
    return Workload(tuple(names), tuple(sizes), tuple(offsets))


def _draw_size(random: Random) -> int:
    drawn = random.lognormvariate(log(MEAN_BYTES) - SIGMA**2 / 2, SIGMA)
    return min(MAX_BLOB_BYTES, max(MIN_BLOB_BYTES, round(drawn)))
