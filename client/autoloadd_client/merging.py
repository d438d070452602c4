"""Entries from elsewhere, merged into a shard: an entry that is there and as new stays.

Which of two is newer is told by when they were cached. So merging the same twice changes nothing
the second time, and what a shell has stored meanwhile is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autoloadd_protocol.producer import Producer

    from .cache import Cache
    from .entry import Entry


class Offer(NamedTuple):
    """An entry that may be merged. `load` makes it: a blob is copied when it is sent."""

    name: str
    cached_at_ns: int
    load: Callable[[], Entry]


class LeftOut(NamedTuple):
    """An entry that cannot go where the others go, and why."""

    name: str
    reason: str


class Incoming(NamedTuple):
    """What a file offers. Names are unique."""

    producer: Producer
    built_at_ns: int
    offers: Sequence[Offer]
    left_out: Sequence[LeftOut] = ()


class Plan(NamedTuple):
    """What merging would do: `new` and `replaced` are sent, `kept` of the shard's are as new.

    `has_shard` tells that the producer has one, if without entries.
    """

    has_shard: bool
    new: list[Offer]
    replaced: list[Offer]
    kept: int

    @property
    def changes(self) -> bool:
        """Whether anything would be different afterwards."""
        return bool(self.new or self.replaced or not self.has_shard)


def plan_merge(
    cache: Cache, incoming: Incoming, on_progress: Callable[[int], None] = lambda _done: None
) -> Plan:
    """Return what merging would do now. `cache` is of the incoming entries' producer.

    `on_progress` is called with the number of entries compared. Raises CacheError.
    """
    identity = incoming.producer.as_map()
    shard = next((row for row in cache.shards() if row["producer"] == identity), None)
    offers = incoming.offers
    if shard is None or not shard["entries"]:
        return Plan(shard is not None, list(offers), [], 0)
    cached_at: dict[str, int | None] = {}
    for name, entry in cache.get_entries(offer.name for offer in offers):
        cached_at[name] = entry.cached_at_ns
        on_progress(len(cached_at))
    plan = Plan(True, [], [], 0)
    kept = 0
    for offer in offers:
        there = cached_at.get(offer.name)
        if there is None:
            plan.new.append(offer)
        elif there < offer.cached_at_ns:
            plan.replaced.append(offer)
        else:
            kept += 1
    return plan._replace(kept=kept)


def carry_out(
    cache: Cache,
    incoming: Incoming,
    plan: Plan,
    *,
    sync: str,
    on_progress: Callable[[int], None],
) -> int:
    """Send what the plan says; return the generation. All of it becomes visible, or nothing.

    A shard without entries takes the time at which the incoming ones were built. See `Cache.merge`.
    """
    entries = ((offer.name, offer.load()) for offer in (*plan.new, *plan.replaced))
    return cache.merge(
        entries, built_at_ns=incoming.built_at_ns, sync=sync, on_progress=on_progress
    )
