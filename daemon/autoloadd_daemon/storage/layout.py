"""Where everything lies in a new image: what stays of the old one, then the changes.

What is computed is written at once: for each entry only a slot's number is kept. The old records
stay in their order, so a list of those that go says how far each of the others moves; the old names
stay in theirs, so that only new ones are sorted.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from heapq import merge
from itertools import accumulate, islice
from typing import TYPE_CHECKING, TypeVar

from autoloadd_protocol.image import (
    HEADER_BYTES,
    MAX_INDEX_BYTES,
    SLOT_BYTES,
    pack_order,
    place,
    records_at,
    slots_for,
)
from autoloadd_protocol.record import PREFIX_BYTES, Record, body_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from autoloadd_protocol.image import Image

    from .pace import Pace

    Part = bytes | memoryview

ItemT = TypeVar("ItemT", int, tuple[bytes, int])

_NOWHERE = 0xFFFFFFFF
"""No slot has this number: an old entry that goes and has no successor."""
_SORTED_AT_ONCE = 256
"""Sorting so many takes 40 us, in which nobody else runs."""
_ORDER_PART = 128
_PIECE_BYTES = 128 * 1024
_PIECE_PARTS = 64


class Layout:
    """Which records go into an image, and where each of them comes to lie.

    `changes` win over `base`, in their order; None is a tombstone. `keep_bytes` bounds records and
    index: over it, the lowest generations are left out, and counted as `evicted`.
    """

    def __init__(
        self,
        base: Image | None,
        changes: dict[bytes, Record | None],
        keep_bytes: int | None,
        pace: Pace,
    ) -> None:
        self.entries = 0 if base is None else len(base)
        self.record_bytes = 0 if base is None else base.header.record_bytes
        self.blob_bytes = 0 if base is None else base.header.blob_bytes
        self.evicted = 0
        self.oldest_mtime_ns = 1 << 63
        self.newest_mtime_ns = -1 << 63
        self._base = base
        self._changes = changes
        self._pace = pace
        self._gaps: list[int] = []
        """Where the old records begin that go."""
        self._successors: dict[int, int] = {}
        """By where the blob of an old record begins that goes: the slot of what comes instead."""
        self._replaced = array("Q")
        """For each change where the blob begins that it replaces; 0: there is none."""
        self._first_put = 0
        self._put_bytes = 0
        self._moved_to: memoryview | None = None
        for name, record in pace.over(changes.items()):
            self._change(name, record)
        if keep_bytes is not None:
            self._evict(keep_bytes)
        self._gaps = list(sorted_in_steps(self._gaps, pace))
        self.slots = slots_for(self.entries)
        self.records_at = records_at(self.slots, self.entries)

    @property
    def index_bytes(self) -> int:
        """Length of table and order, with the padding up to the records."""
        return self.records_at - HEADER_BYTES

    @property
    def total_bytes(self) -> int:
        """Length of the whole image."""
        return self.records_at + self.record_bytes

    @property
    def puts_at(self) -> int:
        """Where the records of what is put begin; those that stay lie before."""
        return self.total_bytes - self._put_bytes

    def _change(self, name: bytes, record: Record | None) -> None:
        old = None if self._base is None else self._base.look_up(name)
        self._replaced.append(0 if old is None else old.blob_start)
        if old is not None:
            self._leave_out(old)
        if record is not None:
            self._count(record, 1)
            self._put_bytes += record.stored_bytes

    def _leave_out(self, old: Record) -> None:
        self._successors[old.blob_start] = _NOWHERE
        self._gaps.append(old.start - PREFIX_BYTES)
        self._count(old, -1)

    def _count(self, record: Record, sign: int) -> None:
        self.entries += sign
        self.record_bytes += sign * record.stored_bytes
        self.blob_bytes += sign * record.blob_bytes

    def _evict(self, keep_bytes: int) -> None:
        """Leave out what is oldest until the rest is small enough: of the old image first."""
        for old in () if self._base is None else self._pace.over(self._base.oldest_first()):
            if self._bytes_held <= keep_bytes:
                return
            if old.blob_start not in self._successors:
                self._leave_out(old)
                self.evicted += 1
        puts = (record for record in self._changes.values() if record is not None)
        for record in self._pace.over(puts):
            if self._bytes_held <= keep_bytes:
                return
            self._count(record, -1)
            self._put_bytes -= record.stored_bytes
            self._first_put += 1
            self.evicted += 1

    @property
    def _bytes_held(self) -> int:
        return self.record_bytes + self.entries * MAX_INDEX_BYTES

    def _puts(self) -> Iterator[tuple[bytes, Record, int]]:
        """Return the changes kept: name, record, where the blob starts that it replaces."""
        changes = zip(self._changes.items(), self._replaced, strict=True)
        puts = ((name, record, old) for (name, record), old in changes if record is not None)
        return self._pace.over(islice(puts, self._first_put, None))

    # The index

    def fill(self, index: memoryview) -> None:
        """Write table and order to `index`: zeros, `index_bytes` long.

        Finds out `oldest_mtime_ns` and `newest_mtime_ns`.
        """
        table = index[: self.slots * SLOT_BYTES]
        moved = [0, *accumulate(self._pace.over(map(self._gap_bytes, self._gaps)))]
        added = self._place_puts(table)
        new_slots = array("I") if self._base is None else self._place_old(self._base, table, moved)
        # Not needed any more, and the records take all the memory that they may.
        self._successors = {}
        if not self.entries:
            self.oldest_mtime_ns = self.newest_mtime_ns = 0
        at = len(table)
        numbers = self._pace.over(self._in_order(new_slots, added))
        while part := pack_order(list(islice(numbers, _ORDER_PART))):
            index[at : at + len(part)] = part
            at += len(part)

    def _gap_bytes(self, start: int) -> int:
        assert self._base is not None
        return PREFIX_BYTES + body_bytes(self._base.buffer, start + PREFIX_BYTES)

    def _place_puts(self, table: memoryview) -> list[tuple[bytes, int]]:
        """Fill the slots of what is put; return (name, slot) of what is added by it."""
        added: list[tuple[bytes, int]] = []
        at = self.puts_at
        for name, record, replaced in self._puts():
            shift = at + PREFIX_BYTES - record.start
            mtime = record.binary_mtime_ns
            slot = place(table, name, mtime, record.blob_start + shift, record.blob_end + shift)
            if replaced:
                self._successors[replaced] = slot
            else:
                added.append((name, slot))
            self._note_time(mtime)
            at += record.stored_bytes
        return added

    def _place_old(self, base: Image, table: memoryview, moved: list[int]) -> array[int]:
        """Fill the slots of what stays; return the new number of each old slot."""
        numbers = array("I", [_NOWHERE]) * base.header.slots
        successors, gaps = self._successors, self._gaps
        shift = self.records_at - base.header.records_at
        taken = (slot for slot in enumerate(base.slots()) if slot[1][2])
        for number, (key, mtime, start, end) in self._pace.over(taken):
            new = successors.get(start)
            if new is None:
                by = shift - moved[bisect_left(gaps, start)]
                name = base.full_name(key, start, end)
                new = place(table, name, mtime, start + by, end + by)
                self._note_time(mtime)
            numbers[number] = new
        return numbers

    def _note_time(self, mtime: int) -> None:
        if mtime < self.oldest_mtime_ns:
            self.oldest_mtime_ns = mtime
        if mtime > self.newest_mtime_ns:
            self.newest_mtime_ns = mtime

    def _in_order(self, new_slots: array[int], added: list[tuple[bytes, int]]) -> Iterator[int]:
        """Return the slots' numbers, sorted by name."""
        base, at = self._base, 0
        old: Iterator[tuple[int]] = iter(()) if base is None else base.order()
        for name, slot in sorted_in_steps(added, self._pace):
            if base is not None:
                until = _first_from(base, name, at)
                yield from _staying(islice(old, until - at), new_slots)
                at = until
            yield slot
        yield from _staying(old, new_slots)

    # The records

    def old_pieces(self) -> Iterator[list[Part]]:
        """Return the bytes of what stays, in pieces that are worth a system call."""
        return _pieces(self._old_runs())

    def _old_runs(self) -> Iterator[Part]:
        if self._base is not None:
            at = self._base.header.records_at
            for gap in self._pace.over(self._gaps):
                yield self._base.buffer[at:gap]
                at = gap + self._gap_bytes(gap)
            yield self._base.buffer[at:]

    def put_pieces(self) -> Iterator[list[Part]]:
        """Return the bytes of what is put, likewise. They begin at `puts_at`."""
        return _pieces(record.stored() for _, record, _ in self._puts())

    def move_puts(self, buffer: memoryview) -> None:
        """Have the changes lie in the image that is being made, where they were written.

        They took their memory twice otherwise, and under a stream of puts that is as much as an
        image. Whoever looks a name up meanwhile finds the one or the other.
        """
        self._moved_to = buffer
        at = self.puts_at
        for name, record, _ in self._puts():
            self._changes[name] = _moved(record, buffer, at)
            at += record.stored_bytes

    def take_back(self) -> None:
        """Undo `move_puts`: there is no image, and its memory must not stay for the changes."""
        for name, record in self._pace.over(self._changes.items()):
            if record is not None and record.buffer is self._moved_to:
                self._changes[name] = _moved(record, bytes(record.stored()), 0)


