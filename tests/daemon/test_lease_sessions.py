"""Leases in the conversations of several clients: order, what ends one, what is left behind."""

from __future__ import annotations

import gc
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

from autoloadd_daemon.peers import Peer, longest_idle
from autoloadd_protocol.errors import BAD_REQUEST, NO_PRODUCER, NOT_DURABLE

from .engine import Engine, Talk
from .harness import PRODUCER, RecordingFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OTHER_PRODUCER = PRODUCER.as_map() | {"build": "other"}
WAIT = (None, None, 10_000)


def begin_to_wait(talk: Talk, name: str = "a", *params: object) -> int:
    """Have a client ask for a lease that another holds; return the request's id."""
    number = talk.send("lease", name, *(params or WAIT))
    talk.session.advance()
    assert talk.answers() == []
    return number


def held_and_waited_for(engine: Engine) -> tuple[Talk, Talk]:
    """Return a client that makes `a`, and one that waits for it."""
    holder, other = Talk(engine), Talk(engine)
    assert holder.call("lease", "a").result == "fill"
    begin_to_wait(other)
    assert counts(engine) == (1, 1)
    return holder, other


def counts(engine: Engine) -> tuple[int, int]:
    return engine.writer.leases.held, engine.writer.leases.waiting


def stored(answer: Any) -> bytes:
    """Return the blob of an entry that was answered."""
    name, blob, *_ = answer.result
    assert name == "a"
    return bytes(blob)


def put(talk: Talk) -> None:
    assert talk.call("put", "a", b"new").error is None


def put_durably(talk: Talk) -> None:
    assert talk.call("put", "a", b"new", None, None, "fsync").error is None


def put_among_many(talk: Talk) -> None:
    assert talk.call("put_many", {"b": [b""], "a": [b"new"], "c": [b""]}).error is None


def tell(talk: Talk) -> None:
    talk.notify("put", "a", b"new")
    assert talk.run() == []


def commit(mode: str) -> Callable[[Talk], None]:
    def store(talk: Talk) -> None:
        token = talk.call("bulk_begin", mode).result
        talk.call("bulk_add", token, {"a": [b"new"], "b": [b""]})
        assert counts(talk.engine) == (1, 1), "nothing is stored yet"
        assert talk.call("bulk_commit", token).error is None

    return store


STORES: dict[str, Callable[[Talk], None]] = {
    "put": put,
    "put and sync": put_durably,
    "put_many": put_among_many,
    "a notification": tell,
    "merge": commit("merge"),
    "replace": commit("replace"),
}


@pytest.mark.parametrize("way", STORES)
@pytest.mark.parametrize("by_holder", [True, False])
def test_whatever_stores_the_entry_answers_who_waits(
    engine: Engine, way: str, *, by_holder: bool
) -> None:
    holder, other = held_and_waited_for(engine)
    STORES[way](holder if by_holder else Talk(engine))
    assert other.woken == 1
    (answer,) = other.answers()
    assert stored(answer) == b"new"
    assert counts(engine) == (0, 0)


def test_who_waits_sees_the_entry_no_later_than_who_stored_it(engine: Engine) -> None:
    """And not before its sync, where it is to have one."""
    holder, other = held_and_waited_for(engine)
    holder.send("put", "a", b"new", None, None, "fsync")
    holder.session.advance()
    engine.writer.turn()
    assert other.answers() == []
    engine.settle()
    assert stored(other.answers()[0]) == b"new"
    assert len(holder.answers()) == 1


def test_what_stores_nothing_ends_nothing(engine: Engine) -> None:
    holder, other = held_and_waited_for(engine)
    third = Talk(engine)
    third.call("put", "b", b"")
    third.call("delete", ["a", "b"])
    third.call("clear")
    third.call("flush")
    third.call("put", "b", b"")
    assert third.call("drop_shard", third.session.shard_id).error is None
    assert counts(engine) == (1, 1)
    put(holder)
    assert stored(other.answers()[0]) == b"new"


@pytest.mark.parametrize("operation", ["append", "sync", "rename"])
def test_what_storage_refuses_is_not_waited_for(cache_dir: Path, operation: str) -> None:
    """Else each would make it in turn, in vain, while the others wait."""
    files = RecordingFiles()
    with Engine(cache_dir, files) as engine:
        holder, *others = [Talk(engine) for _ in range(4)]
        holder.call("put", "b", b"there")
        token = holder.call("bulk_begin", "merge").result
        holder.call("bulk_add", token, {"a": [b"new"], "d": [b""]})
        assert [holder.call("lease", name).result for name in ("a", "c")] == ["fill", "fill"]
        for talk in others:
            begin_to_wait(talk)
        files.fail_next = operation
        if operation == "rename":
            answer = holder.call("bulk_commit", token)
        else:
            answer = holder.call("put", "a", b"new", None, None, "fsync")
        assert answer.error is not None
        assert answer.error[0] == NOT_DURABLE
        assert [talk.answers()[0].result for talk in others] == [None] * 3
        assert counts(engine) == (1, 0), "that on the other name is as it was"
        assert others[0].call("lease", "a", *WAIT).result is None, "storage refuses writes"
        assert others[0].call("lease", "b", *WAIT).result[1] == b"there"
        assert engine.metrics.health.heal()
        assert others[0].call("lease", "a", *WAIT).result == "fill"


