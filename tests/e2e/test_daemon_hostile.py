"""Clients that are slow, hung, hostile or too many: they are cut off, the others are served."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack  # type: ignore[import-untyped]
import pytest

from autoloadd_protocol.limits import FRAME_BYTES, FRAME_SECONDS, UNSENT_BYTES, UNSENT_SECONDS

from ..running import own_environment, producer_map, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..running import Daemon, RawClient

SECONDS = 20.0
MIB = 1024 * 1024
MAY_GROW = 16 * MIB
MEASURED = "COVERAGE_RUN" in os.environ
WORST_P99 = 1.0 if MEASURED else 0.05
"""What is promised to the others, in seconds; a daemon whose coverage is measured is far slower."""

TRIALS = 4
WORST_ANSWER = 5.0
"""No answer takes so long, in any trial, on any machine."""


def resident_bytes(daemon: Daemon, field: str = "VmRSS") -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def serves_others(daemon: Daemon, attack: Callable[[], None]) -> None:
    """Attack a daemon while another client puts and gets all the time; check what it was answered.

    Where the daemon waits for a processor, because of others on this machine, as much longer may
    its answers take. Other noise comes and goes: one trial of a few is without.
    """
    p99s: list[float] = []
    for _ in range(TRIALS):
        before = processor_time(daemon)
        with bystander(daemon) as took:
            attack()
        ran, waited = (now - then for now, then in zip(processor_time(daemon), before, strict=True))
        assert max(took) < WORST_ANSWER
        p99s.append(sorted(took)[len(took) * 99 // 100] * ran / (ran + waited))
        if p99s[-1] < WORST_P99:
            return
    raise AssertionError(f"p99 of another client's answers, in seconds: {p99s}")


def processor_time(daemon: Daemon) -> tuple[int, int]:
    """Return for how many ns the daemon's loop ran, and waited for a processor to run on.

    https://docs.kernel.org/scheduler/sched-stats.html; of kernels without, it counts as never.
    """
    try:
        ran, waited, _ = Path(f"/proc/{daemon.pid}/schedstat").read_text().split()
    except FileNotFoundError:
        return time.monotonic_ns(), 0
    return int(ran), int(waited)


@contextmanager
def bystander(daemon: Daemon) -> Iterator[list[float]]:
    """Have an honest client ask until the end of the block; then its answers' times are there."""
    took: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.bystander", daemon.socket_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=own_environment({}),
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield took
        finally:
            process.stdin.close()
        took += json.loads(process.stdout.read())
    assert process.returncode == 0


def is_cut_off(client: RawClient) -> bool:
    """Tell whether the server has closed, without waiting."""
    client.socket.setblocking(False)
    try:
        return client.socket.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


# Slow


def test_a_hundred_that_drip(served: Daemon) -> None:
    """A byte now and then: whoever has not completed a frame after 2 s is cut off."""
    serves_others(served, lambda: drip(served))


def drip(daemon: Daemon) -> None:
    """Have a hundred drip until they are cut off, and one that is slow but honest."""
    before = daemon.status()["counters"].get("cut_off", 0)
    with ExitStack() as stack:
        drippers = [stack.enter_context(daemon.connect()) for _ in range(100)]
        honest = stack.enter_context(daemon.connect())
        frame = honest.request_bytes("ping")
        started = time.monotonic()
        for number, dripper in enumerate(drippers):
            # Half of them say something sensible first; some stop within the length.
            dripper.send(frame * (number % 2) + b"\0\1\0\0\0"[: 2 + number % 4])
        sent = 0
        while time.monotonic() - started < FRAME_SECONDS - 1:
            if time.monotonic() - started > 0.1 * sent:
                sent += 1
                for dripper in drippers:
                    dripper.send(b"\0")
                # A frame that takes long, but not too long.
                honest.send(frame[sent - 1 : sent])
            time.sleep(0.005)
        honest.send(frame[sent:])
        if time.monotonic() - started < FRAME_SECONDS:
            # Only then: a machine that is busy enough makes anybody late.
            assert honest.receive() is not None, "cut off too soon"
        for dripper in drippers[1::2]:
            answer = dripper.receive()
            assert answer is not None
            assert answer.result == "pong"
        # However slowly they go on: bytes do not make time.
        wait_until(
            lambda: drip_on([each for each in drippers if not is_cut_off(each)]),
            SECONDS,
            "the drippers to be cut off",
        )
        assert time.monotonic() - started > FRAME_SECONDS
    assert daemon.status()["counters"]["cut_off"] >= before + 100


def drip_on(drippers: list[RawClient]) -> bool:
    """Send one byte more of each; tell whether there is nobody left to do so."""
    for dripper in drippers:
        with suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            dripper.send(b"\0")
    return not drippers


def test_an_idle_client_stays(served: Daemon) -> None:
    with served.connect() as idle:
        idle.ok("ping")
        until = time.monotonic() + FRAME_SECONDS + 0.5
        wait_until(lambda: time.monotonic() > until, SECONDS, "longer than a frame may take")
        assert idle.ok("ping") == "pong"


