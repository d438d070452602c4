"""One client's conversation: order, refusals, fairness, and the end."""

from __future__ import annotations

import gc
import logging
import resource
import sys
from typing import TYPE_CHECKING
from weakref import ref

import pytest

from autoloadd_daemon.session import Session
from autoloadd_protocol.errors import (
    BAD_FRAME,
    BAD_REQUEST,
    BUSY,
    INTERNAL,
    NO_PRODUCER,
    NOT_DURABLE,
    SHUTTING_DOWN,
    TOO_LARGE,
    UNKNOWN_METHOD,
)
from autoloadd_protocol.limits import BULKS, FRAME_BYTES
from autoloadd_protocol.messages import encode_request

from .engine import Engine, Talk, framed
from .harness import PRODUCER, RecordingFiles, no_descriptor_left

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def talk(engine: Engine) -> Talk:
    return Talk(engine)


def code_of(answer: object) -> str:
    error = answer.error  # type: ignore[attr-defined]
    assert error is not None
    code: str = error[0]
    return code


def test_a_read_sees_the_writes_before_it(talk: Talk) -> None:
    put = talk.send("put", "a", b"one", None, None, "fsync")
    get = talk.send("get", "a")
    again = talk.send("put", "a", b"two")
    last = talk.send("get", "a")
    talk.session.advance()
    talk.engine.writer.turn()
    assert talk.session.is_owed
    talk.session.advance()
    assert talk.answers() == [], "the sync is under way: nothing is answered out of order"
    answers = talk.run()
    assert [answer.id for answer in answers] == [put, get, again, last]
    assert [answers[1].result[1], answers[3].result[1]] == [b"one", b"two"]
    assert [answers[0].result, answers[2].result] == [1, 2]
    assert talk.woken == 2


def test_writes_that_follow_one_another_are_one_batch(talk: Talk) -> None:
    for number in range(10):
        talk.send("put", f"n{number}", b"x", None, None, "fsync")
    talk.session.advance()
    while talk.session.has_more:
        # A machine that is slow today used the turn's share up.
        talk.session.advance()
    answers = talk.run()
    assert [answer.result for answer in answers] == list(range(1, 11))
    assert talk.engine.metrics.counters["syncs"] == 1


def test_every_split_of_the_wire_is_the_same_conversation(engine: Engine) -> None:
    wire = b"".join(
        framed(encode_request(number, *request))
        for number, request in enumerate(
            [
                ("hello", ([1, 0], PRODUCER.as_map())),
                ("put", ("a", b"blob", 5, b"print")),
                ("get", ("a", 5, b"print")),
            ],
            1,
        )
    )
    for split in range(len(wire) + 1):
        talk = Talk(engine, is_silent=True)
        talk.session.receive(wire[:split])
        answers = talk.run()
        talk.session.receive(wire[split:])
        answers += talk.run()
        assert [answer.id for answer in answers] == [1, 2, 3]
        assert answers[2].result[:4] == ("a", b"blob", b"print", 5)
        assert not talk.session.wants_rest


@pytest.mark.parametrize("method", ["get", "put", "count", "names", "bulk_begin", "flush"])
def test_data_needs_a_producer(method: str, engine: Engine) -> None:
    params: dict[str, list[object]] = {"get": ["a"], "put": ["a", b""], "bulk_begin": ["merge"]}
    talk = Talk(engine, is_silent=True)
    assert code_of(talk.call(method, *params.get(method, []))) == NO_PRODUCER


def test_a_hello_that_fails_leaves_no_producer(talk: Talk) -> None:
    assert code_of(talk.call("hello", [1, 0], {"name": ""})) == BAD_REQUEST
    assert code_of(talk.call("count")) == NO_PRODUCER


@pytest.mark.parametrize(
    "params",
    [
        b"\x92\x92\x01\x00\x84\xa4name\xa1\xff",  # a name that is not UTF-8
        b"\x92\x92\x01\x00\x82\xa4name\xa1z\xa4name\xa1z",  # a key twice
        b"\x80",  # params that are no array
        b"\x91\xdd\x00\x01\x00\x01" + b"\x01" * 65_537,  # more than any request names
    ],
)
def test_a_hello_that_cannot_be_read_leaves_no_producer(talk: Talk, params: bytes) -> None:
    """What follows it in the same write must not go to the producer before it."""
    talk.call("put", "a", b"1")
    talk.session.receive(framed(b"\x94\x00\x63\xa5hello" + params))
    talk.send("get", "a")
    refused, get = talk.run()
    assert refused.id == 0x63
    assert code_of(refused) in (BAD_REQUEST, TOO_LARGE)
    assert code_of(get) == NO_PRODUCER


