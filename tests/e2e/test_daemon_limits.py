"""Every limit of docs/protocol.md, at its edge: the code, and whether the connection goes on."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol.limits import (
    BLOB_BYTES,
    BULKS,
    CONNECTIONS,
    FINGERPRINT_BYTES,
    FRAME_BYTES,
    NAME_BYTES,
    NAMES,
)

from ..running import producer_map, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..running import Daemon, RawClient

SECONDS = 20.0
STAGED_AT_MOST = 16 * 1024 * 1024
NAME = "n" * NAME_BYTES
FINGERPRINT = b"f" * FINGERPRINT_BYTES
TEXT = "t" * 128
MANY_NAMES = [str(number) for number in range(NAMES)]

# method and parameters, and with one more: what `too_large` says of it
TOO_LARGE: list[tuple[tuple[object, ...], tuple[object, ...], str]] = [
    (("put", "a", bytes(BLOB_BYTES)), ("put", "a", bytes(BLOB_BYTES + 1)), "blob_bytes"),
    (("put", NAME, b""), ("put", NAME + "n", b""), "name_bytes"),
    (("put", "é" * 512, b""), ("put", "é" * 512 + "n", b""), "name_bytes"),
    (("get", NAME), ("get", NAME + "n"), "name_bytes"),
    (("names", NAME), ("names", NAME + "n"), "name_bytes"),
    (("delete", [NAME]), ("delete", [NAME + "n"]), "name_bytes"),
    (("missing", [NAME]), ("missing", [NAME + "n"]), "name_bytes"),
    (("get_many", [NAME]), ("get_many", [NAME + "n"]), "name_bytes"),
    (("put_many", {NAME: [b""]}), ("put_many", {NAME + "n": [b""]}), "name_bytes"),
    (
        ("put", "a", b"", None, FINGERPRINT),
        ("put", "a", b"", None, FINGERPRINT + b"f"),
        "fingerprint_bytes",
    ),
    (
        ("get", "a", None, FINGERPRINT),
        ("get", "a", None, FINGERPRINT + b"f"),
        "fingerprint_bytes",
    ),
    (("missing", MANY_NAMES), ("missing", [*MANY_NAMES, "x"]), "names"),
    (("get_many", MANY_NAMES), ("get_many", [*MANY_NAMES, "x"]), "names"),
    (("delete", MANY_NAMES), ("delete", [*MANY_NAMES, "x"]), "names"),
    (
        ("put_many", {name: [b""] for name in MANY_NAMES}),
        ("put_many", {name: [b""] for name in [*MANY_NAMES, "x"]}),
        "names",
    ),
]
MAXIMA = {
    "blob_bytes": BLOB_BYTES,
    "name_bytes": NAME_BYTES,
    "fingerprint_bytes": FINGERPRINT_BYTES,
    "names": NAMES,
}


@pytest.mark.parametrize(
    ("allowed", "refused", "limit"),
    TOO_LARGE,
    ids=[f"{each[0][0]}-{each[2]}-{number}" for number, each in enumerate(TOO_LARGE)],
)
def test_too_large_by_one(
    client: RawClient, allowed: tuple[object, ...], refused: tuple[object, ...], limit: str
) -> None:
    first, second, third = client.call_all(allowed, refused, ("ping",))
    assert first.error is None
    assert second.error is not None
    code, _, detail = second.error
    maximum = MAXIMA[limit]
    assert (code, detail) == ("too_large", {"limit": limit, "max": maximum, "got": maximum + 1})
    assert third.result == "pong"


@pytest.mark.parametrize("key", ["name", "version", "build"])
def test_a_producers_texts(served: Daemon, key: str) -> None:
    with served.connect() as client:
        assert client.hello(producer_map() | {key: TEXT}).error is None
        answer = client.hello(producer_map() | {key: TEXT + "t"})
        assert answer.error is not None
        assert answer.error[0] == "too_large"
        limit = f"producer_{key}_bytes"
        assert answer.error[2] == {"limit": limit, "max": 128, "got": 129}
        assert client.ok("ping") == "pong"


def test_a_frame_of_exactly_the_limit(client: RawClient) -> None:
    def request(last: int) -> bytes:
        blobs = {"a": [bytes(BLOB_BYTES)], "b": [bytes(last)]}
        return client.request_bytes("put_many", blobs)

    surplus = len(request(BLOB_BYTES)) - 4 - FRAME_BYTES
    whole = request(BLOB_BYTES - surplus)
    assert len(whole) == FRAME_BYTES + 4
    client.send(whole)
    answer = client.receive()
    assert answer is not None
    assert (answer.error, answer.result) == (None, 1)
    # One byte more is refused when its length is there, before the rest is.
    client.send((FRAME_BYTES + 1).to_bytes(4, "big"))
    assert_bad_frame(client)


def assert_bad_frame(client: RawClient) -> None:
    answer = client.receive()
    assert answer is not None
    assert answer.error is not None
    assert answer.error[0] == "bad_frame"
    assert client.is_closed()


def nested(levels: int) -> object:
    value: object = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_nesting(client: RawClient) -> None:
    # The frame's array is level 1, params level 2: six more are allowed.
    assert client.refusal("get", nested(6)) == "bad_request"
    assert client.refusal("get", nested(6)) == "bad_request"
    client.send(client.request_bytes("get", nested(7)))
    assert_bad_frame(client)


@pytest.mark.parametrize(
    "payload",
    [
        "",  # length 0
        "94 00 07 a470696e67 90 c0",  # bytes behind the value
        "94 00 07 a470696e67",  # ends too early
        "94 00 07 a470696e67 91 ca3f800000",  # float
        "94 00 07 a3676574 91 d40000",  # ext
        "94 00 07 a3676574 91 d6ff00000000",  # timestamp
        "c1",
        "dd ffffffff",
        "df ffffffff",
        "c6 ffffffff",
    ],
)
def test_bad_frames_close_the_connection(client: RawClient, payload: str) -> None:
    data = bytes.fromhex(payload)
    client.send(len(data).to_bytes(4, "big") + data)
    assert_bad_frame(client)


def test_others_do_not_notice_a_bad_frame(served: Daemon, client: RawClient) -> None:
    with served.connect() as other:
        client.ok("put", "a", b"1")
        other.send(bytes(4))
        assert_bad_frame(other)
        assert client.ok("get", "a")[1] == b"1"


@contextmanager
def crowd(served: Daemon) -> Iterator[list[RawClient]]:
    """Every client that there may be."""
    wait_until(lambda: served.status()["connections"] == 1, SECONDS, "earlier clients to go")
    with ExitStack() as stack:
        yield [stack.enter_context(served.connect()) for _ in range(CONNECTIONS)]


def test_the_longest_idle_goes_when_there_are_too_many(served: Daemon) -> None:
    with crowd(served) as clients:
        # All but the third have said something since.
        for number, client in enumerate(clients):
            if number != 2:
                assert client.ok("ping") == "pong"
        before = clients[0].ok("status")["counters"].get("cut_off", 0)
        with served.connect() as one_more:
            status = one_more.ok("status")
            assert status["connections"] == CONNECTIONS
            assert status["counters"]["cut_off"] == before + 1
            assert clients[2].is_closed()
        for client in (clients[0], clients[1], *clients[3:]):
            assert client.ok("ping") == "pong"


def test_the_longest_idle_goes_while_its_requests_are_run(served: Daemon) -> None:
    """It has sent a heap of requests at once, and everybody else was active after it."""
    pid = served.status()["pid"]
    with crowd(served) as clients, ExitStack() as stack:
        for _ in range(5):
            busy = clients.pop(0)
            with suppress(BrokenPipeError, ConnectionResetError):
                busy.send(b"".join([busy.request_bytes("ping") for _ in range(15_000)]))
            for client in clients:
                # One that was cut off for the newest before may only be seen to be so here.
                with suppress(BrokenPipeError, ConnectionResetError):
                    client.send(client.request_bytes("ping"))
            newest = stack.enter_context(served.connect())
            # At most one was cut off: most often the busy one, if it was not read last of all.
            clients[:] = [client for client in clients if not client.is_closed()]
            busy.socket.close()
            clients.append(newest)
        assert len(clients) >= CONNECTIONS - 5
        assert {client.ok("status")["pid"] for client in clients[-5:]} == {pid}


# Bulks


@pytest.mark.parametrize(
    ("entries", "limit"),
    [
        ({"a": [bytes(BLOB_BYTES + 1)]}, "blob_bytes"),
        ({NAME + "n": [b""]}, "name_bytes"),
        ({"a": [b"", FINGERPRINT + b"f"]}, "fingerprint_bytes"),
        ({name: [b""] for name in [*MANY_NAMES, "x"]}, "names"),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_what_is_too_large_for_a_bulk(
    client: RawClient, entries: dict[str, list[bytes]], limit: str
) -> None:
    """It is refused, and the bulk goes on without it."""
    token = client.ok("bulk_begin", "merge")
    answer = client.call("bulk_add", token, entries)
    assert answer.error is not None
    maximum = MAXIMA[limit]
    assert answer.error[::2] == ("too_large", {"limit": limit, "max": maximum, "got": maximum + 1})
    assert client.ok("bulk_add", token, {"a": [b"1"]}) == 1
    client.ok("bulk_commit", token)
    assert client.ok("names") == (("a", None),)


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_what_is_staged_counts_towards_the_bound(idle_daemon: Daemon, serving: str) -> None:
    """Of all bulks together, and no longer when they are given up."""
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    idle_daemon.start("--max-bytes", str(STAGED_AT_MOST))
    part = {"a": [bytes(BLOB_BYTES)]}
    with ExitStack() as stack:
        clients = [stack.enter_context(idle_daemon.connect()) for _ in range(BULKS)]
        tokens = []
        for client in clients:
            client.hello()
            tokens.append(client.ok("bulk_begin", "merge"))
        room = STAGED_AT_MOST // BLOB_BYTES - 1
        for number in range(room):
            clients[number].ok("bulk_add", tokens[number], part)
        last, token = clients[room], tokens[room]
        answer = last.call("bulk_add", token, part)
        assert answer.error is not None
        code, _, detail = answer.error
        assert code == "too_large"
        assert (detail or {})["limit"] == "max_bytes"
        assert (detail or {})["got"] > (detail or {})["max"]
        clients[0].ok("bulk_abort", tokens[0])
        assert last.ok("bulk_add", token, part) == 1
        last.ok("bulk_commit", token)
        assert last.ok("get", "a")[1] == bytes(BLOB_BYTES)
    assert idle_daemon.stop() == 0


def test_the_limits_are_told(served: Daemon) -> None:
    """A client may rely on them before it has read them: no server sets them lower."""
    with served.connect() as client:
        told = client.hello().result["limits"]
    assert {name: told[name] for name in ("frame_bytes", *MAXIMA)} == {
        "frame_bytes": FRAME_BYTES,
        **MAXIMA,
    }