# Not reading


def send_all_it_takes(client: RawClient, data: bytes, at_least: int) -> int:
    """Send until the server takes nothing for a while; return how many bytes it took."""
    sent = 0
    with suppress(TimeoutError):
        while True:
            # It may be slow, but it is not finished before so much.
            client.socket.settimeout(SECONDS if sent < at_least else 0.5)
            sent += client.socket.send(data)
    return sent


def read_steadily(daemon: Daemon, seconds: float) -> int:
    """Always have 5 MB of answers outstanding, and take one at a time; return how many came."""
    with daemon.connect() as client:
        client.hello(producer_map("big/1/8"))
        get = client.request_bytes("get", "blob")
        client.send(get * 50)
        until = time.monotonic() + seconds
        received = 0
        while time.monotonic() < until:
            assert client.receive_frame() is not None
            received += 1
            client.send(get)
            time.sleep(0.02)
    return received


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_clients_that_never_read(idle_daemon: Daemon, serving: str) -> None:
    """At 16 MiB of unsent answers they are read no more; after 10 s they are cut off."""
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    idle_daemon.start()
    with idle_daemon.cache("big/1/8") as cache:
        cache.put("blob", bytes(100_000))
        cache.put("small", b"")
    serves_others(idle_daemon, lambda: read_nothing(idle_daemon))
    assert idle_daemon.stop() == 0


def read_nothing(daemon: Daemon) -> None:
    """Have five ask without end and take no answer, beside one that always is behind a little."""
    cut_off = daemon.status()["counters"].get("cut_off", 0)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        steady = pool.submit(read_steadily, daemon, UNSENT_SECONDS + 2)
        before = resident_bytes(daemon)
        deaf = [stack.enter_context(daemon.connect()) for _ in range(5)]
        started = time.monotonic()
        for client in deaf:
            client.hello(producer_map("big/1/8"))
            # What was answered, what lies in the server, and what lies in the system.
            answered = UNSENT_BYTES // 100_000 * 24
            taken = send_all_it_takes(client, client.request_bytes("get", "blob") * 100, answered)
            assert answered < taken < answered + 2 * MIB
        # Answers from the shard's own memory take none.
        assert resident_bytes(daemon) - before < MAY_GROW
        wait_until(
            lambda: daemon.status()["counters"].get("cut_off", 0) == cut_off + 5,
            UNSENT_SECONDS + SECONDS,
            "them to be cut off",
        )
        assert time.monotonic() - started > UNSENT_SECONDS
        assert steady.result(SECONDS) > 100


# Hostile