def test_other_messages_that_cannot_be_read_leave_the_producer(talk: Talk) -> None:
    talk.call("put", "a", b"1")
    for method in (b"\xa3get", b"\xa5hell\xff"):
        talk.session.receive(framed(b"\x94\x00\x63" + method + b"\x91\xa1\xff"))
        talk.send("get", "a")
        refused, get = talk.run()
        assert code_of(refused) == BAD_REQUEST
        assert get.result[1] == b"1"


def test_what_is_no_method_is_refused(talk: Talk) -> None:
    assert code_of(talk.call("no_such_method")) == UNKNOWN_METHOD
    assert talk.call("ping").result == "pong"


def test_refused_notifications_are_counted_and_reported_once(talk: Talk) -> None:
    talk.notify("put", "a", b"x")
    talk.notify("put", "", b"x")
    talk.notify("ping")
    talk.notify("no_such_method")
    assert talk.run() == []
    assert talk.session.refused == 3
    generation, refused, first = talk.call("flush").result
    assert (generation, refused) == (1, 3)
    assert first.startswith(f"{BAD_REQUEST}: ")
    assert talk.call("flush").result == (1, 0, None)


def test_a_flush_that_fails_forgets_no_refusal(cache_dir: Path) -> None:
    files = RecordingFiles()
    with Engine(cache_dir, files) as engine:
        talk = Talk(engine)
        talk.notify("put", "a")
        talk.call("put", "a", b"blob")
        files.fail_next = "sync"
        assert code_of(talk.call("flush")) == NOT_DURABLE
        assert talk.session.refused == 1
        assert "expected" in str(talk.session.first_error)


def test_a_bad_frame_is_answered_once_and_ends_it(talk: Talk) -> None:
    first = talk.send("put", "a", b"x", None, None, "fsync")
    talk.session.receive((FRAME_BYTES + 1).to_bytes(4, "big"))
    talk.send("ping")
    answers = talk.run()
    assert [answer.id for answer in answers] == [first, None], "in order, behind the write"
    assert code_of(answers[1]) == BAD_FRAME
    assert talk.session.is_closing
    assert talk.session.is_finished
    talk.send("ping")
    assert talk.run() == []


def test_what_came_whole_is_run_after_the_end_of_input(talk: Talk) -> None:
    talk.send("put", "a", b"x")
    talk.session.receive(b"\0\0\0\x20half of a")
    talk.session.end_input()
    assert not talk.session.wants_bytes
    (answer,) = talk.run()
    assert answer.result == 1
    assert talk.session.is_finished


def test_a_turn_has_a_share(talk: Talk) -> None:
    # A thousand of them take longer than a turn on any machine.
    for _ in range(20_000):
        talk.send("ping")
    talk.session.advance()
    assert talk.session.has_more
    assert 0 < len(talk.answers()) < 20_000
    talk.run()
    assert not talk.session.has_more


def test_nothing_is_run_while_a_turns_output_waits(talk: Talk) -> None:
    talk.call("put", "a", b"x" * 900_000)
    for _ in range(40):
        talk.send("get", "a")
    for _ in range(30):
        talk.session.advance()
    assert talk.session.output_bytes < 2_000_000
    assert talk.session.has_more
    taken = len(talk.answers())
    assert taken + len(talk.run()) == 40


def test_a_heap_of_requests_is_not_read_on(talk: Talk) -> None:
    assert talk.session.wants_bytes
    talk.send("put", "a", b"x" * 300_000, None, None, "fsync")
    talk.send("put", "a", b"x" * 300_000, None, None, "fsync")
    assert talk.session.wants_rest
    talk.send("get", "a")
    talk.session.advance()
    talk.send("put", "a", b"x" * 300_000)
    assert not talk.session.wants_bytes
    assert len(talk.run()) == 4
    assert talk.session.wants_bytes


