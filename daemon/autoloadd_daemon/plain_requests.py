"""The requests that a shell's hot path sends, answered where they are read (Linux).

One whole `get` in one read, on a connection that nothing is under way on: that is nearly all that a
daemon is asked. The general way (`Session`) costs 15 us of Python for it, this 4; redis has 2.
Whatever is not of this form, and every miss and refusal, goes the general way with nothing changed:
the answer is the same, byte for byte.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from autoloadd_protocol.plain_frame import answer_head
from autoloadd_protocol.plain_get import read_plain_get

from .plain_puts import PlainPuts

if TYPE_CHECKING:
    from .methods.context import Context
    from .peers import Peer

    Event = tuple[int, int]

# Where there is no epoll this module is loaded, but not used.
_EPOLLIN = getattr(select, "EPOLLIN", 0)
_EPOLLOUT = getattr(select, "EPOLLOUT", 0)

_READ_BYTES = 16 * 1024
"""Nearly every put fits too, so that one read is enough for it."""

_ANSWER_BYTES = 16 * 1024
"""Larger entries go the general way, which sends them from where they lie."""


class PlainRequests:
    """Answers plain gets of those in `quiet`: connections on which nothing is under way."""

    def __init__(self, context: Context, quiet: dict[int, Peer]) -> None:
        self._context = context
        self._quiet = quiet
        self._puts = PlainPuts(context, quiet)

    def answer(self, events: list[Event]) -> list[Event]:
        """Answer what can be answered at once; return the events that are left.

        A plain put leaves none: it is with the writer. For a client whose bytes were taken already,
        that is one without EPOLLIN.
        """
        left: list[Event] = []
        answers: list[tuple[Peer, bytes]] = []
        for event in events:
            descriptor, what = event
            peer = self._quiet.get(descriptor)
            if peer is None or what != _EPOLLIN:
                left.append(event)
                continue
            try:
                data = peer.socket.recv(_READ_BYTES)
            except OSError:
                # What it means shows when it is read again.
                left.append(event)
                continue
            answer = self._answer_to(data, peer)
            if answer is not None:
                answers.append((peer, answer))
            elif self._puts.take(peer, data):
                continue
            elif data:
                peer.session.receive(data)
                left.append((descriptor, _EPOLLOUT))
            else:
                left.append(event)
        # One after another: who waits for several of them is woken once, which costs 3 us.
        for peer, answer in answers:
            if not peer.send_at_once(answer):
                left.append((peer.descriptor, _EPOLLOUT))
        return left

    def _answer_to(self, data: bytes, peer: Peer) -> bytes | None:
        request = read_plain_get(data)
        shard_id = peer.session.shard_id
        if request is None or shard_id is None:
            return None
        request_id, name, oldest_ns = request
        shard = self._context.catalog.find(shard_id)
        record = None if shard is None else shard.look_up(name)
        if shard is None or record is None:
            return None
        buffer, start, end, mtime_ns, *_ = record
        size = end - start
        if mtime_ns < oldest_ns or size > _ANSWER_BYTES:
            return None
        peer.last_active_ns = shard.last_used_ns = self._context.now_ns
        shard.hits += 1
        return answer_head(request_id, size) + buffer[start:end]
