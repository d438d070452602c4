"""Memory that requests and answers take, over all clients together.

Each client has bounds of its own, but many of them have many times as much. So there is room for
all of them together; where it is short

- large frames are read one client after another, the one that lacks least first; small frames are
  read on, of every client: the bound for what counts as small shrinks with the room that is left
- answers that may be large wait until there is room again, and a client that was sent something and
  has not taken it is answered no further
- whoever has held room without any progress, while others wait for it, is cut off.

Nothing here costs a client that sends and takes whole frames more than a comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoloadd_protocol.limits import UNSENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .peers import Peer

READ_BYTES = 256 * 1024
"""Bytes taken from one client at a time: its share of a turn."""

RECEIVED_BYTES = 4 * 1024 * 1024
"""Bytes of requests that are not run yet, from which on room is short."""

_RECEIVED_AT_MOST = 8 * 1024 * 1024
"""What they come up to, besides the one large frame that is read on."""

_SHARE = 16
"""A client may hold this part of the room that is left: it is never used up, by however many."""

_ALWAYS_BYTES = 4096
"""And this much whatever is left: 4 MiB for 1,024 clients."""

OWED_BYTES = 4 * 1024 * 1024
"""Bytes of answers that were made for clients and not taken, from which on room is short."""

_OUTPUT_PER_TURN = 1024 * 1024
_OUTPUT_WHEN_SHORT = 16 * 1024
_PATIENCE_NS = 150_000_000
_LONGEST_NS = 1_000_000_000
"""Of progress that never ends, one byte now and then, while others wait."""


class Room:
    """Who holds how much, who waits, and who is to go.

    `unsent_bound`: bytes that a client may be owed and still have requests run. `output_per_turn`:
    bytes of answers from which on its turn is over. `is_short_for_answers`: those that may be large
    have to wait.
    """

    def __init__(self) -> None:
        self.received = 0
        self.owed = 0
        self.waiting: set[Peer] = set()
        self._favoured: Peer | None = None
        self._set_short(is_short=False)

    def _set_short(self, *, is_short: bool) -> None:
        # Kept ready: every request asks for them.
        self.is_short_for_answers = is_short
        self.unsent_bound = 1 if is_short else UNSENT_BYTES
        self.output_per_turn = _OUTPUT_WHEN_SHORT if is_short else _OUTPUT_PER_TURN

    @property
    def is_ample(self) -> bool:
        """Tell whether every client may be read, and none has to be answered later."""
        return self.received < RECEIVED_BYTES and not self.is_short_for_answers

    def note(self, peer: Peer) -> None:
        """Take what a client holds into the books; after each of its turns."""
        self._book(peer, peer.session.held_bytes, peer.copied_bytes)
        if self._favoured is peer and not (peer.session.wants_rest or peer.session.is_stalled):
            # Not before its request is run: one after another they would fill what room there is.
            self._favoured = None

    def forget(self, peer: Peer) -> None:
        """Take a client out of the books."""
        self._book(peer, 0, 0)
        self.waiting.discard(peer)
        if self._favoured is peer:
            self._favoured = None

    def _book(self, peer: Peer, received: int, owed: int) -> None:
        if received != peer.noted_received:
            self.received += received - peer.noted_received
            peer.noted_received = received
        if owed != peer.noted_owed:
            self.owed += owed - peer.noted_owed
            peer.noted_owed = owed
            self._set_short(is_short=self.owed >= OWED_BYTES)

    def read_bytes(self, peer: Peer) -> int:
        """Return how many bytes may be read from a client now; 0: it waits for room."""
        if self.received < RECEIVED_BYTES or peer is self._favoured:
            return READ_BYTES
        left = (_RECEIVED_AT_MOST - self.received) // _SHARE
        bound = min(max(left, _ALWAYS_BYTES), READ_BYTES)
        return bound if peer.noted_received < bound else 0

    def next_readers(self) -> list[Peer]:
        """Return those who waited for room and may be read on now; one, where it is still short."""
        if self.received >= RECEIVED_BYTES and self._favoured is None and self.waiting:
            self._favoured = min(self.waiting, key=lambda peer: peer.session.wanted_bytes)
        ready = [peer for peer in self.waiting if self.read_bytes(peer)]
        self.waiting.difference_update(ready)
        return ready

    def offenders(self, peers: Iterable[Peer], now_ns: int) -> Iterator[Peer]:
        """Yield those of `peers` who keep others waiting; the caller cuts them off.

        `peers` are those for whom a deadline runs.
        """
        wants_reading = bool(self.waiting)
        for peer in peers:
            quiet = now_ns - peer.last_active_ns > _PATIENCE_NS
            began = peer.waits_for_rest_since_ns
            if wants_reading and peer not in self.waiting and began and peer.noted_received:
                if peer.noted_received > _ALWAYS_BYTES and (quiet or now_ns - began > _LONGEST_NS):
                    yield peer
            elif self.is_short_for_answers and quiet and peer.noted_owed > _OUTPUT_WHEN_SHORT:
                yield peer