def test_a_put_that_is_refused_for_its_form_ends_nothing(engine: Engine) -> None:
    holder, other = held_and_waited_for(engine)
    for params in (("a",), ("a", "text"), ("a", b"", "now"), ("a", bytes((4 << 20) + 1))):
        assert holder.call("put", *params).error is not None
    assert counts(engine) == (1, 1)
    holder.session.abandon()
    assert other.answers()[0].result == "fill"


def test_a_put_of_another_producer_ends_nothing(engine: Engine) -> None:
    """A lease is of the producer that its connection had, whatever it says later."""
    holder, other = held_and_waited_for(engine)
    assert holder.call("hello", [1, 0], OTHER_PRODUCER).error is None
    put(holder)
    assert holder.call("unlease", "a").result is None
    assert counts(engine) == (1, 1)
    assert holder.call("hello", [1, 0], PRODUCER.as_map()).error is None
    assert holder.call("unlease", "a").result is None
    assert other.answers()[0].result == "fill"


def test_what_comes_behind_a_wait_is_run_after_it(engine: Engine) -> None:
    holder, other = held_and_waited_for(engine)
    other.send("put", "b", b"behind")
    other.send("get", "a")
    other.notify("put", "c", b"behind")
    other.send("no_such_method")
    other.session.receive(b"\0\0\0\x01\xc0")
    assert other.session.is_owed
    for _ in range(3):
        other.session.advance()
        engine.settle()
    assert other.answers() == []
    assert holder.call("get", "b").result is None
    assert not other.session.has_more
    assert not other.session.is_held
    put(holder)
    first, *rest = other.run()
    assert stored(first) == b"new"
    assert [answer.error and answer.error[0] for answer in rest] == [
        None,
        None,
        "unknown_method",
        BAD_REQUEST,
    ]
    assert rest[1].result[1] == b"new"
    assert holder.call("get", "c").result[1] == b"behind"


def test_a_lease_sees_the_writes_before_it(engine: Engine) -> None:
    talk = Talk(engine)
    talk.send("put", "a", b"new", None, None, "fsync")
    talk.send("lease", "a", *WAIT)
    talk.send("lease", "b", *WAIT)
    talk.send("lease", "b", *WAIT)
    talk.send("put", "b", b"made")
    talk.send("lease", "b", *WAIT)
    answers = talk.run()
    assert stored(answers[1]) == b"new"
    assert [answers[2].result, answers[3].result] == ["fill", "fill"]
    assert answers[5].result[1] == b"made"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((5, b"print"), b"new"),
        ((4, None), b"new"),
        ((None, b"print"), b"new"),
        ((6, b"print"), "fill"),
        ((5, b"other"), "fill"),
    ],
)
def test_freshness_is_that_of_a_get(
    engine: Engine, wanted: tuple[int | None, bytes | None], expected: bytes | str
) -> None:
    holder, other = Talk(engine), Talk(engine)
    assert holder.call("lease", "a").result == "fill"
    begin_to_wait(other, "a", *wanted, 10_000)
    holder.call("put", "a", b"new", 5, b"print")
    (answer,) = other.answers()
    assert (answer.result if expected == "fill" else stored(answer)) == expected
    get = holder.call("get", "a", *wanted)
    assert (get.result is None) == (expected == "fill")


def test_the_old_entry_is_what_get_would_have_answered(engine: Engine) -> None:
    holder, other = Talk(engine), Talk(engine)
    blob = b"x" * 100_000
    holder.call("put", "a", blob, 5, b"old")
    entry = holder.call("get", "a").result
    wanted = ("a", None, b"new", 10_000, None, True)
    assert holder.call("lease", *wanted).result == "fill"
    assert other.call("lease", *wanted).result == entry
    assert other.call("lease", *wanted[:3], 0, None, False).result is None


def test_a_wait_and_a_lease_end_in_time(engine: Engine) -> None:
    began = time.monotonic_ns()
    holder, other = Talk(engine), Talk(engine)
    holder.send("lease", "a", None, None, None, 120_000)
    assert holder.run()[0].result == "fill"
    begin_to_wait(other, "a", None, None, 50)
    leases = engine.writer.leases
    asked = time.monotonic_ns()
    assert not leases.expire(began + 50_000_000 - 1)
    assert leases.expire(asked + 50_000_000)
    assert other.answers()[0].result is None
    assert other.woken == 1
    assert not leases.expire(began + 120_000_000_000 - 1)
    assert leases.expire(asked + 120_000_000_000)
    assert counts(engine) == (0, 0)


def test_the_usual_hold_is_half_a_minute(engine: Engine) -> None:
    began = time.monotonic_ns()
    assert Talk(engine).call("lease", "a").result == "fill"
    asked = time.monotonic_ns()
    assert not engine.writer.leases.expire(began + 30_000_000_000 - 1)
    assert engine.writer.leases.expire(asked + 30_000_000_000)