def array32(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


def map32(count: int) -> bytes:
    return b"\xdf" + count.to_bytes(4, "big")


REQUEST = bytes.fromhex("94 00 07 a8")

BOMBS = {
    "a million empty arrays": REQUEST + b"get_many" + b"\x91" + array32(MIB) + b"\x90" * MIB,
    "names that are arrays": REQUEST + b"get_many" + b"\x91" + array32(65_536) + b"\x90" * 65_536,
    "a million nested arrays": b"\x91" * MIB,
    "a million nested maps": b"\x81\x01" * (MIB // 2),
    "nested headers of large arrays": (array32(1000)) * 800,
    "an array header of 4 G": b"\xdd\xff\xff\xff\xff",
    "a map header of 4 G": b"\xdf\xff\xff\xff\xff",
    "a str of 4 G": b"\xdb\xff\xff\xff\xffabc",
    "an ext of 4 G": b"\xc9\xff\xff\xff\xff\x01",
    "an ext": msgpack.packb([0, 1, "get", [msgpack.ExtType(5, bytes(MIB))]]),
    "floats": msgpack.packb([0, 1, "get_many", [[1.5] * 100_000]]),
    "no UTF-8": REQUEST + b"get_many\x91\x91\xdb" + MIB.to_bytes(4, "big") + b"\xff" * MIB,
    "entries of arrays": REQUEST + b"put_many\x91" + map32(10_000) + b"\xa1a\x94\x90\x90\x90\x90",
    "zeros": bytes(MIB),
    "many entries of nothing": msgpack.packb(
        [0, 1, "put_many", [{str(number): [] for number in range(65_536)}]]
    ),
    "a frame of one bin": b"\xc6" + (FRAME_BYTES - 5).to_bytes(4, "big") + bytes(FRAME_BYTES - 5),
}


def throw(daemon: Daemon, payload: bytes) -> str:
    """Send a payload on a connection of its own; return the code of the answer."""
    with daemon.connect() as client:
        client.hello(producer_map("hostile/1/8"))
        # The server may answer and close before it has read everything.
        with suppress(BrokenPipeError, ConnectionResetError):
            client.send(len(payload).to_bytes(4, "big") + payload)
        answer = client.receive()
        assert answer is not None
        assert answer.error is not None
        if answer.error[0] == "bad_frame":
            assert client.is_closed()
        else:
            assert client.ok("ping") == "pong"
        return answer.error[0]


def test_bombs(served: Daemon) -> None:
    """One error for each, no growth, and the others are served."""
    # Some of them have the size of the largest useful request: the allocator keeps that room.
    for bomb in [*BOMBS.values()] * 3:
        throw(served, bomb)
    before = resident_bytes(served)
    codes: dict[str, set[str]] = {name: set() for name in BOMBS}

    def throw_all() -> None:
        for _ in range(5):
            for name, bomb in BOMBS.items():
                codes[name].add(throw(served, bomb))

    serves_others(served, throw_all)
    assert resident_bytes(served) - before < MAY_GROW
    refused = {"no UTF-8", "names that are arrays", "many entries of nothing", "a frame of one bin"}
    too_large = {"a million empty arrays", "floats"}
    for name, found in codes.items():
        expected = "bad_request" if name in refused else "bad_frame"
        assert found == {"too_large" if name in too_large else expected}, name
    with served.connect() as client:
        client.hello(producer_map("hostile/1/8"))
        assert client.ok("count") == 0


def test_what_a_client_had_sent_and_was_owed_goes_with_it(served: Daemon) -> None:
    with served.cache("big/2/8") as cache:
        cache.merge({f"{number:04}" + "n" * 900: b"" for number in range(1000)})
    before = resident_bytes(served)
    # As much as all clients together may make it hold.
    with served.connect() as sends, served.connect() as asks:
        sends.send(FRAME_BYTES.to_bytes(4, "big") + bytes(7 * MIB))
        asks.hello(producer_map("big/2/8"))
        asks.send(asks.request_bytes("names") * 8)
        wait_until(lambda: resident_bytes(served) - before > 9 * MIB, SECONDS, "it to be there")
    wait_until(lambda: resident_bytes(served) - before < 5 * MIB, SECONDS, "it to be given back")


def test_a_hundred_that_hang_up_at_every_point(served: Daemon) -> None:
    """Whatever they had begun goes with them."""

    def hang_up() -> None:
        for cut in range(100):
            with served.connect() as client:
                hello = client.request_bytes("hello", [1, 0], producer_map("hostile/2/8"))
                begun = hello + client.request_bytes("bulk_begin", "merge")
                client.send((begun + client.request_bytes("put", "a", b"1")[:-1])[: cut * 2])

    serves_others(served, hang_up)
    wait_until(lambda: served.status()["connections"] == 1, SECONDS, "all of them to go")
    with served.connect() as client:
        client.hello(producer_map("hostile/2/8"))
        assert client.ok("count") == 0
        client.ok("bulk_abort", client.ok("bulk_begin", "merge"))
    assert not [name for name in served.files if "staged" in name]


# Too many


def connect_all(daemon: Daemon, count: int, stack: ExitStack) -> list[RawClient]:
    return [stack.enter_context(daemon.connect()) for _ in range(count)]


def is_served(client: RawClient) -> bool:
    """Tell whether the client has its answer to a ping by now."""
    client.socket.setblocking(False)
    try:
        return bool(client.socket.recv(100))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_short_of_descriptors(idle_daemon: Daemon, serving: str) -> None:
    """Who is connected is served, files too; who is not waits, and comes in when others go."""
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    idle_daemon.prefix = ["prlimit", "--nofile=96:96"]
    idle_daemon.start()
    with ExitStack() as stack:
        first = stack.enter_context(idle_daemon.connect())
        first.hello()
        clients = connect_all(idle_daemon, 150, stack)
        for client in clients:
            client.send(client.request_bytes("ping"))
        wait_until(
            lambda: first.ok("status")["counters"].get("accept_pauses", 0) > 0, SECONDS, "a pause"
        )
        connected = first.ok("status")["connections"]
        assert 20 < connected < 96
        # Writes of new shards need descriptors: they are never refused for clients' sake.
        for number in range(5):
            first.hello(producer_map(f"shell/{number}/8"))
            assert first.ok("put", "a", bytes(2 * MIB)) == 1
            assert first.ok("put", "b", bytes(2 * MIB), None, None, "fsync") == 2
            assert first.ok("get", "a")[1] == bytes(2 * MIB)
        assert first.ok("status")["storage"]["state"] == "healthy"
        served = [client for client in clients if is_served(client)]
        assert connected - 3 <= len(served) <= connected
        waiting = [client for client in clients if client not in served]
        for client in served:
            client.socket.shutdown(socket.SHUT_RDWR)
        wait_until(
            lambda: sum(map(is_served, waiting)) > 0, SECONDS, "waiting clients to be served"
        )
    wait_until(lambda: idle_daemon.status()["connections"] == 1, SECONDS, "everybody to be gone")
    assert idle_daemon.stop() == 0


def test_a_soft_limit_is_raised(idle_daemon: Daemon) -> None:
    """The usual soft limit, 1,024, is less than the daemon needs for as many clients."""
    idle_daemon.prefix = ["prlimit", "--nofile=48:4096"]
    idle_daemon.start()
    with ExitStack() as stack:
        for client in connect_all(idle_daemon, 200, stack):
            assert client.ok("ping") == "pong"
        assert idle_daemon.status()["connections"] == 201
