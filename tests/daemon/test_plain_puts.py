"""Plain puts are stored and answered as every other way of asking is, or left to it."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.writer import MAX_WAITING
from autoloadd_daemon.writes import Flush
from autoloadd_protocol.errors import NOT_DURABLE, SHUTTING_DOWN
from autoloadd_protocol.framing import LENGTH_BYTES, encode_frame
from autoloadd_protocol.messages import Answer, decode_answer, encode_request
from autoloadd_protocol.requests import FIRST_ID, get_request, put_request

from .connected import Client
from .engine import Engine, Talk
from .harness import PRODUCER, RecordingFiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoloadd_protocol.record import Record

READ_ALREADY = select.EPOLLOUT
NAME = b"compinit"
BLOB = b"blob" * 700


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    client = Client(engine)
    yield client
    client.close()


def stored(engine: Engine, name: bytes = NAME) -> Record | None:
    shard = engine.catalog.find(PRODUCER.shard_id())
    return None if shard is None else shard.look_up(name)


def answer_in(frame: bytes) -> Answer:
    answer = decode_answer(frame[LENGTH_BYTES:])
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize("sync", ["memory", "write", "fsync"])
@pytest.mark.parametrize("mtime_ns", [None, 5])
@pytest.mark.parametrize("fingerprint", [None, b"print"])
def test_it_is_stored_and_answered_as_the_general_way_does(
    engine: Engine,
    client: Client,
    sync: str,
    mtime_ns: int | None,
    fingerprint: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    request = put_request(
        FIRST_ID, NAME, BLOB, binary_mtime_ns=mtime_ns, fingerprint=fingerprint, sync=sync
    )
    expected = answer_in(client.ask(request))
    record = stored(engine)
    engine.context.now_ns = 77
    client.socket.send(request)
    assert client.turn() == []
    engine.settle()
    answer = answer_in(client.socket.recv(1 << 16))
    assert (answer.id, answer.error) == (expected.id, expected.error)
    assert answer.result == expected.result + 1
    assert stored(engine) == record
    assert client.peer.last_active_ns == 77
    assert client.quiet == {client.descriptor: client.peer}
    assert client.session.is_quiet
    assert client.woken == 1, "by the general way"


@pytest.mark.parametrize(
    "request_",
    [
        put_request(FIRST_ID, b"n" * 32, BLOB),
        put_request(FIRST_ID, NAME, BLOB, sync="never"),
        put_request(FIRST_ID, NAME, BLOB) * 2,
        put_request(FIRST_ID, NAME, BLOB)[:-1],
        put_request(None, NAME, BLOB),
        encode_frame(encode_request(FIRST_ID, "put", ["name", b"blob"])),
    ],
)
def test_everything_else_is_run_the_general_way(
    engine: Engine, client: Client, request_: bytes
) -> None:
    client.socket.send(request_)
    assert client.turn() == [(client.descriptor, READ_ALREADY)]
    assert engine.writer.is_idle
    assert client.quiet, "until it is run"


def test_without_a_producer_it_is_refused_the_general_way(engine: Engine, client: Client) -> None:
    client.session.producer = None
    client.socket.send(put_request(FIRST_ID, NAME, BLOB))
    assert client.turn() == [(client.descriptor, READ_ALREADY)]
    assert engine.writer.is_idle


def test_where_too_many_writes_wait_it_waits_the_general_way(
    engine: Engine, client: Client
) -> None:
    for _ in range(MAX_WAITING):
        engine.writer.submit(Flush(PRODUCER, "fsync", lambda _outcome: None))
    client.socket.send(put_request(FIRST_ID, NAME, BLOB))
    assert client.turn() == [(client.descriptor, READ_ALREADY)]
    engine.settle()


def test_what_is_asked_meanwhile_waits_for_it(engine: Engine, client: Client) -> None:
    """A read sees the writes of its own connection, and is answered behind them."""
    client.socket.send(put_request(FIRST_ID, NAME, BLOB, sync="fsync"))
    assert client.turn() == []
    engine.writer.turn()
    client.socket.send(get_request(FIRST_ID + 1, NAME))
    assert client.quiet == {}
    assert client.turn() == [(client.descriptor, select.EPOLLIN)]
    client.peer.read()
    client.session.advance()
    assert client.session.is_stalled
    engine.settle()
    client.session.advance()
    answers = b"".join(client.session.take_output())
    end = LENGTH_BYTES + int.from_bytes(answers[:LENGTH_BYTES], "big")
    assert (answer_in(answers[:end]).id, answer_in(answers[:end]).result) == (FIRST_ID, 1)
    assert answer_in(answers[end:]).result[1] == BLOB
    assert client.woken == 1


def test_a_refusal_is_answered_the_general_way(
    engine: Engine, client: Client, files: RecordingFiles
) -> None:
    files.fail_next = "append"
    client.socket.send(put_request(FIRST_ID, NAME, BLOB))
    assert client.turn() == []
    engine.settle()
    assert client.woken == 1
    answer = answer_in(b"".join(client.session.take_output()))
    assert answer.id == FIRST_ID
    assert answer.error is not None
    assert answer.error[0] == NOT_DURABLE
    assert stored(engine) is None
    assert not client.session.is_owed


def test_a_daemon_that_stops_refuses_it_at_once(engine: Engine, client: Client) -> None:
    engine.writer.close()
    client.socket.send(put_request(FIRST_ID, NAME, BLOB))
    assert client.turn() == []
    error = answer_in(b"".join(client.session.take_output())).error
    assert error is not None
    assert error[0] == SHUTTING_DOWN


def test_an_answer_that_is_not_taken_is_owed(engine: Engine, client: Client) -> None:
    client.socket.send(put_request(FIRST_ID, NAME, BLOB))
    assert client.turn() == []
    filler = client.fill()
    engine.settle()
    assert client.woken == 1
    assert client.quiet == {}
    assert client.peer.unsent_bytes > 0
    expected = client.peer.unsent_bytes
    received = b""
    while len(received) < filler + expected:
        client.peer.send()
        received += client.socket.recv(1 << 20)
    assert answer_in(received[filler:]).result == 1


def test_an_answer_comes_behind_what_is_owed_already(engine: Engine, client: Client) -> None:
    client.socket.send(put_request(FIRST_ID, NAME, BLOB))
    assert client.turn() == []
    client.peer.unsent_bytes = 5
    engine.settle()
    assert client.woken == 1
    assert answer_in(b"".join(client.session.take_output())).result == 1


def test_nobody_is_told_who_is_gone(engine: Engine, client: Client) -> None:
    client.socket.send(put_request(FIRST_ID, NAME, BLOB, sync="fsync"))
    assert client.turn() == []
    engine.writer.turn()
    client.peer.close()
    engine.settle()
    assert client.woken == 0
    assert client.quiet == {}
    assert stored(engine) is not None


def test_puts_of_one_turn_are_one_batch(engine: Engine, files: RecordingFiles) -> None:
    Talk(engine).call("put", "first", b"")
    clients = [Client(engine) for _ in range(3)]
    files.log.clear()
    for number, client in enumerate(clients):
        client.socket.send(put_request(FIRST_ID, b"n%d" % number, BLOB, sync="fsync"))
        assert client.turn() == []
    engine.settle()
    assert files.operations(on="journal") == ["append journal.00000001", "sync journal.00000001"]
    assert [answer_in(each.socket.recv(1 << 16)).result for each in clients] == [2, 3, 4]
    for client in clients:
        client.close()
