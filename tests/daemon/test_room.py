"""Memory over all clients: who reads on, who waits, who is cut off."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.peers import Peer
from autoloadd_daemon.room import OWED_BYTES, READ_BYTES, RECEIVED_BYTES, Room
from autoloadd_protocol.limits import FRAME_BYTES, UNSENT_BYTES
from autoloadd_protocol.messages import encode_request

from .engine import Engine, Talk, framed
from .harness import PRODUCER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

S = 1_000_000_000
BEGUN = FRAME_BYTES.to_bytes(4, "big")


@pytest.fixture
def room(engine: Engine) -> Room:
    return engine.context.room


@pytest.fixture
def connect(engine: Engine) -> Iterator[Callable[[], Peer]]:
    """Return a new client's side in the daemon."""
    with ExitStack() as stack:

        def make() -> Peer:
            client, ours = socket.socketpair()
            stack.enter_context(client)
            stack.enter_context(ours)
            ours.setblocking(False)
            return Peer(ours, engine.context, lambda _peer: None)

        yield make


def hold(peer: Peer, room: Room, data: bytes) -> None:
    """Have a client send this."""
    peer.session.receive(data)
    peer.session.advance()
    room.note(peer)


def ping(size: int) -> bytes:
    """Return the bytes of a frame of this size that is no valid request; the last one is left."""
    return size.to_bytes(4, "big") + bytes(size - 1)


def test_where_there_is_room_everybody_is_read(room: Room, connect: Callable[[], Peer]) -> None:
    peer = connect()
    hold(peer, room, BEGUN + bytes(RECEIVED_BYTES - 5))
    assert room.received == RECEIVED_BYTES - 1
    assert room.read_bytes(peer) == READ_BYTES
    assert room.read_bytes(connect()) == READ_BYTES


def test_what_one_client_may_hold_shrinks_with_what_is_left(
    room: Room, connect: Callable[[], Peer]
) -> None:
    peers = [connect() for _ in range(200)]
    waiting = set()
    for _ in range(10):
        for peer in peers:
            size = room.read_bytes(peer)
            if size:
                hold(
                    peer, room, BEGUN + bytes(size - 4) if not peer.noted_received else bytes(size)
                )
            else:
                waiting.add(peer)
    assert RECEIVED_BYTES < room.received < 2 * RECEIVED_BYTES + len(peers) * 8192
    assert len(waiting) == 200
    # Someone new with a small request is read all the same.
    assert 4096 <= room.read_bytes(connect()) < READ_BYTES


def test_the_one_that_lacks_least_is_read_on_alone(room: Room, connect: Callable[[], Peer]) -> None:
    large, small = connect(), connect()
    hold(large, room, BEGUN + bytes(RECEIVED_BYTES))
    hold(small, room, ping(RECEIVED_BYTES)[:-READ_BYTES])
    for peer in (large, small):
        assert room.read_bytes(peer) == 0
        room.waiting.add(peer)
    assert room.next_readers() == [small]
    assert room.next_readers() == []
    assert room.read_bytes(small) == READ_BYTES
    assert room.read_bytes(large) == 0
    # Its frame is complete (and no message): the next one's turn.
    hold(small, room, bytes(READ_BYTES + 1))
    assert room.next_readers() == [large]


def test_a_request_that_waits_for_the_disk_keeps_its_room(
    engine: Engine, room: Room, connect: Callable[[], Peer]
) -> None:
    """Else one after another would be favoured, each with 8 MiB, while the disk stalls."""
    peer, other = connect(), connect()
    begin = framed(encode_request(1, "hello", [[1, 0], PRODUCER.as_map()]))
    begin += framed(encode_request(2, "put", ["a", b"1", None, None, "fsync"]))
    names = [f"{number:04}" + "n" * 1000 for number in range(RECEIVED_BYTES // 1000)]
    missing = framed(encode_request(3, "missing", [names]))
    hold(peer, room, begin + missing[:-1])
    hold(other, room, BEGUN + bytes(READ_BYTES))
    room.waiting |= {peer, other}
    assert room.next_readers() == [peer]
    hold(peer, room, missing[-1:])
    assert peer.session.is_stalled
    assert room.received >= len(missing)
    assert room.next_readers() == [], "its request is there, and waits for the write before it"
    engine.settle()
    while peer.session.is_stalled:
        hold(peer, room, b"")
    assert room.received == READ_BYTES + 4
    assert room.next_readers() == [other]


def test_who_goes_gives_its_room_back(room: Room, connect: Callable[[], Peer]) -> None:
    first, second = connect(), connect()
    hold(first, room, BEGUN + bytes(RECEIVED_BYTES))
    hold(second, room, BEGUN + bytes(RECEIVED_BYTES))
    room.waiting |= {first, second}
    (favoured,) = room.next_readers()
    (other,) = room.waiting
    room.forget(favoured)
    assert room.next_readers() == [other]
    room.forget(other)
    assert (room.received, room.owed, room.waiting) == (0, 0, set())
    room.forget(other)
    assert room.received == 0


def test_who_makes_no_progress_while_others_wait_is_an_offender(
    room: Room, connect: Callable[[], Peer]
) -> None:
    quiet, active, waits = connect(), connect(), connect()
    for peer in (quiet, active, waits):
        hold(peer, room, BEGUN + bytes(RECEIVED_BYTES))
        peer.waits_for_rest_since_ns = 10 * S
        peer.last_active_ns = 10 * S
    waits.waits_for_rest_since_ns = 0
    peers = [quiet, active, waits]
    active.last_active_ns = 10 * S + S // 2
    now = 10 * S + S // 2
    assert list(room.offenders(peers, now)) == [], "nobody waits"
    room.waiting.add(waits)
    assert list(room.offenders(peers, now)) == [quiet]
    active.last_active_ns = 11 * S + 1
    assert list(room.offenders([active, waits], 11 * S + 1)) == [active], "a byte now and then"


def test_answers_that_are_not_taken_leave_small_ones_their_room(
    engine: Engine, room: Room, connect: Callable[[], Peer]
) -> None:
    talk = Talk(engine)
    talk.call("put", "a", b"1")
    deaf = connect()
    deaf.session.output = [b"x" * (OWED_BYTES + (1 << 20))]
    deaf.session.output_bytes = OWED_BYTES + (1 << 20)
    assert room.unsent_bound == UNSENT_BYTES
    deaf.send()
    room.note(deaf)
    assert room.is_short_for_answers
    assert room.unsent_bound == 1
    assert talk.call("get", "a").result[1] == b"1"
    first = talk.send("names")
    second = talk.send("get", "a")
    talk.session.advance()
    assert talk.session.waits_for_room
    assert talk.session.is_held
    assert talk.answers() == [], "nor does what comes after it pass it"
    assert list(room.offenders([deaf], deaf.last_active_ns + S)) == [deaf]
    room.forget(deaf)
    assert [answer.id for answer in talk.run()] == [first, second]
    assert not talk.session.waits_for_room
