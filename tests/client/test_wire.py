"""How bytes go out and come in: one deadline after another, few system calls."""

from __future__ import annotations

import _socket
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.wire import Wire
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..running import Daemon

SOON = 0.2
LATE = 15.0
GETS = 200
LOOKS = 24


@pytest.fixture
def pair() -> Iterator[tuple[Wire, _socket.socket]]:
    """A wire, and the other end of it."""
    near, far = _socket.socketpair()
    wire = Wire(near)
    yield wire, far
    wire.close()
    far.close()


def in_time() -> float:
    return time.monotonic() + 20


def test_frames_come_out_whole_and_one_by_one(pair: tuple[Wire, _socket.socket]) -> None:
    wire, far = pair
    frames = [encode_frame(bytes([size % 251]) * size) for size in (1, 70_000, 5, 33_000)]
    sender = threading.Thread(target=far.sendall, args=(b"".join(frames),))
    sender.start()
    assert [wire.receive_frame(in_time()) for _ in frames] == frames
    assert wire.rest == b""
    sender.join()


def test_what_comes_behind_a_frame_is_kept(pair: tuple[Wire, _socket.socket]) -> None:
    wire, far = pair
    far.send(encode_frame(b"one") + encode_frame(b"two")[:2])
    assert wire.receive_frame(in_time()) == encode_frame(b"one")
    assert wire.rest == b"\0\0"
    far.send(encode_frame(b"two")[2:])
    assert wire.receive_frame(in_time()) == encode_frame(b"two")


@pytest.mark.parametrize("length", [b"\0\0\0\0", b"\0\x80\0\1", b"HTTP"])
def test_a_length_that_no_frame_has(pair: tuple[Wire, _socket.socket], length: bytes) -> None:
    wire, far = pair
    far.send(length)
    with pytest.raises(FrameError, match="it sends a frame of"):
        wire.receive_frame(in_time())


def test_the_end_of_the_stream(pair: tuple[Wire, _socket.socket]) -> None:
    wire, far = pair
    far.close()
    with pytest.raises(EOFError):
        wire.receive_frame(in_time())


def test_a_short_deadline_after_a_long_one_is_kept(pair: tuple[Wire, _socket.socket]) -> None:
    wire, far = pair
    far.send(encode_frame(b"x"))
    wire.receive_frame(in_time())
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.receive_frame(started + SOON)
    assert SOON <= time.monotonic() - started < LATE


def test_a_long_deadline_after_a_short_one_is_used(pair: tuple[Wire, _socket.socket]) -> None:
    wire, far = pair
    with pytest.raises(TimeoutError):
        wire.receive_frame(time.monotonic() + SOON / 10)
    late = threading.Timer(SOON, far.send, args=(encode_frame(b"x"),))
    late.start()
    assert wire.receive_frame(in_time()) == encode_frame(b"x")
    late.join()


