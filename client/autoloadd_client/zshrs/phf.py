"""The perfect hash by which zshrs finds a name: one bucket and one slot for each, none to spare.

The outcome does not depend on the order in which the names are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .errors import UnseparableError
from .layout import EMPTY_BUCKET, FIRST_SEED
from .seahash import bucket_hash, seeded_hash, seeded_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .seahash import SeededName

HASHES_FOR_EACH = 64
SPARE_HASHES = 2**20
"""A name takes three hashes on average. Names that were made on purpose can take any number: the
search ends after so many for each name, and the spare ones, which take a second or two."""


class Placement(NamedTuple):
    """Where each name goes: `slots[i]` is the index of the name in slot i."""

    displacements: list[int]
    slots: list[int]


def place(names: Sequence[bytes]) -> Placement:
    """Return the displacements, and which name lies in which slot. `names` are unique.

    Raises UnseparableError: before any search where two names of a bucket hash alike with every
    seed, and where a search takes far longer than names that nobody made on purpose need.
    """
    buckets: list[list[int]] = [[] for _ in names]
    for index, name in enumerate(names):
        buckets[bucket_hash(name) % len(names)].append(index)
    crowded = {
        bucket: [seeded_name(names[index]) for index in members]
        for bucket, members in enumerate(buckets)
        if len(members) > 1
    }
    for bucket, members in crowded.items():
        _refuse_equal(members, [names[index] for index in buckets[bucket]])
    return _place_all(names, buckets, crowded)


def _refuse_equal(members: Sequence[SeededName], names: Sequence[bytes]) -> None:
    first: dict[SeededName, bytes] = {}
    for member, name in zip(members, names, strict=True):
        if member in first:
            raise UnseparableError(
                [first[member], name],
                "zshrs's file cannot hold both of two names whose hashes are equal for every seed",
            )
        first[member] = name


def _place_all(
    names: Sequence[bytes], buckets: list[list[int]], crowded: dict[int, list[SeededName]]
) -> Placement:
    displacements = [EMPTY_BUCKET] * len(names)
    slots: list[int | None] = [None] * len(names)
    search = _Search(slots, SPARE_HASHES + HASHES_FOR_EACH * len(names))
    # The sort is stable: of equal sizes the lower bucket is first.
    for bucket in sorted(crowded, key=lambda bucket: -len(crowded[bucket])):
        found = search.find_seed(crowded[bucket])
        if found is None:
            raise UnseparableError(
                [names[index] for index in buckets[bucket]],
                "no seed was found that gives these names different slots",
            )
        displacements[bucket], taken = found
        for slot, index in zip(taken, buckets[bucket], strict=True):
            slots[slot] = index
    free = iter([slot for slot, index in enumerate(slots) if index is None])
    for bucket, members in enumerate(buckets):
        if len(members) == 1:
            displacements[bucket] = slot = next(free)
            slots[slot] = members[0]
    return Placement(displacements, [index for index in slots if index is not None])


class _Search:
    """Finds seeds, one bucket after the other, until `hashes_left` is used up."""

    def __init__(self, slots: Sequence[int | None], hashes_left: int) -> None:
        self._slots = slots
        self._hashes_left = hashes_left

    def find_seed(self, members: Sequence[SeededName]) -> tuple[int, list[int]] | None:
        """Return the first seed that puts all members into free slots, with these slots."""
        slots, count = self._slots, len(self._slots)
        seed = FIRST_SEED
        while self._hashes_left >= 0:
            taken: list[int] = []
            for member in members:
                slot = seeded_hash(seed, member) % count
                if slots[slot] is not None or slot in taken:
                    break
                taken.append(slot)
            self._hashes_left -= len(taken) + 1
            if len(taken) == len(members):
                return seed, taken
            seed += 1
        return None