def test_a_wait_of_nothing_is_none(engine: Engine) -> None:
    _, other = held_and_waited_for(engine)
    third = Talk(engine)
    for params in ((), (None, None, 0), (None, None, None, 5)):
        assert third.call("lease", "a", *params).result is None
    assert counts(engine) == (1, 1)
    other.session.abandon()


def test_a_connection_that_ends_gives_back(engine: Engine) -> None:
    holder, other = held_and_waited_for(engine)
    holder.session.end_input()
    holder.session.advance()
    assert holder.session.is_finished
    holder.session.abandon()
    assert other.answers()[0].result == "fill"
    assert counts(engine) == (1, 0)
    other.session.abandon()
    assert counts(engine) == (0, 0)


def test_who_ended_its_input_is_answered_all_the_same(engine: Engine) -> None:
    holder, other = held_and_waited_for(engine)
    other.session.end_input()
    other.session.advance()
    assert not other.session.is_finished
    put(holder)
    assert stored(other.answers()[0]) == b"new"
    other.session.advance()
    assert other.session.is_finished


def test_nothing_is_read_of_whoever_waits(engine: Engine) -> None:
    """What it sends meanwhile takes no room: it might wait for long."""
    holder, other = held_and_waited_for(engine)
    assert not other.session.wants_bytes
    other.session.receive(b"\0\x40\0\0" + bytes(100))
    other.session.advance()
    assert not other.session.wants_bytes
    assert not other.session.wants_rest
    put(holder)
    other.session.advance()
    assert other.session.wants_bytes
    assert other.session.wants_rest


@pytest.mark.parametrize(("size", "waits"), [(4096, True), (4097, False)])
def test_with_much_behind_it_nobody_waits(engine: Engine, size: int, *, waits: bool) -> None:
    holder = Talk(engine)
    other = Talk(engine)
    assert holder.call("lease", "a").result == "fill"
    other.send("lease", "a", *WAIT)
    other.session.receive((size * 2).to_bytes(4, "big") + bytes(size - 4))
    other.session.advance()
    assert counts(engine) == (1, int(waits))
    answers = other.answers()
    assert [answer.result for answer in answers] == ([] if waits else [None])


def test_a_request_behind_a_wait_is_not_what_room_waits_for(engine: Engine) -> None:
    _, other = held_and_waited_for(engine)
    other.send("get", "b")
    other.session.advance()
    assert not other.session.is_stalled
    assert not other.session.wants_rest
    assert other.session.held_bytes > 0


def test_who_makes_what_others_wait_for_is_not_idle(engine: Engine) -> None:
    holder, other = held_and_waited_for(engine)
    with ExitStack() as stack:
        peers = []
        for number, talk in enumerate((holder, other, Talk(engine))):
            ours, theirs = map(stack.enter_context, socket.socketpair())
            peer = Peer(ours, engine.context, lambda _peer: None)
            peer.session, peer.last_active_ns = talk.session, number
            peers.append(peer)
            assert theirs.fileno() >= 0
        assert longest_idle(peers) is peers[2]
        put(holder)
        assert longest_idle(peers) is peers[0]


@pytest.mark.parametrize("method", ["lease", "unlease"])
def test_what_is_refused(engine: Engine, method: str) -> None:
    talk = Talk(engine)
    answer = Talk(engine, is_silent=True).call(method, "a")
    assert answer.error is not None
    assert answer.error[0] == NO_PRODUCER
    talk.notify(method, "a")
    assert talk.run() == []
    assert talk.session.refused == 1
    assert counts(engine) == (0, 0)


def test_status_tells_of_them(engine: Engine) -> None:
    _, other = held_and_waited_for(engine)
    third = Talk(engine)
    told = third.call("status").result["leases"]
    assert told == {"held": 1, "waiting": 1, "given": 1, "expired": 0}
    assert engine.writer.leases.expire(time.monotonic_ns() + 60_000_000_000)
    other.answers()
    told = third.call("status").result["leases"]
    assert told == {"held": 0, "waiting": 0, "given": 1, "expired": 1}


def test_a_daemon_that_stops_answers_who_waits(engine: Engine) -> None:
    _, other = held_and_waited_for(engine)
    engine.writer.leases.close()
    assert other.answers()[0].result is None
    assert Talk(engine).call("lease", "b", *WAIT).result is None


def test_nothing_of_a_client_that_waited_stays(engine: Engine) -> None:
    """Not even until the garbage collector comes: a client may hold 4 KiB and a socket."""
    holder = Talk(engine)
    assert holder.call("lease", "a").result == "fill"
    gc.collect()
    gc.disable()
    try:
        for ends_by_put in (False, True):
            other = Talk(engine)
            session = ref(other.session)
            begin_to_wait(other)
            if ends_by_put:
                put(holder)
                assert stored(other.run()[0]) == b"new"
            other.session.abandon()
            del other
            assert session() is None
    finally:
        gc.enable()
