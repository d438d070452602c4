"""One connection is answered in order, whatever was sent, however it was cut, and when it ends."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import encode_notification

from ..running import producer_map, wait_until

if TYPE_CHECKING:
    from autoloadd_client import Cache

    from ..running import Daemon, RawClient

SECONDS = 20.0


def notification(method: str, *params: object) -> bytes:
    return encode_frame(encode_notification(method, params))


def test_reads_see_the_writes_before_them(client: RawClient) -> None:
    answers = client.call_all(
        ("get", "a"),
        ("put", "a", b"1", 5),
        ("get", "a", 5),
        ("put", "a", b"2", 6, None, "fsync"),
        ("get", "a", 6),
        ("count",),
        ("delete", ["a"]),
        ("get", "a"),
        ("put_many", {"b": [b"3"], "c": [b"4"]}),
        ("names",),
        ("clear",),
        ("names",),
    )
    assert all(answer.error is None for answer in answers)
    results = [answer.result for answer in answers]
    assert results[0] is None
    assert [results[2][:4], results[4][:4]] == [("a", b"1", None, 5), ("a", b"2", None, 6)]
    assert results[5:8] == [1, 1, None]
    assert results[9:] == [(("b", None), ("c", None)), 2, ()]
    generations = [results[index] for index in (1, 3, 8)]
    assert generations == sorted(set(generations))


def test_requests_behind_a_hello_in_one_write(served: Daemon, producer: str) -> None:
    with served.connect() as client:
        hello, put, get = client.call_all(
            ("hello", [1, 0], producer_map(producer)), ("put", "a", b"1", 7), ("get", "a")
        )
    assert (hello.result["epoch"], hello.result["generation"]) == (0, 0)
    assert put.result == 1
    assert get.result[:4] == ("a", b"1", None, 7)


def test_a_get_sees_the_notifications_before_it(client: RawClient) -> None:
    for number in range(200):
        client.notify("put", "a", b"%d" % number)
    assert client.ok("get", "a")[1] == b"199"
    client.notify("put_many", {"b": [b"1"], "c": [b"2"]})
    client.notify("delete", ["a", "b"])
    assert client.ok("names") == (("c", None),)
    assert client.ok("flush")[1:] == (0, None)


def test_a_get_in_a_packet_of_its_own_waits_for_the_write_before_it(client: RawClient) -> None:
    """Plain gets are answered at once; not while something is under way on their connection."""
    for number in range(100):
        blob = b"%d" % number
        requests = [
            client.request_bytes("put", "a", blob, None, None, "fsync"),
            client.request_bytes("get", "a"),
        ]
        first = int.from_bytes(requests[0][7:11], "big")
        for request in requests:
            client.send(request)
            # Not to be read with the first one: at another moment of the sync each time.
            time.sleep(number * 5e-6)
        assert client.answers(first, 2)[1].result[1] == blob


def test_many_pipelined_puts_then_names(client: RawClient) -> None:
    names = [f"name-{number:05}" for number in range(3000)]
    answers = client.call_all(*[("put", name, name.encode()) for name in names], ("names",))
    generations = [answer.result for answer in answers[:-1]]
    assert generations == list(range(1, 3001))
    assert answers[-1].result == tuple((name, None) for name in names[:1000])


def test_errors_in_the_middle_are_answered_in_their_turn(client: RawClient) -> None:
    requests = [
        ("put", "a", b"1"),
        ("put", "", b"1"),
        ("no_such_method",),
        ("put", "b", "no bin"),
        ("put", "b", b"2", None, None, "fsync"),
        ("get",),
        ("put", "n" * 1025, b""),
        ("get", "b"),
        ("bulk_commit", 77),
        ("count",),
    ]
    answers = client.call_all(*requests * 20)
    codes = [answer.error[0] if answer.error else None for answer in answers]
    assert (
        codes
        == [
            None,
            "bad_request",
            "unknown_method",
            "bad_request",
            None,
            "bad_request",
            "too_large",
            None,
            "bad_request",
            None,
        ]
        * 20
    )
    assert [answer.result for answer in answers[9::10]] == [2] * 20


def test_a_message_that_is_none_is_answered_behind_the_writes_before_it(
    client: RawClient,
) -> None:
    put = client.request_bytes("put", "a", b"1", None, None, "fsync")
    not_utf8 = bytes.fromhex("0000000c 94 00 09 a3676574 91 a3ff6161")
    client.send(put + not_utf8 + client.request_bytes("count"))
    first, second, third = client.receive(), client.receive(), client.receive()
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.result, third.result) == (1, 1)
    assert (second.id, second.error and second.error[0]) == (9, "bad_request")


def test_a_bad_frame_is_answered_behind_the_writes_before_it(client: RawClient) -> None:
    put = client.request_bytes("put", "a", b"1", None, None, "fsync")
    ping = client.request_bytes("ping")
    client.send(put + bytes(4) + ping)
    first, second = client.receive(), client.receive()
    assert first is not None
    assert second is not None
    assert first.result == 1
    assert second.error is not None
    assert second.error[0] == "bad_frame"
    assert client.is_closed()


def test_every_byte_alone(client: RawClient) -> None:
    sent = client.request_bytes("put", "a", b"blob", 3) + client.request_bytes("get", "a", 3)
    for at in range(len(sent)):
        client.send(sent[at : at + 1])
    put, get = client.receive(), client.receive()
    assert put is not None
    assert get is not None
    assert put.result == 1
    assert get.result[:4] == ("a", b"blob", None, 3)


def test_write_and_close_at_once(served: Daemon, producer: str, shard_cache: Cache) -> None:
    """Every complete frame is run; the one that is not complete is dropped."""
    with served.connect() as client:
        hello = client.request_bytes("hello", [1, 0], producer_map(producer))
        puts = [notification("put", f"n{number}", bytes(1000)) for number in range(500)]
        client.send(hello + b"".join(puts) + notification("put", "unfinished", b"1")[:-1])
    wait_until(lambda: shard_cache.count() >= 500, SECONDS, "what was sent before the close")
    assert shard_cache.count() == 500
    assert shard_cache.get("unfinished") is None


def test_requests_are_run_also_where_answers_cannot_be_sent(
    served: Daemon, producer: str, shard_cache: Cache
) -> None:
    blob = bytes(100_000)
    with served.connect() as client:
        hello = client.request_bytes("hello", [1, 0], producer_map(producer))
        requests = [client.request_bytes("put", "big", blob)]
        for number in range(300):
            requests.append(client.request_bytes("get", "big"))
            requests.append(client.request_bytes("put", f"n{number}", b"1"))
        client.send(hello + b"".join(requests))
    wait_until(lambda: shard_cache.count() >= 301, SECONDS, "what was sent before the close")
    assert shard_cache.count() == 301


def test_half_closed(client: RawClient) -> None:
    """Answers still come after the client has said that it sends nothing more."""
    client.ok("put", "a", bytes(50_000))
    requests = [client.request_bytes("get", "a") for _ in range(200)]
    last = client.request_bytes("put", "b", b"1", None, None, "fsync")
    client.send(b"".join(requests) + last + client.request_bytes("count")[:-3])
    client.end_input()
    for _ in requests:
        answer = client.receive()
        assert answer is not None
        assert answer.result[1] == bytes(50_000)
    answer = client.receive()
    assert answer is not None
    assert answer.result == 2
    assert client.is_closed()


def test_nothing_sent_at_all(served: Daemon) -> None:
    with served.connect() as client:
        client.end_input()
        assert client.is_closed()


def test_bulk_writes_in_between(served: Daemon, producer: str, client: RawClient) -> None:
    """A bulk of one connection among writes of another: each is in one place of one order."""
    with served.connect() as other:
        other.hello(producer_map(producer))
        client.ok("put", "a", b"before")
        token = other.ok("bulk_begin", "replace")
        client.ok("put", "b", b"during")
        other.ok("bulk_add", token, {"c": [b"bulk"]})
        assert client.ok("names") == (("a", None), ("b", None))
        generation = other.ok("bulk_commit", token)
        assert client.ok("names") == (("c", None),)
        assert client.ok("put", "d", b"after") == generation + 1
    assert client.ok("names") == (("c", None), ("d", None))


def test_a_replace_that_is_committed_behind_puts_of_its_own_connection(client: RawClient) -> None:
    begun, *_ = client.call_all(("bulk_begin", "replace"), ("put", "a", b"1"))
    client.notify("put", "b", b"1")
    answers = client.call_all(
        ("bulk_add", begun.result, {"c": [b"1"]}),
        ("put", "d", b"1"),
        ("bulk_commit", begun.result),
        ("put", "e", b"1"),
        ("names",),
    )
    assert answers[-1].result == (("c", None), ("e", None))


def test_several_connections_at_once(served: Daemon, producer: str) -> None:
    """Each gets its own answers, in its own order."""

    def talk(number: int) -> list[object]:
        with served.connect() as client:
            client.hello(producer_map(producer))
            requests: list[tuple[object, ...]] = []
            for turn in range(100):
                blob = b"%d-%d" % (number, turn)
                requests += [("put", f"n{number}", blob), ("get", f"n{number}")]
            return [answer.result[1] for answer in client.call_all(*requests)[1::2]]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(talk, range(8))):
            assert found == [b"%d-%d" % (number, turn) for turn in range(100)]


def test_a_long_pipeline_does_not_keep_others_waiting(
    client: RawClient, shard_cache: Cache
) -> None:
    """What one client has sent ahead is run in turns with the others'."""
    burst = [client.request_bytes("ping") for _ in range(60_000)]
    client.send(b"".join(burst))
    for _ in range(50):
        shard_cache.ping()
    for _ in burst:
        answer = client.receive()
        assert answer is not None
        assert answer.result == "pong"
