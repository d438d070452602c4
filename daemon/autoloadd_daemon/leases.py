"""Leases: who makes an entry that many ask for at once, and who waits for it.

The first who misses an entry is given the lease on its name and makes it; the others wait, or take
the old entry. It ends with a put of the name, when it is given back, with its owner's connection,
or when its time is over. Then those who wait are looked at in the order in which they came: who
finds its entry gets that; the first who does not gets the lease. Where storage refuses the put, all
of them are told to go on by themselves.

A table without clock, sockets or shards: times (CLOCK_MONOTONIC, ns) come in as arguments, and
each request brings what finds its entry. It is empty, and costs nothing, while nobody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoloadd_protocol.encoding import NIL
from autoloadd_protocol.errors import BUSY, RequestError
from autoloadd_protocol.limits import LEASES, LEASES_PER_CONNECTION
from autoloadd_protocol.requests import FILL

from .deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

    Parts = list[bytes | memoryview]

YOURS: Parts = [FILL]
"""The answer to whoever is given a lease."""

NOBODYS: Parts = [NIL]
"""The answer to whoever waited in vain."""


class Request:
    """A client's request for a lease. `owner` is its connection, of which it is the only one.

    `find(is_held)` returns the entry that the client takes, as an answer: a fresh one or, while
    another makes it, perhaps an old one. `done` is called once, unless the connection ends before.
    """

    def __init__(
        self,
        owner: Hashable,
        shard_id: str,
        name: bytes,
        hold_ns: int,
        until_ns: int,
        find: Callable[[bool], Parts | None],
        done: Callable[[Parts], None],
    ) -> None:
        self.owner = owner
        self.shard_id = shard_id
        self.name = name
        self.hold_ns = hold_ns
        self.until_ns = until_ns
        self.find = find
        self.done = done
        self.deadline = 0


class _Lease:
    """A name that somebody makes the entry of. `owner` is None only while it is passed on."""

    def __init__(self, shard_id: str, name: bytes) -> None:
        self.shard_id = shard_id
        self.name = name
        self.owner: Hashable = None
        self.deadline = 0
        self.waiting: dict[Request, None] = {}


class Leases:
    """All leases, and who waits for them. `given` and `expired` are counted since the start."""

    def __init__(self) -> None:
        self.deadlines: Deadlines[_Lease | Request] = Deadlines()
        self.held = 0
        self.given = 0
        self.expired = 0
        self._by_shard: dict[str, dict[bytes, _Lease]] = {}
        self._by_owner: dict[Hashable, dict[_Lease, None]] = {}
        self._waiting: dict[Hashable, tuple[_Lease, Request]] = {}
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many clients wait."""
        return len(self._waiting)

    def is_held_by(self, owner: Hashable) -> bool:
        """Tell whether a connection has any lease."""
        return owner in self._by_owner

    def ask(self, request: Request, now_ns: int, *, is_worth_it: bool = True) -> Parts | None:
        """Return the answer, or None: it comes later, by `done`. Raises RequestError (`busy`).

        Unless it `is_worth_it`, since nothing can be stored now, nobody is asked to make anything.
        """
        lease = self._by_shard.get(request.shard_id, {}).get(request.name)
        is_anothers = lease is not None and lease.owner is not request.owner
        found = request.find(is_anothers)
        if found is not None:
            return found
        if self._is_closed or not is_worth_it:
            return NOBODYS
        if lease is not None and not is_anothers:
            # Never behind itself: the put that would end the wait comes on the same connection.
            self._take_back(lease)
            return self._give(lease, request, now_ns)
        if len(self._by_owner.get(request.owner, ())) >= LEASES_PER_CONNECTION:
            raise RequestError(BUSY, f"this connection holds {LEASES_PER_CONNECTION} leases")
        if lease is None:
            return self._give(self._begin(request), request, now_ns)
        if request.until_ns <= now_ns:
            return NOBODYS
        self._wait(lease, request)
        return None

    def give_back(self, owner: Hashable, shard_id: str, name: bytes, now_ns: int) -> None:
        """End a lease of this connection, if it has it: the next who waits makes the entry."""
        lease = self._by_shard.get(shard_id, {}).get(name)
        if lease is not None and lease.owner is owner:
            self._take_back(lease)
            self._pass_on(lease, now_ns)

    def forget(self, owner: Hashable, now_ns: int) -> None:
        """End what a connection holds and waits for: it is closed."""
        if owner in self._waiting:
            self._stop_waiting(owner)
        for lease in list(self._by_owner.get(owner, ())):
            self._take_back(lease)
            self._pass_on(lease, now_ns)

    def note_stored(self, shard_id: str, names: Collection[bytes], now_ns: int) -> None:
        """End the leases on names that were stored, by whomever."""
        leases = self._by_shard.get(shard_id)
        if leases is None:
            return
        # The intersection looks through the shorter of the two.
        for name in leases.keys() & names:
            lease = leases[name]
            self._take_back(lease)
            self._pass_on(lease, now_ns, is_changed=True)

    def note_refused(self, shard_id: str, names: Collection[bytes]) -> None:
        """End the leases on names that storage refused: nobody waits for what cannot come.

        One after another would be asked to make it, in vain, while the others wait.
        """
        leases = self._by_shard.get(shard_id, {})
        for name in leases.keys() & names:
            lease = leases[name]
            self._take_back(lease)
            self._dismiss(lease)
            self._drop(lease)

    def expire(self, now_ns: int) -> bool:
        """End leases and waits whose time is over; tell whether there was any."""
        is_any = False
        for over in self.deadlines.take_due(now_ns):
            is_any = True
            if isinstance(over, _Lease):
                self.expired += 1
                over.deadline = 0
                self._take_back(over)
                self._pass_on(over, now_ns)
            else:
                over.deadline = 0
                self._stop_waiting(over.owner)
                over.done(NOBODYS)
        return is_any

    def close(self) -> None:
        """Let nobody wait any more, and give no lease from now on: the daemon stops."""
        self._is_closed = True
        for lease in {lease for lease, _ in self._waiting.values()}:
            self._dismiss(lease)

    def _begin(self, request: Request) -> _Lease:
        if self.held >= LEASES:
            raise RequestError(BUSY, f"{LEASES:,} leases are given, try again later")
        lease = _Lease(request.shard_id, request.name)
        self._by_shard.setdefault(request.shard_id, {})[request.name] = lease
        return lease

    def _give(self, lease: _Lease, request: Request, now_ns: int) -> Parts:
        self.held += 1
        self.given += 1
        lease.owner = request.owner
        self._by_owner.setdefault(lease.owner, {})[lease] = None
        lease.deadline = self.deadlines.add(now_ns + request.hold_ns, lease)
        return YOURS

    def _take_back(self, lease: _Lease) -> None:
        """Let a lease be nobody's. It is given anew, or passed on, by the caller."""
        self.held -= 1
        leases = self._by_owner[lease.owner]
        del leases[lease]
        if not leases:
            del self._by_owner[lease.owner]
        lease.owner = None
        if lease.deadline:
            self.deadlines.call_off(lease.deadline)

    def _pass_on(self, lease: _Lease, now_ns: int, *, is_changed: bool = False) -> None:
        """Answer those whose entry is there, and give the lease to the first of the others.

        Only where the entry `is_changed` is there anything new for those behind that one.
        """
        for request in list(lease.waiting):
            if lease.owner is not None and not is_changed:
                return
            found = request.find(lease.owner is not None)
            if found is None and lease.owner is not None:
                continue
            self._stop_waiting(request.owner)
            request.done(self._give(lease, request, now_ns) if found is None else found)
        if lease.owner is None:
            self._drop(lease)

    def _dismiss(self, lease: _Lease) -> None:
        """Tell those who wait to go on by themselves."""
        for request in list(lease.waiting):
            self._stop_waiting(request.owner)
            request.done(NOBODYS)

    def _drop(self, lease: _Lease) -> None:
        leases = self._by_shard[lease.shard_id]
        del leases[lease.name]
        if not leases:
            del self._by_shard[lease.shard_id]

    def _wait(self, lease: _Lease, request: Request) -> None:
        lease.waiting[request] = None
        self._waiting[request.owner] = (lease, request)
        request.deadline = self.deadlines.add(request.until_ns, request)

    def _stop_waiting(self, owner: Hashable) -> None:
        lease, request = self._waiting.pop(owner)
        del lease.waiting[request]
        if request.deadline:
            self.deadlines.call_off(request.deadline)