def test_a_deadline_that_is_over_waits_for_nothing(pair: tuple[Wire, _socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        pair[0].receive_frame(time.monotonic() - 1)


def test_more_than_the_socket_takes_is_sent_as_it_is_read(
    pair: tuple[Wire, _socket.socket],
) -> None:
    wire, far = pair
    data = os.urandom(4 << 20)
    sender = threading.Thread(target=wire.send, args=(data, in_time()))
    sender.start()
    received = b""
    while len(received) < len(data):
        received += far.recv(1 << 20)
    sender.join()
    assert received == data


def test_what_nobody_reads_ends_by_its_deadline(pair: tuple[Wire, _socket.socket]) -> None:
    wire, _ = pair
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.send(bytes(4 << 20), started + SOON)
    # Full from the start: nothing of it is taken.
    with pytest.raises(TimeoutError):
        wire.send(b"x", time.monotonic() + SOON / 10)
    assert SOON <= time.monotonic() - started < LATE


def test_a_descriptor_is_closed_once() -> None:
    """Closed twice, it could be another file's by then."""
    near, far = _socket.socketpair()
    wire = Wire(near)
    number = wire.fileno()
    wire.close()
    other = os.open(os.devnull, os.O_RDONLY)
    os.dup2(other, number)
    del wire, near
    gc.collect()
    os.fstat(number)
    far.close()
    for descriptor in {other, number}:
        os.close(descriptor)


def test_a_wire_that_is_forgotten_closes_its_descriptor_once() -> None:
    near, far = _socket.socketpair()
    wires = [Wire(near)]
    number = near.fileno()
    del near
    with pytest.warns(ResourceWarning, match="unclosed") as caught:
        wires.clear()
    assert len(caught) == 1
    assert far.recv(1) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    far.close()


PROGRAM = """
import sys
from autoloadd_client import Cache
with Cache("zsh/5.9/8", socket_path=sys.argv[1], shared=False, timeout=60) as cache:
    for _ in range(int(sys.argv[2])):
        assert cache.get("name") == bytes(3000)
"""


def test_a_get_is_three_system_calls(daemon: Daemon, tmp_path: Path) -> None:
    """Counted over many gets: what connecting takes is the same for two numbers of them."""
    assert shutil.which("strace"), "strace is needed: apt-get install strace"
    with daemon.cache() as cache:
        cache.put("name", bytes(3000))

    def count(gets: int) -> Counter[tuple[str, bool]]:
        log = tmp_path / f"log-{gets}"
        program = [sys.executable, "-c", PROGRAM, daemon.socket_path, str(gets)]
        environment = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
        subprocess.run(
            ["strace", "-qq", "-o", log, "-e", "signal=none", *program],
            check=True, env=environment, timeout=60,
        )  # fmt: skip
        lines = log.read_text().splitlines()
        return Counter((line.partition("(")[0], "EAGAIN" not in line) for line in lines)

    more = count(10 + GETS) - count(10)
    calls = {call: number / GETS for call, number in more.items() if number > GETS / 10}
    # Looks that found nothing yet, and sleeps: how many depends on how fast both are.
    looks, polls = calls.pop(("recvfrom", False), 0), calls.pop(("poll", True), 0)
    assert calls == {("sendto", True): 1, ("recvfrom", True): 1, ("getpid", True): 1}
    assert looks <= LOOKS
    assert polls <= 1


def receives(wire: Wire, *, behind: Callable[[], object]) -> int:
    """Receive a frame; return how often the socket was asked for it.

    `behind` runs once it was asked as often as it is without going to sleep.
    """
    asked, last = 0, 1 if wire._asleep_for else LOOKS + 1

    def note(_frame: object, event: str, function: object) -> None:
        nonlocal asked
        if event == "c_call" and getattr(function, "__name__", "") == "recv":
            asked += 1
            if asked == last:
                behind()

    sys.setprofile(note)
    try:
        wire.receive_frame(in_time())
    finally:
        sys.setprofile(None)
    return asked


def test_an_answer_that_is_there_costs_one_call(pair: tuple[Wire, _socket.socket]) -> None:
    wire, far = pair
    for _ in range(3 * LOOKS):
        far.send(encode_frame(b"x"))
        assert receives(wire, behind=lambda: None) == 1


def test_looking_in_vain_is_given_up_for_longer_and_longer(
    pair: tuple[Wire, _socket.socket],
) -> None:
    wire, far = pair
    asked = "".join(
        ".L"[receives(wire, behind=lambda: far.send(encode_frame(b"x"))) > 1] for _ in range(500)
    )
    first, *pauses = [len(pause) for pause in asked.split("L")]
    assert first == 8
    assert pauses[:7] == [2, 4, 8, 16, 32, 64, 64]


def test_an_answer_in_time_has_the_next_one_looked_for(pair: tuple[Wire, _socket.socket]) -> None:
    wire, far = pair
    late = encode_frame(b"x")
    while receives(wire, behind=lambda: far.send(late)) == 1:
        continue
    for _ in range(3):
        # In vain twice as long as before, if nothing had come in between.
        assert receives(wire, behind=lambda: far.send(late)) == 1
        assert receives(wire, behind=lambda: far.send(late)) == 1
        far.send(late)
        assert receives(wire, behind=lambda: None) == 1
        assert receives(wire, behind=lambda: far.send(late)) == LOOKS + 1


def test_a_server_that_sends_a_little_at_once_each_time_does_not_outlast_the_deadline(
    pair: tuple[Wire, _socket.socket],
) -> None:
    wire, far = pair
    for _ in range(8):
        far.send(encode_frame(b"x"))
        wire.receive_frame(in_time())
    far.send(encode_frame(b"x"))
    with pytest.raises(TimeoutError):
        wire.receive_frame(time.monotonic() - 1)
