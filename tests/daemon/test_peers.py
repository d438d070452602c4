"""A client's socket: short sends, clients that are gone, deadlines."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.peers import Peer, is_our_user
from autoloadd_daemon.room import READ_BYTES
from autoloadd_protocol.limits import FRAME_SECONDS, UNSENT_PROGRESS_BYTES, UNSENT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .engine import Engine

S = 1_000_000_000


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end and ours, which never blocks."""
    client, ours = socket.socketpair()
    client.settimeout(20)
    ours.setblocking(False)
    yield client, ours
    client.close()
    ours.close()


@pytest.fixture
def client(sockets: tuple[socket.socket, socket.socket]) -> socket.socket:
    return sockets[0]


@pytest.fixture
def peer(engine: Engine, sockets: tuple[socket.socket, socket.socket]) -> Peer:
    return Peer(sockets[1], engine.context, lambda _peer: None)


def owe(peer: Peer, *parts: bytes | memoryview) -> None:
    """Put answers into the session's output."""
    peer.session.output += parts
    peer.session.output_bytes += sum(map(len, parts))


def take(peer: Peer, client: socket.socket, size: int) -> None:
    """Have the client take at least so many bytes of what it is owed."""
    end = peer.unsent_bytes - size
    while peer.unsent_bytes > end:
        client.recv(8_192)
        peer.send()


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


@pytest.mark.parametrize("count", [1, 3, 200])
@pytest.mark.parametrize("size", [1, 5_000, 100_000])
def test_a_slow_client_gets_everything_in_order(
    count: int, size: int, peer: Peer, client: socket.socket
) -> None:
    parts = [bytes([number % 256]) * (size + number) for number in range(count)]
    wanted = b"".join(parts)
    owe(peer, *parts)
    peer.send()
    received = b""
    while len(received) < len(wanted):
        assert peer.unsent_bytes <= len(wanted) - len(received)
        received += client.recv(70_001)
        peer.send()
    assert received == wanted
    assert peer.unsent_bytes == 0
    peer.send()


def test_new_answers_follow_what_is_unsent(peer: Peer, client: socket.socket) -> None:
    owe(peer, b"a" * 1_000_000)
    peer.send()
    assert peer.unsent_bytes > 0
    owe(peer, b"b" * 10)
    peer.send()
    received = b""
    while peer.unsent_bytes:
        received += client.recv(1 << 20)
        peer.send()
    received += receive(client, 1_000_010 - len(received))
    assert received == b"a" * 1_000_000 + b"b" * 10


def test_nothing_is_read_where_nothing_came(peer: Peer) -> None:
    assert peer.read()
    assert not peer.session.input_ended


def test_a_read_has_a_bound(peer: Peer, client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_BYTES)
    client.setblocking(False)
    sent = client.send(b"\0\x10\0\0" + bytes(2 * READ_BYTES))
    assert peer.read()
    assert peer.session._connection.buffered_bytes == min(sent, READ_BYTES)


