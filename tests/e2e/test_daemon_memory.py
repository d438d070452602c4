"""Memory of many clients together: twenty times what one client may hold is not held."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol.limits import FRAME_BYTES

from ..running import producer_map, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..running import Daemon, RawClient

SECONDS = 60.0
MIB = 1024 * 1024
CLIENTS = 20
MAY_GROW = 16 * MIB
FRAME_IN_WORK = FRAME_BYTES * 2
"""Beside what waits, one large request at a time is taken apart: its frame and its values."""


def memory_of(daemon: Daemon, field: str = "VmRSS") -> int:
    """Return how much memory the daemon has, in bytes; VmHWM: the most that it had."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak(daemon: Daemon) -> None:
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")


def in_background(
    stack: ExitStack, work: Callable[[RawClient], None], clients: list[RawClient]
) -> None:
    """Have each client do its work in a thread, whatever becomes of it."""

    def run(client: RawClient) -> None:
        with suppress(OSError):
            work(client)

    pool = stack.enter_context(ThreadPoolExecutor(len(clients)))
    for client in clients:
        pool.submit(run, client)
        # Threads that still send end then.
        stack.callback(client.socket.close)


@pytest.fixture
def warmed(served: Daemon) -> Daemon:
    """A daemon whose allocator has met the largest request already."""
    names = [f"{number:05}" + "n" * 900 for number in range(8000)]
    with served.cache("warm/1/8") as cache:
        cache.put_many({f"large{number}": bytes(3 * MIB) for number in range(2)})
        cache.merge(dict.fromkeys(names[:2000], b""))
        cache.missing(names)
        assert len(list(cache.names())) >= 2002
    return served


def test_requests_that_are_never_finished(warmed: Daemon) -> None:
    """Small requests of others are answered meanwhile, large ones when those are cut off."""
    before = memory_of(warmed)
    forget_peak(warmed)
    cut_off = warmed.status()["counters"].get("cut_off", 0)
    with ExitStack() as stack:
        hostile = [stack.enter_context(warmed.connect()) for _ in range(CLIENTS)]
        begun = FRAME_BYTES.to_bytes(4, "big") + bytes(7 * MIB)
        in_background(stack, lambda client: client.send(begun), hostile)
        with warmed.cache("other/1/8") as cache:
            for number in range(300):
                cache.put(f"n{number}", b"%d" % number * 700)
                assert cache.get(f"n{number}") == b"%d" % number * 700
            assert memory_of(warmed, "VmHWM") - before < MAY_GROW + 4 * MIB
            cache.put("large", bytes(4 * MIB))
            assert cache.get("large") == bytes(4 * MIB)
        wait_until(
            lambda: warmed.status()["counters"].get("cut_off", 0) == cut_off + CLIENTS,
            SECONDS,
            "them to be cut off",
        )
    assert memory_of(warmed, "VmHWM") - before < MAY_GROW + FRAME_IN_WORK + 4 * MIB
    wait_until(lambda: memory_of(warmed) - before < MAY_GROW, SECONDS, "it to be given back")


def test_idle_clients_keep_nothing_of_what_they_sent(warmed: Daemon) -> None:
    names = [f"{number:05}" + "n" * 900 for number in range(8000)]
    before = memory_of(warmed)
    with ExitStack() as stack:
        clients = [stack.enter_context(warmed.connect()) for _ in range(CLIENTS)]
        for client in clients:
            client.hello(producer_map("nobody/1/8"))
            assert len(client.ok("missing", names)) == len(names)
            # A heap of small ones too.
            client.call_all(*[("ping",)] * 2_000)
        assert memory_of(warmed) - before < MAY_GROW


