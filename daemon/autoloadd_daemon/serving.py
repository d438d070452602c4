"""Serving all clients from one task, over an epoll set of its own (Linux).

A task per connection costs two epoll_waits and 22 us of user time per request; this costs 3 us. The
set is drained with `poll(0)`; only then does the task wait, and what it waits for is the set's own
descriptor, which is readable in trio's epoll when something in the set is ready.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import trio

from autoloadd_protocol.limits import CONNECTIONS

from .descriptors import are_short
from .peers import Peer, is_our_user, longest_idle
from .plain_requests import PlainRequests
from .shortage import Shortage

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .methods.context import Context

_EVENTS_PER_TURN = 256
_ACCEPTS_PER_TURN = 64
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NS_WITHOUT_CHECKPOINT = 5_000_000
"""Signals, ticks and finished syncs wait this long at most while clients keep the loop busy."""

_AWAY_NS = 1_000_000_000
_AWAKE_NS = 50_000
"""How long to look again and again before waiting, while one client alone is active: its next
request mostly comes in that time, and to go to sleep and be woken up costs more."""

_NAP_SECONDS = 0.001
_NAPS = 4
"""Waits in the set itself before waiting by trio, while a sync is under way: its end, and the
writes that gather meanwhile, are seen 20 us sooner. Signals and ticks wait no longer for it than
for busy clients."""


class EpollServer:
    """Serves a listening socket until its task is cancelled."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._quiet: dict[int, Peer] = {}
        self._plain_requests = PlainRequests(context, self._quiet)
        self._listener: socket.socket | None = None
        self._accepting = False
        self._shortage = Shortage(context.metrics)
        self._again: set[Peer] = set()
        self._answered: set[Peer] = set()
        self._watched: set[Peer] = set()
        self._held: set[Peer] = set()
        self._without_room: set[Peer] = set()
        self._room = context.room
        self._checked_ns = time.monotonic_ns()
        self._wake_up = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_up, select.EPOLLIN)
        self._is_open = True
        self._opening = threading.Lock()
        self._delivered: deque[Callable[[], None]] = deque()

    def deliver(self, callback: Callable[[], None]) -> None:
        """Have a callback run by the serving task soon. Called in any thread.

        In its own set: by trio's `run_sync_soon` the end of a sync took 30 us more.
        """
        self._delivered.append(callback)
        with self._opening:
            if self._is_open:
                os.eventfd_write(self._wake_up, 1)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._peers)

    @property
    def owes_answers(self) -> bool:
        """Tell whether a client has not taken all of its answers yet."""
        return any(peer.unsent_bytes for peer in self._peers.values())

    def listen_on(self, listener: socket.socket) -> None:
        """Accept clients from this socket, in place of the one before."""
        self.stop_listening()
        self._listener = listener
        self._resume_accepting()

    def stop_listening(self) -> None:
        """Accept no more clients; those that are connected stay."""
        if self._listener is not None and self._accepting:
            self._epoll.unregister(self._listener.fileno())
            self._accepting = False
        self._listener = None

    async def serve(self) -> None:
        """Serve for ever."""
        awake_until = naps = 0
        wait = 0.0
        writer = self._context.writer
        writer.may_gather = True
        last_checkpoint = time.monotonic_ns()
        try:
            while True:
                events = self._epoll.poll(wait, _EVENTS_PER_TURN)
                if events or self._again or self._answered or writer.is_gathering:
                    self._handle(events)
                    awake_until = self._context.now_ns + _AWAKE_NS if len(events) == 1 else 0
                    naps = _NAPS
                    is_waiting = writer.is_busy and not (self._again or self._answered)
                    wait = _NAP_SECONDS if is_waiting else 0.0
                    if self._context.now_ns - last_checkpoint > _NS_WITHOUT_CHECKPOINT:
                        await trio.lowlevel.checkpoint()
                        last_checkpoint = time.monotonic_ns()
                elif naps and wait:
                    naps -= 1
                elif awake_until and not wait:
                    if time.monotonic_ns() > awake_until:
                        awake_until = 0
                else:
                    wait = 0.0
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    last_checkpoint = time.monotonic_ns()
        finally:
            self._close_all()

    def settle(self) -> None:
        """Bring answers to the clients whose writes are done.

        Each client has one share: what that leads to waits for the next turn, for which the
        serving task is woken if it sleeps.
        """
        self._context.now_ns = time.monotonic_ns()
        ready, self._answered = self._answered, set()
        if not self._context.writer.is_full:
            ready |= self._held
            self._held = set()
        if self._without_room and not self._room.is_short_for_answers:
            ready |= self._without_room
            self._without_room = set()
        for peer in ready:
            self._advance(peer)
        if self._room.waiting:
            for peer in self._room.next_readers():
                self._update(peer, peer.unsent_bytes)
        self._context.writer.turn()
        if self._again or self._answered or self._context.writer.is_gathering:
            os.eventfd_write(self._wake_up, 1)

    def check_deadlines(self) -> None:
        """Cut off clients that hold something up; accept again after a shortage of descriptors."""
        now = time.monotonic_ns()
        # After a pause of the daemon itself (SIGSTOP, suspend) clients are read before judged.
        was_away = now - self._checked_ns > _AWAY_NS
        self._checked_ns = now
        if not was_away:
            for peer in [peer for peer in self._watched if peer.is_overdue(now)]:
                self._cut_off(peer)
            if self._room.waiting or self._without_room:
                for peer in list(self._room.offenders(self._watched, now)):
                    self._cut_off(peer)
        self._resume_accepting()

    def _cut_off(self, peer: Peer) -> None:
        self._context.metrics.count("cut_off")
        self._close(peer)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        self._context.now_ns = time.monotonic_ns()
        # First: who is answered writes the next request while others are read.
        self._run_delivered()
        left = self._plain_requests.answer(events) if self._room.is_ample else events
        if left or self._again or self._answered or not self._context.writer.is_idle:
            self._turn(left)

    def _turn(self, events: list[tuple[int, int]]) -> None:
        again, self._again = self._again, set()
        for descriptor, event in events:
            peer = self._peers.get(descriptor)
            if descriptor == self._wake_up:
                os.eventfd_read(self._wake_up)
                # What came since they were run first may be what this was for.
                self._run_delivered()
            elif peer is None:
                self._accept()
            else:
                again.discard(peer)
                self._serve(peer, event)
        for peer in again:
            # Not one that was closed in this turn to make room: its number may be another's.
            if self._peers.get(peer.descriptor) is peer:
                self._advance(peer)
        self._context.writer.turn()
        self.settle()

    def _run_delivered(self) -> None:
        while self._delivered:
            self._delivered.popleft()()

    def _serve(self, peer: Peer, event: int) -> None:
        peer.last_active_ns = self._context.now_ns
        if event & ~select.EPOLLOUT:
            at_most = self._room.read_bytes(peer)
            if at_most and not peer.read(at_most) and peer.interest & select.EPOLLIN:
                # Level-triggered: an end of input that stays in the set is reported for ever.
                self._watch_for(peer, peer.interest & ~select.EPOLLIN)
        self._advance(peer)

    def _advance(self, peer: Peer) -> None:
        """Run what a client asked for and send what it is owed."""
        session = peer.session
        bound = self._room.unsent_bound
        if peer.unsent_bytes < bound:
            session.advance()
        before = peer.unsent_bytes + session.output_bytes
        peer.send()
        self._room.note(peer)
        if session.has_more and peer.unsent_bytes < bound:
            self._again.add(peer)
        elif session.is_finished and not peer.unsent_bytes:
            self._close(peer)
            return
        elif session.is_held:
            (self._without_room if session.waits_for_room else self._held).add(peer)
        self._update(peer, before)

    def _update(self, peer: Peer, unsent_before: int) -> None:
        """Set what the client is watched for: more bytes, room for answers, deadlines."""
        session = peer.session
        interest = 0
        if session.wants_bytes and peer.unsent_bytes < self._room.unsent_bound:
            if self._room.read_bytes(peer):
                interest |= select.EPOLLIN
            else:
                self._room.waiting.add(peer)
        if peer.unsent_bytes:
            interest |= select.EPOLLOUT
        if interest != peer.interest:
            self._watch_for(peer, interest)
        if interest == select.EPOLLIN and session.is_quiet:
            self._quiet[peer.descriptor] = peer
        else:
            self._quiet.pop(peer.descriptor, None)
        is_read = bool(interest & select.EPOLLIN)
        peer.note_deadlines(self._context.now_ns, unsent_before, is_read=is_read)
        if peer.waits_for_rest_since_ns or peer.blocked_since_ns:
            self._watched.add(peer)
        else:
            self._watched.discard(peer)

    def _watch_for(self, peer: Peer, interest: int) -> None:
        # Out of the set with no interest: a hang-up is reported even if nobody asked for it.
        if not interest:
            self._epoll.unregister(peer.descriptor)
        elif not peer.interest:
            self._epoll.register(peer.descriptor, interest)
        else:
            self._epoll.modify(peer.descriptor, interest)
        peer.interest = interest

    def _note_answer(self, peer: Peer) -> None:
        if self._peers.get(peer.descriptor) is peer:
            self._answered.add(peer)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self._listener is None:
                return
            if are_short(self._listener.fileno()):
                self._pause_accepting("the last descriptors are for files")
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                self._shortage.end()
                return
            except ConnectionError:
                continue
            except OSError as exc:
                if exc.errno not in _SHORTAGES:
                    raise
                self._pause_accepting(exc.strerror or str(exc))
                return
            self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        if not is_our_user(connection):
            self._context.metrics.count("refused_peers")
            connection.close()
            return
        if len(self._peers) >= CONNECTIONS:
            self._cut_off(longest_idle(self._peers.values()))
        connection.setblocking(False)
        peer = Peer(connection, self._context, self._note_answer)
        self._peers[peer.descriptor] = peer
        self._watch_for(peer, select.EPOLLIN)
        self._context.metrics.count("connections")

    def _pause_accepting(self, reason: str) -> None:
        """Let connected clients be served while there are no descriptors for new ones."""
        assert self._listener is not None
        self._shortage.begin(reason)
        self._epoll.unregister(self._listener.fileno())
        self._accepting = False

    def _resume_accepting(self) -> None:
        if self._listener is not None and not self._accepting:
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)
            self._accepting = True

    def _close(self, peer: Peer) -> None:
        del self._peers[peer.descriptor]
        self._quiet.pop(peer.descriptor, None)
        for group in (self._again, self._answered, self._watched, self._held, self._without_room):
            group.discard(peer)
        self._room.forget(peer)
        if peer.interest:
            self._watch_for(peer, 0)
        peer.close()

    def _close_all(self) -> None:
        for peer in list(self._peers.values()):
            self._close(peer)
        self.stop_listening()
        self._epoll.close()
        with self._opening:
            self._is_open = False
            os.close(self._wake_up)
