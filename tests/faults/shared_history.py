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
from heapq import heappop, heappush
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ABSENT = 0
_WORDS_PER_BLOB = 250
_READ = Struct("<QQQQQQQ")


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
    """What a reader saw: write `found` (or ABSENT), `local` if it came from shared memory.

    From `began_ns` to `ended_ns`, on a clock that all processes share (CLOCK_MONOTONIC).
    """

    name: int
    acknowledged_before: int
    begun_after: int
    found: int
    local: int
    began_ns: int = 0
    ended_ns: int = 0

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
        """Tell whether a read may have returned what it did, for itself."""
        return bool(self._explanations(read))

    def _explanations(self, read: Read) -> list[int]:
        """Return the writes, each of which could have been the last one that the read saw."""
        states = self.states[read.name]
        first = bisect_right(states, read.acknowledged_before, key=_number) - 1
        end = bisect_right(states, read.begun_after, key=_number)
        return [number for number, found in states[first:end] if found == read.found]

    def first_inversion(self, reads: Iterable[Read]) -> Read | None:
        """Return a read that shows what was before something that an earlier read showed, if any.

        With one writer, and each read explained for itself, that is all that linearizable asks for.
        """
        ended: list[tuple[int, int, int]] = []
        seen = [0] * self.names
        for read in sorted(reads, key=lambda read: read.began_ns):
            while ended and ended[0][0] < read.began_ns:
                _, name, number = heappop(ended)
                seen[name] = max(seen[name], number)
            explanations = self._explanations(read)
            possible = [number for number in explanations if number >= seen[read.name]]
            if not possible:
                return read
            heappush(ended, (read.ended_ns, read.name, possible[0]))
        return None


def _number(state: tuple[int, int]) -> int:
    return state[0]
