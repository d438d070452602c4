"""Plain gets are answered as every other way of asking is, or left to it with nothing changed."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import encode_request
from autoloadd_protocol.requests import FIRST_ID, get_request

from .connected import READABLE, Client
from .engine import Engine, Talk
from .harness import PRODUCER

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_ALREADY = select.EPOLLOUT
NAME = b"compinit"


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    client = Client(engine)
    Talk(engine).call("put", NAME.decode(), b"blob" * 100, 5)
    yield client
    client.close()


@pytest.mark.parametrize("place", ["change", "image"])
@pytest.mark.parametrize("mtime_ns", [None, 0, 5])
def test_the_answer_is_that_of_the_general_way(
    engine: Engine, client: Client, place: str, mtime_ns: int | None
) -> None:
    shard = engine.catalog.find(PRODUCER.shard_id())
    assert shard is not None
    if place == "image":
        engine.build(shard)
    request = get_request(FIRST_ID, NAME, binary_mtime_ns=mtime_ns)
    expected = client.ask(request)
    engine.context.now_ns = 77
    client.socket.send(request)
    assert client.turn() == []
    assert client.socket.recv(1 << 16) == expected
    assert (shard.hits, shard.misses) == (2, 0)
    assert shard.last_used_ns == client.peer.last_active_ns == 77


@pytest.mark.parametrize(
    "request_",
    [
        get_request(FIRST_ID, b"another"),
        get_request(FIRST_ID, NAME, binary_mtime_ns=6),
        get_request(FIRST_ID, NAME, fingerprint=b"f"),
        get_request(FIRST_ID, b"\xff"),
        get_request(FIRST_ID, NAME) * 2,
        get_request(FIRST_ID, NAME)[:-1],
        encode_frame(encode_request(FIRST_ID, "count", [])),
        b"\0\0\0\0",
    ],
)
def test_everything_else_is_run_the_general_way(
    engine: Engine, client: Client, request_: bytes
) -> None:
    shard = engine.catalog.find(PRODUCER.shard_id())
    assert shard is not None
    client.socket.send(request_)
    assert client.turn() == [(client.descriptor, READ_ALREADY)]
    assert shard.hits == 0
    other = Client(engine)
    client.session.advance()
    assert b"".join(client.session.take_output()) == other.ask(request_)
    other.close()


def test_a_large_entry_goes_the_general_way(engine: Engine, client: Client) -> None:
    """Many of them at once would take as much memory again."""
    Talk(engine).call("put", "large", bytes(20_000))
    client.socket.send(get_request(FIRST_ID, b"large"))
    assert client.turn() == [(client.descriptor, READ_ALREADY)]


def test_without_a_producer_or_a_shard_it_goes_the_general_way(engine: Engine) -> None:
    client = Client(engine)
    for shard_id in (client.session.shard_id, None):
        client.session.shard_id = shard_id
        client.socket.send(get_request(FIRST_ID, NAME))
        assert client.turn() == [(client.descriptor, READ_ALREADY)]
    client.close()


@pytest.mark.parametrize("event", [select.EPOLLOUT, select.EPOLLIN | select.EPOLLHUP])
def test_other_events_are_left(client: Client, event: int) -> None:
    client.socket.send(get_request(FIRST_ID, NAME))
    assert client.turn(event) == [(client.descriptor, event)]
    assert client.plain_requests.answer([(-1, READABLE)]) == [(-1, READABLE)]


def test_an_end_of_input_is_left(client: Client) -> None:
    client.socket.shutdown(socket.SHUT_WR)
    assert client.turn() == [(client.descriptor, READABLE)]


def test_a_read_that_fails_is_left(client: Client) -> None:
    assert client.turn() == [(client.descriptor, READABLE)]


def test_what_a_client_does_not_take_is_owed(client: Client) -> None:
    request = get_request(FIRST_ID, NAME)
    expected = client.ask(request)
    filler = client.fill()
    client.socket.send(request)
    assert client.turn() == [(client.descriptor, READ_ALREADY)]
    assert client.peer.unsent_bytes == client.peer.copied_bytes == len(expected)
    received = b""
    while len(received) < filler + len(expected):
        client.peer.send()
        received += client.socket.recv(1 << 20)
    assert received[filler:] == expected
    assert client.peer.unsent_bytes == 0


def test_a_client_that_is_gone_is_mute(client: Client) -> None:
    client.socket.send(get_request(FIRST_ID, NAME))
    client.socket.close()
    assert client.turn() == [(client.descriptor, READ_ALREADY)]
    assert client.peer.is_mute