def test_answers_that_are_never_taken(warmed: Daemon) -> None:
    with warmed.cache("warm/1/8") as cache:
        cache.merge({f"{number:04}" + "n" * 900: b"" for number in range(1000)})
    before = memory_of(warmed)
    forget_peak(warmed)
    with ExitStack() as stack:
        deaf = [stack.enter_context(warmed.connect()) for _ in range(CLIENTS)]
        for number, client in enumerate(deaf):
            client.hello(producer_map("warm/1/8"))
            # Pages of 900 kB, or as much in small answers.
            asked = ("names",) if number % 2 else ("get", "x" * 500)
            client.socket.setblocking(False)
            with suppress(BlockingIOError):
                client.socket.send(client.request_bytes(*asked) * (20 if number % 2 else 100_000))
        with warmed.cache("other/2/8") as cache, warmed.cache("warm/1/8") as reader:
            for number in range(300):
                cache.put(f"n{number}", b"%d" % number * 700)
                assert cache.get(f"n{number}") == b"%d" % number * 700
            # Whoever takes what is asked for gets it, also large answers.
            for _ in range(5):
                assert len(list(reader.names(prefix="0"))) >= 1000
        assert memory_of(warmed, "VmHWM") - before < MAY_GROW + FRAME_BYTES
    wait_until(lambda: memory_of(warmed) - before < MAY_GROW, SECONDS, "it to be given back")


def test_eight_bulks_at_once_come_through(warmed: Daemon) -> None:
    """Among clients that hold all the room there is."""
    blobs = {f"n{number}": os.urandom(100_000) for number in range(60)}
    stop = threading.Event()

    def merge(number: int) -> dict[str, bytes]:
        with warmed.cache(f"bulk/{number % 4}/8") as cache:
            cache.merge({f"{number}-{name}": blob for name, blob in blobs.items()})
            return cache.get_many([f"{number}-{name}" for name in blobs])

    def occupy() -> None:
        while not stop.is_set():
            with ExitStack() as stack:
                for _ in range(20):
                    client = stack.enter_context(warmed.connect())
                    with suppress(BlockingIOError, OSError):
                        client.socket.setblocking(False)
                        client.socket.send(FRAME_BYTES.to_bytes(4, "big") + bytes(MIB))
                stop.wait(0.5)

    with ThreadPoolExecutor(5) as pool:
        hostile = pool.submit(occupy)
        try:
            for found, number in zip(pool.map(merge, range(4)), range(4), strict=True):
                assert found == {f"{number}-{name}": blob for name, blob in blobs.items()}
        finally:
            stop.set()
        hostile.result(SECONDS)


def test_what_an_image_has_taken_over_is_given_back(daemon: Daemon) -> None:
    """Entries lie in the heap one by one until they are in an image, which is no heap."""
    before = memory_of(daemon, "RssAnon")
    blobs = {f"{number}": bytes(number * 37 % 8000) for number in range(12_000)}
    with daemon.cache() as cache:
        cache.merge(blobs)
        wait_until(lambda: image_bytes(daemon) > 36_000_000, SECONDS, "the image")
    wait_until(
        lambda: memory_of(daemon, "RssAnon") - before < MAY_GROW, SECONDS, "it to be given back"
    )


def test_an_image_goes_when_the_next_one_is_there(daemon: Daemon) -> None:
    with daemon.cache() as cache:
        for number in range(3):
            cache.replace({f"{each}": b"%d" % number * 3000 for each in range(4_000)})
            wait_until(lambda: image_bytes(daemon) > 12_000_000, SECONDS, "the image")
        wait_until(lambda: len(images_of(daemon)) == 1, SECONDS, "the images before to go")


def image_bytes(daemon: Daemon) -> int:
    """Return the bytes of all images that are in use, where no journal is left beside them."""
    with daemon.connect() as client:
        shards = client.ok("shards")
    return sum(shard["image_bytes"] for shard in shards if not shard["journal_bytes"])


def images_of(daemon: Daemon) -> set[str]:
    maps = Path(f"/proc/{daemon.pid}/maps").read_text().splitlines()
    return {line.split()[4] for line in maps if "memfd:autoloadd-image" in line}