def _moved(record: Record, buffer: bytes | memoryview, at: int) -> Record:
    """Return a record of which a copy, with its prefix, begins at `at` of another buffer."""
    shift = at + PREFIX_BYTES - record.start
    return Record(
        buffer,
        record.start + shift,
        record.end + shift,
        record.binary_mtime_ns,
        record.blob_start + shift,
        record.blob_end + shift,
    )


def _pieces(runs: Iterable[Part]) -> Iterator[list[Part]]:
    """Return runs gathered to pieces, long ones cut."""
    piece: list[Part] = []
    room = _PIECE_BYTES
    for run in runs:
        for start in range(0, len(run), _PIECE_BYTES):
            part = run[start : start + _PIECE_BYTES]
            piece.append(part)
            room -= len(part)
            if room <= 0 or len(piece) == _PIECE_PARTS:
                yield piece
                piece, room = [], _PIECE_BYTES
    if piece:
        yield piece


def _staying(old: Iterator[tuple[int]], new_slots: array[int]) -> Iterator[int]:
    return (new for (number,) in old if (new := new_slots[number]) != _NOWHERE)


def _first_from(image: Image, name: bytes, start: int) -> int:
    """Return the place in the sorted order, from `start` on, of the first name that is not less.

    The names asked for are sorted too, and mostly near one another: steps that double find the
    neighbourhood.
    """
    end, step = start, 1
    while end < len(image) and image.name_at(end) < name:
        start, end, step = end + 1, end + step, step * 2
    return bisect_left(range(len(image)), name, start, min(end, len(image)), key=image.name_at)


def sorted_in_steps(items: list[ItemT], pace: Pace) -> Iterable[ItemT]:
    """Return items sorted, with rests in between."""
    parts: list[list[ItemT]] = []
    for start in range(0, len(items), _SORTED_AT_ONCE):
        parts.append(sorted(items[start : start + _SORTED_AT_ONCE]))
        pace.rest()
    return pace.over(merge(*parts))
