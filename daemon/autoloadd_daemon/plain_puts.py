"""Puts of the form that every client of ours sends, taken where they are read (Linux).

The general way (`Session`) decodes a request, checks its parameters one by one, and looks at the
client twice: when it asks and when it is answered. That is 35 us of Python for one put; this is 15
with what the writer does. Whatever is not of this form, and every refusal, goes the general way.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from autoloadd_protocol.plain_put import answer_to_put, read_plain_put

from .writes import Put

if TYPE_CHECKING:
    from .methods.context import Context
    from .peers import Peer


class PlainPuts:
    """Hands plain puts to the writer, and answers them.

    `quiet` are connections on which nothing is under way, by descriptor. One whose put is under way
    is not among them: what it sends meanwhile goes the general way, and waits there for its turn.
    """

    def __init__(self, context: Context, quiet: dict[int, Peer]) -> None:
        self._context = context
        self._quiet = quiet

    def take(self, peer: Peer, data: bytes) -> bool:
        """Submit the put that a quiet connection's bytes are; tell whether they are one."""
        producer = peer.session.producer
        writer = self._context.writer
        found = read_plain_put(data, time.time_ns())
        if found is None or producer is None or writer.is_full:
            return False
        request_id, name, record, sync = found
        del self._quiet[peer.descriptor]
        peer.last_active_ns = self._context.now_ns
        peer.session.owe()
        done = partial(self._answer, peer, request_id)
        writer.submit(Put(producer, sync, done, [(name, record)]))
        return True

    def _answer(self, peer: Peer, request_id: bytes, outcome: object) -> None:
        session = peer.session
        session.owe_no_more()
        if type(outcome) is not int or not session.is_quiet or peer.unsent_bytes:
            session.answer_write(int.from_bytes(request_id, "big"), outcome)
        elif peer.send_at_once(answer_to_put(request_id, outcome)):
            self._quiet[peer.descriptor] = peer
        else:
            session.announce_output()
