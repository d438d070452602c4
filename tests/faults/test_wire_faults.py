"""However a dialogue is cut on its way it is answered alike; what is wrong in it gets one error.

The daemon is the real one, with one task for all clients and with a task for each.
"""

from __future__ import annotations

import fcntl
import random
import re
import struct
import termios
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol.framing import LENGTH_BYTES, FrameDecoder, encode_frame
from autoloadd_protocol.limits import FRAME_BYTES
from autoloadd_protocol.messages import (
    Answer,
    decode_answer,
    encode_notification,
    encode_request,
)

from ..running import producer_map, wait_until
from .mutants import good_requests, mutant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoloadd_client import Cache

    from ..running import Daemon, RawClient
    from .report import FaultCase

SECONDS = 20.0
MIB = 1024 * 1024
MAY_GROW = 16 * MIB
MUTANTS = 700
WARM_UP = 300
FIRST_ID = 0x10000
SHORT_POLL_SECONDS = 0.0001
"""A frame must be complete in 2 s, also where each of its bytes is waited for."""

PING = encode_frame(encode_request(1, "ping", []))
PONG = Answer(1, None, "pong")
BAD_FRAME = "bad_frame"
CODES = {
    "bad_request",
    BAD_FRAME,
    "unknown_method",
    "unsupported_protocol",
    "no_producer",
    "too_large",
    "busy",
}


# Every split


def requests_of(producer: str) -> list[bytes]:
    """Return the frames of a dialogue that reads and writes, is refused, and tells nobody."""
    entry = [b"blob", b"f", 5, 7]
    requests: list[tuple[str, list[object]]] = [
        ("hello", [[1, 0], producer_map(producer)]),
        ("clear", []),
        ("put_many", [{"a": entry, "é": [b"", None, 1, 2]}]),
        ("get", ["a", 5, b"f"]),
        ("get", ["a", 6]),
        ("get_many", [["a", "é", "none"]]),
        ("put", ["b"]),
        ("nothing", [1]),
        ("names", ["", "a"]),
        ("delete", [["é", "none"], "fsync"]),
        ("missing", [["a", "é", ["a", b"g"]]]),
        ("ping", []),
        ("delete", [["a", "x" * 2, ""]]),
        ("flush", []),
        ("count", []),
    ]
    frames = [
        encode_frame(encode_request(FIRST_ID + number, method, params))
        for number, (method, params) in enumerate(requests)
    ]
    told = [
        encode_frame(encode_notification("put", ["told", b"1"])),
        encode_frame(encode_notification("delete", [["told"]])),
        encode_frame(encode_notification("get", ["a"])),
    ]
    return [*frames[:4], *told, *frames[4:]]


