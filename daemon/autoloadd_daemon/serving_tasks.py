"""Serving each client from a task of its own: where there is no epoll (macOS, the BSDs).

The same peers, sessions and writer as in `serving`; only the waiting is trio's.
"""

from __future__ import annotations

import errno
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from autoloadd_protocol.limits import CONNECTIONS

from .descriptors import are_short
from .exhaustion import run_or_end
from .peers import Peer, is_our_user, longest_idle
from .shortage import Shortage

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from .methods.context import Context

_ACCEPT_PAUSE_SECONDS = 0.25


class TaskServer:
    """Serves a listening socket until its task is cancelled."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._room = context.room
        self._peers: dict[Peer, trio.Event] = {}
        self._listener: socket.socket | None = None
        self._listening = trio.Event()
        self._shortage = Shortage(context.metrics)
        self._accepting: trio.CancelScope | None = None
        self.deliver = trio.lowlevel.current_trio_token().run_sync_soon
        """Has a callback run by the loop soon. Called in any thread."""

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._staying())

    @property
    def owes_answers(self) -> bool:
        """Tell whether a client has not taken all of its answers yet."""
        return any(peer.unsent_bytes or peer.session.output for peer in self._peers)

    def listen_on(self, listener: socket.socket) -> None:
        """Accept clients from this socket, in place of the one before."""
        self.stop_listening()
        self._listener = listener
        self._listening.set()

    def stop_listening(self) -> None:
        """Accept no more clients; those that are connected stay."""
        self._listener = None
        self._listening = trio.Event()
        if self._accepting is not None:
            self._accepting.cancel()

    async def serve(self) -> None:
        """Serve for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._listening.wait()
                with trio.CancelScope() as self._accepting:
                    await self._accept(nursery)
                self._accepting = None

    def settle(self) -> None:
        """Wake clients whose writes waited for room; the others are woken by their own answers."""
        if not self._context.writer.is_full:
            for peer, event in self._peers.items():
                if peer.session.is_held and not self._is_without_room(peer):
                    event.set()
        for peer in self._room.next_readers():
            self._peers[peer].set()

    def check_deadlines(self) -> None:
        """Cut off clients that hold something up."""
        now = time.monotonic_ns()
        for peer in [peer for peer in self._peers if peer.is_overdue(now)]:
            self._cut_off(peer)
        if self._room.waiting or any(map(self._is_without_room, self._peers)):
            for peer in list(self._room.offenders(self._peers, now)):
                self._cut_off(peer)

    def _is_without_room(self, peer: Peer) -> bool:
        return peer.session.waits_for_room and self._room.is_short_for_answers

    def _cut_off(self, peer: Peer) -> None:
        self._context.metrics.count("cut_off")
        peer.is_mute = True
        peer.session.is_closing = True
        self._peers[peer].set()

    def _staying(self) -> list[Peer]:
        return [peer for peer in self._peers if not peer.session.is_closing]

    async def _accept(self, nursery: trio.Nursery) -> None:
        while self._listener is not None:
            await trio.lowlevel.wait_readable(self._listener)
            try:
                connection = self._accept_one(self._listener)
            except (BlockingIOError, ConnectionError):
                continue
            except OSError as exc:
                # Out of descriptors: those who are connected are served meanwhile.
                self._shortage.begin(exc.strerror or str(exc))
                await trio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            self._shortage.end()
            if is_our_user(connection):
                self._welcome(connection, nursery)
            else:
                self._context.metrics.count("refused_peers")
                connection.close()

    def _accept_one(self, listener: socket.socket) -> socket.socket:
        if are_short(listener.fileno()):
            raise OSError(errno.EMFILE, "the last descriptors are for files")
        return listener.accept()[0]

    def _welcome(self, connection: socket.socket, nursery: trio.Nursery) -> None:
        if self.connections >= CONNECTIONS:
            self._cut_off(longest_idle(self._staying()))
        connection.setblocking(False)
        self._context.metrics.count("connections")
        nursery.start_soon(run_or_end, self._serve, connection)

    async def _serve(self, connection: socket.socket) -> None:
        answered = trio.Event()
        peer = Peer(connection, self._context, self._note_answer)
        self._peers[peer] = answered
        try:
            while await self._serve_once(peer):
                pass
        finally:
            del self._peers[peer]
            self._room.forget(peer)
            peer.close()
            self.settle()

    def _note_answer(self, peer: Peer) -> None:
        if peer in self._peers:
            self._peers[peer].set()

    async def _serve_once(self, peer: Peer) -> bool:
        """Run and send what there is, then wait for more; tell whether to go on."""
        session = peer.session
        self._context.now_ns = peer.last_active_ns = time.monotonic_ns()
        if peer.unsent_bytes < self._room.unsent_bound:
            session.advance()
        self._context.writer.turn()
        before = peer.unsent_bytes + session.output_bytes
        peer.send()
        was_short = self._room.is_short_for_answers
        self._room.note(peer)
        if self._room.waiting or (was_short and not self._room.is_short_for_answers):
            self.settle()
        is_read = session.wants_bytes and peer.unsent_bytes < self._room.unsent_bound
        if is_read and not self._room.read_bytes(peer):
            self._room.waiting.add(peer)
            is_read = False
        peer.note_deadlines(self._context.now_ns, before, is_read=is_read)
        if session.is_finished and not peer.unsent_bytes:
            return False
        if session.has_more and peer.unsent_bytes < self._room.unsent_bound:
            await trio.lowlevel.checkpoint()
        else:
            await self._wait(peer, is_read=is_read)
        return True

    async def _wait(self, peer: Peer, *, is_read: bool) -> None:
        """Return when the client sent something, takes something, or is owed something."""
        async with trio.open_nursery() as nursery:

            async def wait_for(event: Callable[[], Awaitable[None]]) -> None:
                await event()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for, self._peers[peer].wait)
            if peer.unsent_bytes:
                nursery.start_soon(wait_for, partial(trio.lowlevel.wait_writable, peer.socket))
            if is_read:
                nursery.start_soon(wait_for, partial(self._read, peer))
        if self._peers[peer].is_set():
            self._peers[peer] = trio.Event()

    async def _read(self, peer: Peer) -> None:
        await trio.lowlevel.wait_readable(peer.socket)
        at_most = self._room.read_bytes(peer)
        if at_most:
            peer.read(at_most)