def test_the_end_of_input_is_noted(peer: Peer, client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    assert not peer.read()
    assert peer.session.input_ended
    assert not peer.is_mute


def test_a_client_that_is_gone_is_owed_nothing(peer: Peer, client: socket.socket) -> None:
    client.close()
    owe(peer, b"x" * 100)
    peer.send()
    assert peer.is_mute
    assert peer.unsent_bytes == 0
    owe(peer, b"y")
    peer.send()
    assert peer.unsent_bytes == 0


def test_a_reset_is_an_end_of_input(peer: Peer, client: socket.socket) -> None:
    # What the client leaves unread makes its close a reset.
    owe(peer, b"unread")
    peer.send()
    client.close()
    assert not peer.read()
    assert peer.session.input_ended
    assert peer.is_mute


def test_a_begun_frame_has_a_deadline(peer: Peer) -> None:
    peer.note_deadlines(S, 0)
    assert not peer.is_overdue(10**6 * S)
    peer.session.receive(b"\0\0")
    peer.session.advance()
    peer.note_deadlines(S, 0)
    end = S + int(FRAME_SECONDS * S)
    peer.note_deadlines(S + 1, 0)
    assert not peer.is_overdue(end)
    assert peer.is_overdue(end + 1)


def test_each_frame_has_the_whole_time(peer: Peer) -> None:
    ping = b"\0\0\0\x09\x94\0\xce\0\0\0\1\xa4ping\x90"
    ping = (len(ping) - 4).to_bytes(4, "big") + ping[4:]
    peer.session.receive(ping[:-1])
    peer.session.advance()
    peer.note_deadlines(S, 0)
    peer.session.receive(ping[-1:] + ping[:3])
    peer.session.advance()
    peer.note_deadlines(3 * S, 0)
    assert not peer.is_overdue(4 * S)
    assert peer.is_overdue(5 * S + 1)


def test_a_client_that_takes_nothing_has_a_deadline(peer: Peer, client: socket.socket) -> None:
    owe(peer, b"x" * 3_000_000)
    peer.send()
    before = peer.unsent_bytes
    peer.note_deadlines(S, before)
    end = S + int(UNSENT_SECONDS * S)
    assert not peer.is_overdue(end)
    assert peer.is_overdue(end + 1)
    take(peer, client, UNSENT_PROGRESS_BYTES)
    peer.note_deadlines(end, before)
    assert not peer.is_overdue(end + S), "it took some: the time begins again"
    while peer.unsent_bytes:
        client.recv(1_000_000)
        peer.send()
    peer.note_deadlines(end, before)
    assert not peer.is_overdue(10**6 * S)


def test_a_byte_now_and_then_puts_no_end_off(peer: Peer, client: socket.socket) -> None:
    owe(peer, b"x" * 3_000_000)
    peer.send()
    peer.note_deadlines(S, peer.unsent_bytes)
    for second in range(2, 12):
        before = peer.unsent_bytes
        take(peer, client, UNSENT_PROGRESS_BYTES // 20)
        peer.note_deadlines(second * S, before)
        assert not peer.is_overdue(second * S)
    assert peer.is_overdue(12 * S)


def test_small_answers_that_wait_take_little_more_than_their_bytes(
    peer: Peer, client: socket.socket
) -> None:
    owe(peer, b"x" * 3_000_000)
    peer.send()
    view = memoryview(b"v" * 5_000)
    for _ in range(10):
        owe(peer, *[b"%013d" % number for number in range(500)], view)
        peer.send()
    assert len(peer._unsent) <= 1 + 10 * 2
    received = b""
    while peer.unsent_bytes:
        received += client.recv(1_000_000)
        peer.send()
    client.setblocking(False)
    received += client.recv(1_000_000)
    small = b"".join(b"%013d" % number for number in range(500))
    assert received == b"x" * 3_000_000 + (small + bytes(view)) * 10


def test_copies_that_are_not_taken_are_counted_and_views_are_not(
    peer: Peer, client: socket.socket
) -> None:
    owe(peer, b"x" * 1_000_000)
    peer.send()
    assert peer.copied_bytes == peer.unsent_bytes > 0
    owe(peer, b"y" * 10)
    peer.session.output.append(memoryview(b"z" * 5_000))
    peer.session.output_bytes += 5_000
    peer.send()
    assert peer.copied_bytes == peer.unsent_bytes - 5_000
    while peer.unsent_bytes:
        client.recv(1_000_000)
        peer.send()
    assert peer.copied_bytes == 0


def test_a_close_gives_the_bulk_up(peer: Peer, client: socket.socket) -> None:
    peer.close()
    assert peer.session.is_closing
    assert client.recv(10) == b""


def test_we_are_our_own_user(sockets: tuple[socket.socket, socket.socket]) -> None:
    assert is_our_user(sockets[0])
