"""The system around the daemon gives it too few descriptors, or too little memory."""

from __future__ import annotations

import os
import random
import resource
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from autoloadd_client.errors import (
    CacheError,
    ConnectionLostError,
    UnreachableError,
)

from ..running import PRODUCER, Daemon, wait_until
from .written import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .report import FaultCase

PATIENCE_SECONDS = 60.0
KIB = 1024
MIB = 1024 * KIB
DESCRIPTORS = 96
PRODUCERS = 110
SPARE_BYTES = [0, 64 * KIB, MIB, 3 * MIB, 12 * MIB]


@contextmanager
def limited(daemon: Daemon, what: int, soft: int) -> Iterator[None]:
    """The running daemon has less of a resource."""
    before = resource.prlimit(daemon.pid, what)
    resource.prlimit(daemon.pid, what, (soft, before[1]))
    try:
        yield
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            resource.prlimit(daemon.pid, what, before)


def open_descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def kill_if_alive(daemon: Daemon) -> None:
    """End a daemon that may have ended by itself."""
    if daemon.process is not None:
        daemon.process.kill()
        daemon.wait()


def check_after_kill(case: FaultCase, daemon: Daemon, written: dict[str, Written]) -> None:
    """End it, start one without the limit, and see that nothing acknowledged is lost."""
    kill_if_alive(daemon)
    daemon.prefix = ()
    began = time.monotonic()
    daemon.start()
    case.recovered(time.monotonic() - began)
    for producer, of in written.items():
        with daemon.cache(producer) as cache:
            of.check(cache, case)
    assert (case.lost, case.wrong) == (0, 0)


# Descriptors


def test_many_producers_and_few_descriptors(case: FaultCase, idle_daemon: Daemon) -> None:
    """More shards than descriptors: each is written, and nothing is called a fault."""
    case.unit = "shards"
    idle_daemon.prefix = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    idle_daemon.start()
    written = {f"shell/{number}/8": Written() for number in range(PRODUCERS)}
    for sync in ("fsync", "write"):
        for producer, of in written.items():
            with idle_daemon.cache(producer) as cache:
                assert of.put(cache, "a", sync=sync)
        assert idle_daemon.status()["storage"]["state"] == "healthy"
    case.explored = len(written)
    check_after_kill(case, idle_daemon, written)


def test_no_descriptor_is_left(case: FaultCase, daemon: Daemon) -> None:
    """Who is connected is read from and written to; nothing is called a fault; then it goes on."""
    names = [f"shell/{number}/8" for number in range(6)]
    written = {name: Written() for name in names}
    with ExitStack() as stack:
        caches = {name: stack.enter_context(daemon.cache(name)) for name in names}
        for name in names[:3]:
            assert written[name].put(caches[name], "a", sync="fsync")
        for cache in caches.values():
            cache.ping()
        watcher = stack.enter_context(daemon.connect())
        assert watcher.ok("ping") == "pong"
        for _ in range(3):
            with limited(daemon, resource.RLIMIT_NOFILE, open_descriptors(daemon)):
                for name in names:
                    for sync in ("write", "fsync"):
                        written[name].put(caches[name], "a", "b", sync=sync)
                    written[name].merge(caches[name], ["a", "c"], size=100)
                    written[name].check(caches[name], case, crashed=False)
                assert watcher.ok("status")["storage"]["state"] == "healthy", daemon.log
            for name in names:
                assert written[name].put(caches[name], "a", sync="fsync")
            case.explored += 1
        case.measured("writes refused as busy", sum(of.refused for of in written.values()))
        assert daemon.status()["storage"]["state"] == "healthy"
    check_after_kill(case, daemon, written)


# Memory


def test_no_memory_is_left(case: FaultCase, idle_daemon: Daemon, effort: int) -> None:
    """What cannot be had is refused, or ends the daemon; what was acknowledged is there after."""
    case.unit = "limits"
    written = Written()
    idle_daemon.start()
    try:
        for number, spare in enumerate(SPARE_BYTES * effort):
            press(idle_daemon, written, random.Random(number), spare)
            check_after_kill(case, idle_daemon, {PRODUCER: written})
            case.explored += 1
    finally:
        kill_if_alive(idle_daemon)


def press(daemon: Daemon, written: Written, generator: random.Random, spare: int) -> None:
    """Write and read with little memory left; see that the daemon ends, or goes on."""
    with daemon.cache(timeout=PATIENCE_SECONDS, bulk_timeout=PATIENCE_SECONDS) as cache:
        assert written.put(cache, "a", size=MIB)
        with limited(daemon, resource.RLIMIT_AS, address_space(daemon) + spare):
            for _ in range(6):
                key = f"n{generator.randrange(8)}"
                written.put(cache, key, size=generator.choice([300, 100 * KIB, 2 * MIB]))
                written.merge(cache, [key, "m"], size=MIB)
                with suppress(CacheError):
                    cache.get(key)
        try:
            cache.ping()
        except (UnreachableError, ConnectionLostError):
            assert daemon.wait() == 1
            # It ends at once, or trio does that gets none itself.
            ends = ("no memory is left: ending at once, as if killed\n", "please file a bug!\n")
            assert daemon.log.endswith(ends)
            assert daemon.log.endswith(ends[0]) or "MemoryError" in daemon.log
        else:
            wait_until(lambda: written.put(cache, "a", sync="fsync"), PATIENCE_SECONDS, "a put")


def address_space(daemon: Daemon) -> int:
    text = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(text.partition("VmSize:")[2].split()[0]) * KIB
