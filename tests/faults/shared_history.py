"""One writer, many readers of shared memory: what each read may return.

The writer numbers its writes. In memory that all processes share it says, for each name, which
write was begun last and which was acknowledged last. A reader looks before and after each read; so
what came back must be the name's state after some write that was not overtaken before the read
began, and was begun before it ended.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ABSENT = 0
_WORDS_PER_BLOB = 250
_READ = Struct("<QQQQQ")


def blob_of(number: int) -> bytes:
    """Return the bytes that write `number` stores: torn ones tell."""
    return number.to_bytes(8, "little") * _WORDS_PER_BLOB


def number_of(blob: bytes | None) -> int:
    """Return whose bytes these are; ABSENT for a miss. Raises ValueError for anybody's mixture."""
    if blob is None:
        return ABSENT
    number = int.from_bytes(blob[:8], "little")
    if blob != blob_of(number):
        raise ValueError(f"torn: {blob[:64]!r}...")
    return number


class Board:
    """What was begun and acknowledged last, for each of `names` names; shared over a fork."""

    def __init__(self, names: int) -> None:
        self._names = names
        self._words = memoryview(mmap.mmap(-1, 8 * (2 * names + 1))).cast("Q")

    def begin(self, names: Iterable[int], number: int) -> None:
        for name in names:
            self._words[2 * name] = number

    def acknowledge(self, names: Iterable[int], number: int) -> None:
        for name in names:
            self._words[2 * name + 1] = number

    def begun(self, name: int) -> int:
        return self._words[2 * name]

    def acknowledged(self, name: int) -> int:
        return self._words[2 * name + 1]

    def end(self) -> None:
        self._words[2 * self._names] = 1

    @property
    def is_over(self) -> bool:
        return bool(self._words[2 * self._names])


class Read(NamedTuple):
    """What a reader saw: write `found` (or ABSENT), `local` if it came from shared memory."""

    name: int
    acknowledged_before: int
    begun_after: int
    found: int
    local: int

    def pack(self) -> bytes:
        return _READ.pack(*self)


def reads_in(path: Path) -> Iterator[Read]:
    """Return the reads that a reader noted in a file."""
    return (Read(*fields) for fields in _READ.iter_unpack(path.read_bytes()))


@dataclass
class Writes:
    """The states of each name: (number of the write, number whose bytes are there or ABSENT)."""

    names: int
    states: list[list[tuple[int, int]]] = field(init=False)

    def __post_init__(self) -> None:
        self.states = [[(0, ABSENT)] for _ in range(self.names)]

    def note(self, number: int, found: dict[int, int]) -> None:
        for name, state in found.items():
            self.states[name].append((number, state))

    def explains(self, read: Read) -> bool:
        """Tell whether a read may have returned what it did."""
        states = self.states[read.name]
        first = bisect_right(states, read.acknowledged_before, key=lambda s: s[0]) - 1
        end = bisect_right(states, read.begun_after, key=lambda s: s[0])
        return any(found == read.found for _, found in states[first:end])