def test_a_bug_in_one_request_ends_nothing(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> int:
        raise ZeroDivisionError("planted")

    engine.context.connections = broken
    talk = Talk(engine)
    answer = talk.call("status")
    assert code_of(answer) == INTERNAL
    assert "planted" in caplog.text
    assert str(answer.id) in caplog.text
    assert talk.call("ping").result == "pong"


def test_without_memory_no_request_is_answered(engine: Engine) -> None:
    def exhausted() -> int:
        raise MemoryError

    engine.context.connections = exhausted
    talk = Talk(engine)
    talk.send("status")
    with pytest.raises(MemoryError):
        talk.session.advance()
    assert talk.answers() == []


def test_status_is_told_without_a_descriptor(talk: Talk) -> None:
    """The memory that it says is the peak then."""
    unit = 1 if sys.platform == "darwin" else 1024
    least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    with no_descriptor_left():
        status = talk.call("status").result
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert least <= status["memory_bytes"] <= most


# Bulks


def test_a_bulk_is_visible_at_its_commit(talk: Talk) -> None:
    token = talk.call("bulk_begin", "replace", 7).result
    assert talk.call("bulk_add", token, {"a": [b"1"], "b": [b"2"]}).result == 2
    assert talk.call("count").result == 0
    assert talk.engine.catalog.staged_bytes > 0
    assert talk.call("bulk_commit", token).result == 1
    assert talk.engine.catalog.staged_bytes == 0
    assert talk.call("get", "a", 7).result[1] == b"1"
    assert code_of(talk.call("bulk_add", token, {"c": [b""]})) == BAD_REQUEST


def test_a_bulk_ends_with_its_connection(talk: Talk, cache_dir: Path) -> None:
    token = talk.call("bulk_begin", "merge").result
    talk.call("bulk_add", token, {"a": [b"1"]})
    talk.session.abandon()
    talk.session.abandon()
    assert talk.engine.catalog.staged_bytes == 0
    assert list(cache_dir.iterdir()) == []
    assert len(talk.engine.catalog) == 0
    assert all(Talk(talk.engine).call("bulk_begin", "merge").error is None for _ in range(BULKS))


def test_an_aborted_bulk_leaves_nothing(talk: Talk) -> None:
    token = talk.call("bulk_begin", "merge").result
    assert talk.call("bulk_abort", token).result is None
    assert code_of(talk.call("bulk_commit", token)) == BAD_REQUEST


def test_bulks_are_bounded(engine: Engine) -> None:
    talks = [Talk(engine) for _ in range(BULKS + 1)]
    tokens = [talk.call("bulk_begin", "merge").result for talk in talks[:BULKS]]
    assert len(set(tokens)) == BULKS
    assert code_of(talks[0].call("bulk_begin", "merge")) == BUSY
    assert code_of(talks[BULKS].call("bulk_begin", "merge")) == BUSY
    assert code_of(talks[1].call("bulk_commit", tokens[0])) == BAD_REQUEST, "it is another's"
    talks[0].call("bulk_abort", tokens[0])
    assert talks[BULKS].call("bulk_begin", "merge").error is None
    for talk in talks:
        talk.session.abandon()


@pytest.mark.parametrize("operation", ["create", "append", "rename"])
def test_a_bulk_that_cannot_be_stored_is_refused(operation: str, cache_dir: Path) -> None:
    files = RecordingFiles()
    with Engine(cache_dir, files) as engine:
        talk = Talk(engine)
        files.fail_next = operation if operation == "create" else ""
        begun = talk.call("bulk_begin", "merge")
        if operation == "create":
            assert code_of(begun) == NOT_DURABLE
        else:
            files.fail_next = operation if operation == "append" else ""
            added = talk.call("bulk_add", begun.result, {"a": [b"1"]})
            if operation == "append":
                assert code_of(added) == NOT_DURABLE
            else:
                files.fail_next = operation
                assert code_of(talk.call("bulk_commit", begun.result)) == NOT_DURABLE
        assert engine.catalog.staged_bytes == 0
        assert talk.call("count").result == 0
        assert len(engine.catalog) == 0
        assert engine.metrics.health.is_degraded
        assert list(cache_dir.iterdir()) == []


# The end


def test_a_daemon_that_stops_refuses_writes_and_answers_reads(talk: Talk) -> None:
    talk.call("put", "a", b"x")
    talk.engine.writer.close()
    assert code_of(talk.call("put", "b", b"x")) == SHUTTING_DOWN
    assert talk.call("get", "a").result[1] == b"x"


def test_a_shutdown_is_answered_when_everything_is_done(talk: Talk) -> None:
    number = talk.send("shutdown")
    assert talk.run() == []
    (stop,) = talk.engine.stops
    stop(None)
    (answer,) = talk.answers()
    assert (answer.id, answer.error, answer.result) == (number, None, None)


def test_a_session_without_input_is_owed_nothing(engine: Engine) -> None:
    session = Session(engine.context, lambda: None)
    session.advance()
    assert session.take_output() == []
    assert not session.is_finished
    assert logging.getLogger("autoloadd_daemon.session").name


@pytest.mark.parametrize(
    "payload",
    [b"\xc6\0\0\0\1x", b"\x94\0\1\xa3get\xc1", b"\x94\0\1\xa3get\x90", b"\x93\0\1\xa3get"],
)
def test_nothing_of_a_refused_request_stays(engine: Engine, payload: bytes) -> None:
    """Not even until the garbage collector comes: a request may have 8 MiB."""
    talk = Talk(engine)
    session = ref(talk.session)
    gc.collect()
    gc.disable()
    try:
        talk.session.receive(framed(payload))
        (answer,) = talk.run()
        assert answer.error is not None
        talk.session.abandon()
        del talk
        assert session() is None
    finally:
        gc.enable()


def test_a_refusal_does_not_repeat_a_method_of_any_length(engine: Engine) -> None:
    (_, message, _) = Talk(engine).call("n" * 5000).error or ("", "", None)
    assert message.startswith("there is no method 'nnn")
    assert len(message) < 120
