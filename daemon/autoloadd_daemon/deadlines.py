"""What is due when: times of CLOCK_MONOTONIC in ns, the next one first. It keeps no clock."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ItemT = TypeVar("ItemT")

_SPARE = 64


class Deadlines(Generic[ItemT]):
    """Items, each due at a time. `on_nearer` is called when one becomes the first of all."""

    def __init__(self) -> None:
        self.on_nearer: Callable[[], None] = lambda: None
        self._items: dict[int, ItemT] = {}
        # Holds numbers only: what was called off must not live on until its time would have come.
        self._heap: list[tuple[int, int]] = []
        self._numbers = count(1)

    def __len__(self) -> int:
        """Return how many items are to come."""
        return len(self._items)

    @property
    def next_ns(self) -> int | None:
        """When the first item is due; None where there is none."""
        while self._heap and self._heap[0][1] not in self._items:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def add(self, due_ns: int, item: ItemT) -> int:
        """Take an item; return the number to call it off by."""
        number = next(self._numbers)
        self._items[number] = item
        heappush(self._heap, (due_ns, number))
        if self._heap[0][1] == number:
            self.on_nearer()
        return number

    def call_off(self, number: int) -> None:
        """Forget an item that is still to come."""
        del self._items[number]
        if len(self._heap) > 2 * len(self._items) + _SPARE:
            # Whoever takes and gives back for ever must not make it grow.
            self._heap = [each for each in self._heap if each[1] in self._items]
            heapify(self._heap)

    def take_due(self, now_ns: int) -> Iterator[ItemT]:
        """Yield what is due, also what becomes so meanwhile, in the order of the times."""
        while (due_ns := self.next_ns) is not None and due_ns <= now_ns:
            yield self._items.pop(heappop(self._heap)[1])
