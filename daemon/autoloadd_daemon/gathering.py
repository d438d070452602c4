"""Whether a batch that is to be synced should wait a moment for the writes that are on their way.

Clients that were answered together ask again within microseconds of one another. Who begins to sync
with the first of them leaves the others to the sync after it: two syncs for what one could bring to
the disk.
"""

from __future__ import annotations

import time

LONGEST_NS = 500_000
"""Whatever the disk takes: a client that asks no more must not cost the others more."""


class Gathering:
    """Looks at the syncs that there were, and at nothing else; times are CLOCK_MONOTONIC ns."""

    def __init__(self) -> None:
        self._expected = 0
        self._until_ns = 0

    def note_sync(self, *, synced: int, waiting: int, began_ns: int) -> None:
        """Note that a sync ended now which began at a time, and how many writes it was for.

        `waiting`: writes that came meanwhile, and wait for the next one.
        """
        now = time.monotonic_ns()
        self._expected = synced + waiting
        # Half of what a sync takes: whoever is late costs the others no more than that.
        self._until_ns = now + min((now - began_ns) // 2, LONGEST_NS)

    def is_worth_it(self, waiting: int) -> bool:
        """Tell whether to wait on, with so many writes there."""
        return waiting < self._expected and time.monotonic_ns() < self._until_ns