def wait_until_taken(client: RawClient) -> None:
    """Wait until the server has read all that was sent: what is sent next is another read."""

    def unread() -> int:
        found = fcntl.ioctl(client.socket, termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", found)[0])

    deadline = monotonic() + SECONDS
    while unread():
        assert monotonic() < deadline, "the server does not read"
        sleep(SHORT_POLL_SECONDS)


def send_in_pieces(client: RawClient, pieces: Sequence[bytes]) -> list[Answer]:
    """Send pieces as a read each, then end the input; return all answers."""
    for piece in pieces:
        if piece:
            client.send(piece)
            wait_until_taken(client)
    client.end_input()
    answers: list[Answer] = []
    while (answer := client.receive()) is not None:
        answers.append(answer)
    return answers


def without_generations(answers: list[Answer]) -> list[Answer]:
    """Return answers that may be compared: generations go on from one dialogue to the next."""
    hello, cleared, put, *others, flushed, counted = answers
    assert hello.error is None
    base = put.result
    assert flushed.result[0] >= base + 3
    told = (flushed.result[1], flushed.result[2])
    return [
        cleared._replace(result=None),
        put._replace(result=None),
        *others,
        flushed._replace(result=(flushed.result[0] - base, *told)),
        counted,
    ]


def test_a_dialogue_split_at_every_byte(
    served: Daemon, producer: str, case: FaultCase, effort: int
) -> None:
    """All of it in one write, in two at each place, byte by byte, and in pieces of other sizes."""
    case.unit = "splits"
    frames = requests_of(producer)
    whole = b"".join(frames)
    with served.connect() as client:
        expected = without_generations(send_in_pieces(client, [whole]))
    assert len(expected) == 14
    assert [answer.error[0] for answer in expected if answer.error] == [
        "bad_request",
        "unknown_method",
        "bad_request",
    ]
    cuts = [[whole[:at], whole[at:]] for at in range(1, len(whole))]
    cuts += [[whole[at : at + size] for at in range(0, len(whole), size)] for size in (1, 3, 64)]
    generator = random.Random(1)
    for _ in range(20 * effort):
        places = sorted(generator.sample(range(1, len(whole)), 6))
        bounds = zip([0, *places], [*places, len(whole)], strict=True)
        cuts.append([whole[begin:end] for begin, end in bounds])
    for pieces in cuts:
        with served.connect() as client:
            answers = without_generations(send_in_pieces(client, pieces))
        case.explored += 1
        case.wrong += answers != expected
        assert answers == expected, [len(piece) for piece in pieces]


def test_a_bulk_split_at_every_byte(served: Daemon, producer: str, case: FaultCase) -> None:
    """Its token is learnt on the way, so each request is split for itself."""
    case.unit = "splits"
    for at in range(1, 64):
        with served.connect() as client:
            client.hello(producer_map(producer))
            client.ok("clear")

            def ask(method: str, *params: object, client: RawClient = client, at: int = at) -> int:
                frame = client.request_bytes(method, *params)
                client.send(frame[:at])
                wait_until_taken(client)
                client.send(frame[at:])
                answer = client.receive()
                assert answer is not None
                assert answer.error is None
                number = answer.result
                assert type(number) is int
                return number

            token = ask("bulk_begin", "replace", None, 5)
            assert ask("bulk_add", token, {"a": [b"1"], "b": [b"2", b"f", 3, 4]}) == 2
            assert ask("bulk_add", token, {"b": [b"3"]}) == 2
            ask("bulk_commit", token)
            assert client.ok("get", "b")[:2] == ("b", b"3")
        case.explored += 1


# Mutants


def resident_bytes(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def ask_with(daemon: Daemon, producer: str, sent: bytes) -> list[Answer]:
    """Send a hello, then bytes, and end the input; return all answers but the hello's."""
    with daemon.connect() as client:
        hello = client.request_bytes("hello", [1, 0], producer_map(producer))
        received = FrameDecoder()
        # The server may answer a bad frame and close before it has read everything.
        with suppress(BrokenPipeError, ConnectionResetError):
            client.send(hello + sent)
            client.end_input()
        with suppress(ConnectionResetError):
            while data := client.socket.recv(1 << 20):
                received.receive_data(data)
    answers: list[Answer] = []
    while (payload := received.next_payload()) is not None:
        answer = decode_answer(payload)
        assert isinstance(answer, Answer)
        answers.append(answer)
    assert received.buffered_bytes == 0
    assert answers[0].error is None
    return answers[1:]


def frames_in(sent: bytes) -> tuple[int, bool]:
    """Return how many frames the bytes hold, by their lengths, and whether these come out even."""
    at = count = 0
    while at + LENGTH_BYTES <= len(sent):
        size = int.from_bytes(sent[at : at + LENGTH_BYTES], "big")
        if not 0 < size <= FRAME_BYTES:
            return count + 1, False
        at += LENGTH_BYTES + size
        count += at <= len(sent)
    return count, at == len(sent)


def judge(answers: list[Answer], sent: bytes) -> None:
    """See that each frame has at most one answer, a good one or an error of the protocol.

    The last one is a ping's, if no bad frame ended the connection before.
    """
    count, is_even = frames_in(sent)
    assert len(answers) <= count
    refusals = [answer.error for answer in answers if answer.error is not None]
    for code, message, _ in refusals:
        assert code in CODES, message
        assert len(message) < 1000
        assert "\n" not in message
    bad = [at for at, answer in enumerate(answers) if answer.error and answer.error[0] == BAD_FRAME]
    assert bad in ([], [len(answers) - 1]), "a bad frame ends the connection"
    if is_even and not bad:
        assert answers[-1] == PONG


def test_mutants_of_every_request(
    served: Daemon, producer: str, shard_cache: Cache, case: FaultCase, effort: int
) -> None:
    """Each gets its answer or one error; the daemon lives; another client's data is as it was."""
    case.unit = "frames"
    mine = {f"mine {number}": random.Random(number).randbytes(2000) for number in range(50)}
    shard_cache.put_many(mine)
    requests = good_requests()
    pid, before = served.status()["pid"], 0
    log_begins = len(served.log)
    for seed in range(WARM_UP + MUTANTS * effort):
        generator = random.Random(seed)
        frames = [mutant(generator.choice(requests), generator) for _ in range(seed % 4 // 3 + 1)]
        sent = b"".join(frames) + PING
        try:
            judge(ask_with(served, "mutants/1/8", sent), sent)
        except AssertionError as exc:
            exc.add_note(f"seed {seed}: {[frame.hex()[:400] for frame in frames]}")
            raise
        case.explored += len(frames)
        if seed == WARM_UP:
            before = resident_bytes(served)
        if seed % 100 == 0:
            assert shard_cache.get("mine 7") == mine["mine 7"]
    clear_up(served, {"mutants", "zsh", "vectors"})
    # What the last large frame took is given back a moment later.
    wait_until(lambda: resident_bytes(served) - before < MAY_GROW, SECONDS, "memory to come back")
    found = shard_cache.get_many(mine)
    case.lost += len(mine.keys() - found.keys())
    case.wrong += sum(blob != mine[name] for name, blob in found.items())
    assert found == mine
    status = served.status()
    assert status["pid"] == pid
    assert status["storage"]["state"] == "healthy"
    assert "Traceback" not in served.log[log_begins:]
    served.restart()
    assert shard_cache.get_many(mine) == mine


def clear_up(daemon: Daemon, producers: set[str]) -> None:
    """Drop the shards that good mutants have made."""
    with daemon.connect() as client:
        for shard in client.ok("shards"):
            if shard["producer"]["name"] in producers:
                client.ok("drop_shard", shard["id"])


@pytest.mark.parametrize("at", range(1, LENGTH_BYTES + 3))
def test_what_ends_in_the_middle_is_dropped(
    at: int, served: Daemon, client: RawClient, shard_cache: Cache, case: FaultCase
) -> None:
    """The complete frames before it are run, the rest is not, whatever the answer would be."""
    case.unit = "ends"
    put = client.request_bytes("put", "a", b"1")
    client.send(put + client.request_bytes("put", "a", b"2")[:at])
    client.end_input()
    answer = client.receive()
    assert answer is not None
    assert answer.error is None
    assert client.receive() is None
    case.explored += 1
    case.wrong += shard_cache.get("a") != b"1"
    assert shard_cache.get("a") == b"1"
