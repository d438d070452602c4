"""The client against servers that answer late, wrongly, partly, twice or never."""

from __future__ import annotations

import _socket
import os
import re
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_client import Cache, errors
from autoloadd_client.connection import Connection
from autoloadd_client.wire import Wire
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.limits import FRAME_BYTES
from autoloadd_protocol.messages import encode_answer, encode_error
from autoloadd_protocol.requests import FIRST_ID, LAST_ID, request_frame

from .scripted import HELLO, Peer, entry_answer, serve_one

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from .scripted import Script

    Serve = Callable[..., str]

PRODUCER = "zsh/5.9/8"
SOON = 0.2
"""Seconds: a deadline that is meant to pass."""

LATE = 15.0
"""Seconds: far beyond any deadline here, so a call that took longer kept none."""


def cache_at(path: str, *, timeout: float = 10.0) -> Cache:
    return Cache(PRODUCER, socket_path=path, timeout=timeout)


def expect_deadline(call: Callable[[], object]) -> None:
    started = time.monotonic()
    with pytest.raises(errors.DeadlineError):
        call()
    assert SOON <= time.monotonic() - started < LATE


# What a good server sees


def test_hello_and_first_request_come_in_one_write(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        first = peer.socket.recv(65536)
        peer._connection.receive_data(first)
        hello, get = peer.read_request("hello"), peer.read_request("get")
        assert hello.params[:2] == (
            (1, 0),
            {"name": "zsh", "version": "5.9", "pointer_width": 8},
        )
        assert hello.params[2]["pid"] == os.getpid()
        assert get.params == ("name", None, None)
        assert FIRST_ID <= hello.id != get.id >= FIRST_ID
        peer.answer(hello, HELLO)
        peer.answer(get, None)

    with cache_at(serve(script)) as cache:
        assert cache.get("name") is None


def test_both_answers_may_come_in_one_piece_or_byte_by_byte(serve: Serve) -> None:
    def answers_of(peer: Peer) -> bytes:
        hello, get = peer.read_request("hello"), peer.read_request("get")
        answers = (hello, HELLO), (get, entry_answer("name", b"blob"))
        return b"".join(encode_frame(encode_answer(asked.id, result)) for asked, result in answers)

    def at_once(peer: Peer) -> None:
        peer.send(answers_of(peer))

    def byte_by_byte(peer: Peer) -> None:
        for byte in answers_of(peer):
            peer.send(bytes([byte]))

    for script in (at_once, byte_by_byte):
        with cache_at(serve(script)) as cache:
            assert cache.get("name") == b"blob"


def test_ids_go_round_and_stay_five_bytes_wide(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        asked = [peer.read_request("hello")]
        peer.answer(asked[0], HELLO)
        for _ in range(2):
            asked.append(peer.read_request("ping"))
            peer.answer(asked[-1], "pong")
        assert [request.id for request in asked] == [LAST_ID, LAST_ID - 1, FIRST_ID]

    connection = Connection(serve(script), None, first_id=LAST_ID - 1)
    deadline = time.monotonic() + 10
    for _ in range(2):
        connection.exchange(request_frame(connection.next_id(), b"ping"), deadline)
    connection.close(deadline)


def test_the_hello_may_be_looked_at(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("ping"), "pong")

    with cache_at(serve(script)) as cache:
        assert cache.server == HELLO


# Answers that do not fit


def wrong_id(peer: Peer) -> None:
    peer.greet()
    asked = peer.read_request("get")
    peer.answer(asked._replace(id=asked.id + 1), None)
    peer.wait_for_end()


def refusal_of_another_request(peer: Peer) -> None:
    peer.greet()
    peer.refuse(peer.read_request("get").id + 1, "busy")
    peer.wait_for_end()


def wrong_name(peer: Peer) -> None:
    peer.greet()
    peer.answer(peer.read_request("get"), entry_answer("another", b"blob"))
    peer.wait_for_end()


def longer_name(peer: Peer) -> None:
    peer.greet()
    peer.answer(peer.read_request("get"), entry_answer("name2", b"blob"))
    peer.wait_for_end()


def blob_longer_than_its_frame(peer: Peer) -> None:
    peer.greet()
    asked = peer.read_request("get")
    payload = encode_answer(asked.id, entry_answer("name", b"blob"))
    peer.send(encode_frame(payload.replace(b"\xc4\x04", b"\xc4\xff")))
    peer.wait_for_end()


def no_bin(peer: Peer) -> None:
    peer.greet()
    peer.answer(peer.read_request("get"), ("name", "text", None, 7, 8))
    peer.wait_for_end()


def more_than_asked_for(peer: Peer) -> None:
    peer.greet()
    asked = peer.read_request("get")
    peer.send(encode_frame(encode_answer(asked.id, None)) * 2)
    peer.wait_for_end()


def no_messagepack(peer: Peer) -> None:
    peer.greet()
    peer.read_request("get")
    peer.send(encode_frame(b"\xc1\xc1\xc1"))
    peer.wait_for_end()


def damaged_refusal(peer: Peer) -> None:
    peer.greet()
    asked = peer.read_request("get")
    peer.send(encode_frame(encode_answer(asked.id, None)[:-2] + b"\x01\xc0"))
    peer.wait_for_end()


def notification(peer: Peer) -> None:
    peer.greet()
    peer.read_request("get")
    peer.send(encode_frame(b"\x93\x02\xa5event\x90"))
    peer.wait_for_end()


def empty_frame(peer: Peer) -> None:
    peer.send(b"\0\0\0\0")
    peer.wait_for_rest()


def endless_frame(peer: Peer) -> None:
    peer.greet()
    peer.read_request("get")
    peer.send((FRAME_BYTES + 1).to_bytes(4, "big"))
    peer.wait_for_end()


def hello_of_another(peer: Peer) -> None:
    hello = peer.read_request("hello")
    peer.read_request("get")
    peer.answer(hello._replace(id=hello.id + 1), HELLO)
    peer.wait_for_end()


@pytest.mark.parametrize(
    "script",
    [
        wrong_id,
        refusal_of_another_request,
        wrong_name,
        longer_name,
        blob_longer_than_its_frame,
        no_bin,
        more_than_asked_for,
        no_messagepack,
        damaged_refusal,
        notification,
        empty_frame,
        endless_frame,
        hello_of_another,
    ],
)
def test_an_answer_that_does_not_fit_closes_the_connection(serve: Serve, script: Script) -> None:
    path = serve(script, serve_one("name", b"right"))
    with cache_at(path) as cache:
        with pytest.raises(errors.ForgedError):
            cache.get("name")
        assert cache.get("name") == b"right"


def test_times_behind_a_blob_must_be_there(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), ("name", b"blob", None, 7, "later"))
        peer.wait_for_end()

    with cache_at(serve(script)) as cache, pytest.raises(errors.ForgedError):
        cache.get_entry("name")


# Refusals


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("not_durable", errors.NotDurableError),
        ("busy", errors.BusyError),
        ("too_large", errors.TooLargeError),
        ("shutting_down", errors.ShuttingDownError),
        ("unsupported_protocol", errors.UnsupportedProtocolError),
        ("bad_request", errors.BadRequestError),
        ("unknown_method", errors.UnknownMethodError),
        ("no_producer", errors.NoProducerError),
        ("internal", errors.InternalError),
        ("of_a_newer_daemon", errors.RefusedError),
    ],
)
def test_a_refusal_is_typed_and_the_connection_goes_on(
    serve: Serve, code: str, kind: type[errors.RefusedError]
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.refuse(peer.read_request("get").id, code, {"key": 1})
        peer.answer(peer.read_request("get"), entry_answer("name", b"blob"))

    with cache_at(serve(script)) as cache:
        with pytest.raises(errors.RefusedError) as caught:
            cache.get("name")
        error = caught.value
        assert type(error) is kind
        assert (error.code, error.message, error.detail) == (code, "no", {"key": 1})
        assert cache.get("name") == b"blob"


def test_a_refusal_without_an_id_ends_the_connection(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.read_request("get")
        peer.refuse(None, "bad_frame")
        peer.wait_for_end()

    with cache_at(serve(script)) as cache, pytest.raises(errors.BadRequestError) as caught:
        cache.get("name")
    assert caught.value.code == "bad_frame"


def test_a_refused_hello_is_the_error_of_the_call(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        hello, get = peer.read_request("hello"), peer.read_request("get")
        refused = encode_error(hello.id, "unsupported_protocol", "no", {"fix": "update"})
        followed = encode_error(get.id, "no_producer", "no")
        peer.send(encode_frame(refused) + encode_frame(followed))
        peer.wait_for_end()

    with cache_at(serve(script)) as cache, pytest.raises(errors.UnsupportedProtocolError) as caught:
        cache.get("name")
    assert caught.value.detail == {"fix": "update"}


# Connections that end


def ends_within_the_answer(peer: Peer) -> None:
    peer.greet()
    asked = peer.read_request("get")
    peer.send(encode_frame(encode_answer(asked.id, entry_answer("name", b"wrong")))[:-1])


def ends_at_once(peer: Peer) -> None:
    peer.socket.shutdown(socket.SHUT_RDWR)


def ends_within_a_large_answer(peer: Peer) -> None:
    peer.greet()
    asked = peer.read_request("get")
    answer = encode_answer(asked.id, entry_answer("name", bytes(100_000)))
    peer.send(encode_frame(answer)[:-1])


BROKEN = [ends_at_once, ends_within_the_answer, ends_within_a_large_answer]


@pytest.mark.parametrize("script", BROKEN)
def test_a_connection_that_ends_is_made_anew_once(serve: Serve, script: Script) -> None:
    with cache_at(serve(script, serve_one("name", b"right"))) as cache:
        assert cache.get("name") == b"right"


@pytest.mark.parametrize("script", BROKEN)
def test_a_second_end_is_an_error(serve: Serve, script: Script) -> None:
    with cache_at(serve(script, script)) as cache, pytest.raises(errors.ConnectionLostError):
        cache.get("name")


def test_a_daemon_that_ended_between_two_calls_is_not_noticed(serve: Serve) -> None:
    def once(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), None)

    with cache_at(serve(once, serve_one("name", b"right"))) as cache:
        assert cache.get("name") is None
        assert cache.get("name") == b"right"


def test_shutdown_is_not_sent_twice(serve: Serve) -> None:
    def ends(peer: Peer) -> None:
        peer.greet()
        peer.read_request("shutdown")

    with cache_at(serve(ends)) as cache, pytest.raises(errors.ConnectionLostError):
        cache.shutdown()


# Deadlines


def silent(peer: Peer) -> None:
    peer.wait_for_rest()


def stalls_half_way(peer: Peer) -> None:
    peer.greet()
    asked = peer.read_request("get")
    peer.send(encode_frame(encode_answer(asked.id, entry_answer("name", b"wrong")))[:-1])
    peer.wait_for_end()


def drips(peer: Peer) -> None:
    peer.greet()
    asked = peer.read_request("get")
    answer = encode_frame(encode_answer(asked.id, entry_answer("name", bytes(100_000))))
    for byte in answer:
        try:
            peer.send(bytes([byte]))
        except OSError:
            return
        time.sleep(SOON / 20)


@pytest.mark.parametrize("script", [silent, stalls_half_way, drips])
def test_a_call_ends_by_its_deadline_and_its_answer_is_never_taken(
    serve: Serve, script: Script
) -> None:
    with cache_at(serve(script, serve_one("name", b"right")), timeout=SOON) as cache:
        expect_deadline(lambda: cache.get("name"))
        # What comes is another question than when: a busy machine may take its time.
        cache._asker.timeout = 10.0
        assert cache.get("name") == b"right"


def test_a_silent_server_is_named_with_the_time_that_was_waited(serve: Serve) -> None:
    path = serve(silent)
    with cache_at(path, timeout=SOON) as cache, pytest.raises(errors.DeadlineError) as caught:
        cache.get("name")
    said = re.escape(f"what listens at {path} did not greet within ")
    assert re.match(rf"{said}(0\.[2-9]|\d+)", str(caught.value))


def test_a_daemon_that_greets_and_then_hangs_is_named(serve: Serve) -> None:
    def greets(peer: Peer) -> None:
        peer.greet()
        peer.wait_for_rest()

    path = serve(greets)
    # Long enough to be greeted on a busy machine.
    with cache_at(path, timeout=10 * SOON) as cache, pytest.raises(errors.DeadlineError) as caught:
        cache.get("name")
    said = re.escape(f"the daemon at {path} did not answer within ")
    assert re.match(rf"{said}\d+", str(caught.value))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request", "it sends a frame of 1,213,486,160 bytes"),
        (b"\0\0\0\x02{}", ""),
    ],
)
def test_what_is_no_daemon_is_named(serve: Serve, answer: bytes, reason: str) -> None:
    def other(peer: Peer) -> None:
        peer.send(answer)
        peer.wait_for_rest()

    path = serve(other)
    with cache_at(path) as cache, pytest.raises(errors.ForgedError) as caught:
        cache.get("name")
    assert str(caught.value).startswith(f"what listens at {path} is not autoloadd: {reason}")


def test_a_daemon_that_goes_while_it_is_asked_again_is_told_as_absent(
    run_directory: Path,
) -> None:
    path = f"{run_directory}/going"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def close_twice_and_go() -> None:
            first = listener.accept()[0]
            first.recv(65536)
            first.close()
            second = listener.accept()[0]
            second.recv(65536)
            listener.close()
            second.close()

        thread = threading.Thread(target=close_twice_and_go)
        thread.start()
        with pytest.raises(errors.UnreachableError, match="start it with"):
            cache_at(path).get("name")
        thread.join()


def test_a_server_that_reads_nothing_does_not_hold_a_writer(serve: Serve) -> None:
    release = threading.Event()

    def reads_nothing(_peer: Peer) -> None:
        release.wait(20)

    with cache_at(serve(reads_nothing), timeout=SOON) as cache:
        expect_deadline(lambda: cache.put("name", bytes(4 << 20)))
        release.set()


def test_a_full_backlog_does_not_hold_a_client(serve: Serve, run_directory: object) -> None:
    path = f"{run_directory}/full"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        other.connect(path)
        expect_deadline(lambda: cache_at(path, timeout=SOON).get("name"))


def test_signals_do_not_put_a_deadline_off(serve: Serve) -> None:
    rings = 0

    def ring(_number: int, _frame: FrameType | None) -> None:
        nonlocal rings
        rings += 1

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with cache_at(serve(silent), timeout=SOON) as cache:
            signal.setitimer(signal.ITIMER_REAL, SOON / 10, SOON / 10)
            expect_deadline(lambda: cache.get("name"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rings > 2


class InterruptError(Exception):
    """Raised by a signal handler, as KeyboardInterrupt is."""


def test_an_interrupted_exchange_is_not_continued(serve: Serve) -> None:
    def interrupts(peer: Peer) -> None:
        peer.greet()
        asked = peer.read_request("get")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        peer.wait_for_end_after(encode_frame(encode_answer(asked.id, entry_answer("name", b"1"))))

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise InterruptError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with cache_at(serve(interrupts, serve_one("name", b"2"))) as cache:
            with pytest.raises(InterruptError):
                cache.get("name")
            assert cache.get("name") == b"2"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_thread_waits_for_its_turn_no_longer_than_its_deadline(serve: Serve) -> None:
    asked, release = threading.Event(), threading.Event()

    def slow(peer: Peer) -> None:
        peer.greet()
        request = peer.read_request("flush")
        asked.set()
        release.wait(20)
        peer.answer(request, (1, 0, None))

    with cache_at(serve(slow), timeout=SOON) as cache:
        flushing = threading.Thread(target=cache.flush)
        flushing.start()
        assert asked.wait(20)
        expect_deadline(lambda: cache.get("name"))
        release.set()
        flushing.join()


def test_close_ends_a_call_of_another_thread(serve: Serve) -> None:
    asked = threading.Event()

    def hangs(peer: Peer) -> None:
        peer.greet()
        peer.read_request("shutdown")
        asked.set()
        peer.wait_for_end()

    caught: list[Exception] = []

    def shut_down() -> None:
        try:
            cache.shutdown()
        except errors.CacheError as exc:
            caught.append(exc)

    cache = cache_at(serve(hangs), timeout=SOON)
    caller = threading.Thread(target=shut_down)
    caller.start()
    assert asked.wait(20)
    cache.close()
    caller.join(20)
    assert [type(error) for error in caught] == [errors.ConnectionLostError]


def test_close_does_not_wait_for_a_thread_that_connects(run_directory: object) -> None:
    path = f"{run_directory}/full"
    caught: list[type[Exception]] = []

    def get() -> None:
        try:
            cache.get("name")
        except errors.CacheError as exc:
            caught.append(type(exc))

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        other.connect(path)
        cache = cache_at(path, timeout=4 * SOON)
        caller = threading.Thread(target=get)
        caller.start()
        own = cache._connections.own()
        while not own._lock.locked():
            assert caller.is_alive()
        own.close(time.monotonic())
        caller.join(20)
    assert caught == [errors.DeadlineError]


def test_a_bulk_has_one_deadline_over_all_its_requests(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("bulk_begin"), 1)
        while True:
            time.sleep(SOON / 4)
            try:
                peer.answer(peer.read_request("bulk_add"), 0)
            except (OSError, AssertionError):
                return  # the client has gone

    cache = Cache(PRODUCER, socket_path=serve(script), bulk_timeout=SOON)
    expect_deadline(lambda: cache.replace((str(n), bytes(1 << 20)) for n in range(100)))


def test_a_commit_without_an_answer_is_told_from_a_bulk_that_was_not_committed(
    serve: Serve,
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("bulk_begin"), 1)
        peer.answer(peer.read_request("bulk_add"), 0)
        peer.read_request("bulk_commit")

    with (
        cache_at(serve(script)) as cache,
        pytest.raises(errors.ConnectionLostError, match="all of the bulk was applied, or nothing"),
    ):
        cache.replace({})


def test_a_descriptor_that_was_closed_under_it_is_replaced(serve: Serve) -> None:
    # Programs that become daemons close all descriptors.
    def served(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), None)
        peer.wait_for_end()

    with cache_at(serve(served, serve_one("name", b"right"))) as cache:
        assert cache.get("name") is None
        wire = cache._connections.own()._wire
        assert wire is not None
        os.close(wire.fileno())
        assert cache.get("name") == b"right"


def test_where_peers_cannot_be_asked_who_they_are(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on macOS: the directory's owner and mode have to be enough.
    monkeypatch.delattr("_socket.SO_PEERCRED")
    with cache_at(serve(serve_one("name", b"blob"))) as cache:
        assert cache.get("name") == b"blob"


def test_shutting_down_what_is_closed_already_is_fine() -> None:
    # As when the holder's call ends just before another thread's close reaches its socket.
    one, other = _socket.socketpair()
    wire = Wire(one)
    wire.close()
    other.close()
    wire.shut_down()


# Writes that nobody waits for


def test_a_put_without_waiting_reads_nothing(serve: Serve) -> None:
    sent = threading.Event()

    def script(peer: Peer) -> None:
        assert sent.wait(20)
        hello = peer.read_request("hello")
        assert peer.read_notification("put").params == ("a", b"1", None, None, "write")
        assert peer.read_notification("delete").params == (("a",), "memory")
        peer.answer(hello, HELLO)
        peer.answer(peer.read_request("flush"), (3, 1, "too_large: no"))

    with cache_at(serve(script)) as cache:
        assert cache.put("a", b"1", wait=False) is None
        assert cache.delete("a", wait=False, sync="memory") is None
        sent.set()
        assert cache.flush() == (3, 1, "too_large: no", 0)


def test_flush_counts_what_a_lost_connection_leaves_unknown_once(serve: Serve) -> None:
    def loses(peer: Peer) -> None:
        peer.greet()
        for _ in range(3):
            peer.read_notification("put")

    def flushes(peer: Peer) -> None:
        peer.greet()
        for generation in (9, 9):
            peer.answer(peer.read_request("flush"), (generation, 0, None))

    with cache_at(serve(loses, flushes)) as cache:
        for name in "abc":
            cache.put(name, b"", wait=False)
        assert cache.flush() == (9, 0, None, 3)
        assert cache.flush() == (9, 0, None, 0)


def test_a_refused_flush_forgets_nothing(serve: Serve) -> None:
    def loses(peer: Peer) -> None:
        peer.greet()
        peer.read_notification("put")

    def refuses(peer: Peer) -> None:
        peer.greet()
        peer.refuse(peer.read_request("flush").id, "not_durable")
        peer.answer(peer.read_request("flush"), (9, 0, None))

    with cache_at(serve(loses, refuses)) as cache:
        cache.put("a", b"", wait=False)
        with pytest.raises(errors.NotDurableError):
            cache.flush()
        assert cache.flush().unconfirmed == 1


def test_a_put_without_waiting_is_sent_again_to_a_new_daemon(serve: Serve) -> None:
    gone = threading.Event()

    def goes(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), None)
        peer.socket.close()
        gone.set()

    def stays(peer: Peer) -> None:
        peer.read_request("hello")
        assert peer.read_notification("put").params[0] == "a"
        peer.wait_for_end()

    with cache_at(serve(goes, stays)) as cache:
        cache.get("a")
        assert gone.wait(20)
        cache.put("a", b"", wait=False)
