"""The unmodified daemon's own system calls, through the model of a disk.

strace watches a real daemon while clients write to it; what it saw is replayed, and every crash
point gives states that the real recovery must make good: see `exploring`.
"""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..running import producer_map, wait_until
from .disk_model import Acknowledged, Create, Disk, SyncDirectory, SyncFile
from .exploring import Explorer, Promises
from .injecting import Tracer, require_strace
from .strace_log import CALLS, replay

if TYPE_CHECKING:
    from pathlib import Path

    from ..running import Daemon, RawClient
    from .report import FaultCase
    from .strace_log import Replay

STATES = 160
"""Times the effort."""

LEVELS = ("write", "fsync", "memory", "write")
BUILD_SECONDS = 30.0


def write_much(client: RawClient, generator: random.Random, *, rounds: int) -> None:
    """Send writes of every kind, several at a time, of which some make images be built."""
    for turn in range(rounds):
        level = LEVELS[turn % len(LEVELS)]
        large = {f"n{generator.randrange(12)}": [generator.randbytes(90_000)] for _ in range(6)}
        answers = client.call_all(
            ("put_many", large, None, level),
            ("put", "small", bytes([turn]), None, None, "fsync"),
            ("delete", [f"n{generator.randrange(12)}"], level),
            ("put", f"turn{turn}", generator.randbytes(50), None, None, level),
        )
        assert not any(answer.error for answer in answers), answers
        client.notify("put", "nobody waits", bytes([turn]))
        if turn % 4 == 1:
            bulk(client, "replace" if turn % 8 == 5 else "merge", large, level)
        if turn % 5 == 3:
            client.ok("flush")
        if turn % 7 == 6:
            client.ok("clear", level)


def bulk(client: RawClient, mode: str, entries: dict[str, list[bytes]], level: str) -> None:
    """Send a bulk, one entry at a time."""
    token = client.ok("bulk_begin", mode, None, None)
    for name, entry in entries.items():
        client.ok("bulk_add", token, {name: entry})
    client.ok("bulk_commit", token, level)


def record(daemon: Daemon, log: Path) -> None:
    """Have strace watch the daemon while two clients write to a shard each, and as it stops."""
    generator = random.Random(3)
    command = ["strace", "-f", "-qq", "-xx", "-s", str(1 << 24), "-e", f"trace={CALLS}"]
    with ExitStack() as stack:
        stack.enter_context(Tracer(daemon.pid, [*command, "-e", "signal=none", "-o", str(log)]))
        clients = [stack.enter_context(daemon.connect()) for _ in range(2)]
        for number, client in enumerate(clients):
            client.hello(producer_map(f"shell{number}/1/8"))
        for client in clients * 2:
            write_much(client, generator, rounds=8)
        builds = daemon.status()["counters"]["builds"]
        write_much(clients[0], generator, rounds=4)
        wait_until(
            lambda: daemon.status()["counters"]["builds"] > builds, BUILD_SECONDS, "one more image"
        )
        assert daemon.stop() == 0


def check_that_nothing_was_missed(replayed: Replay, daemon: Daemon) -> None:
    """Assert that the model ends with just the files that are really there."""
    disk = Disk(str(daemon.cache_dir))
    for operation in replayed.log:
        disk.apply(operation)
    modelled = {
        os.path.relpath(path, daemon.cache_dir): data for path, data in disk.after_kill().files
    }
    assert modelled.keys() == daemon.files
    for name, data in modelled.items():
        assert (daemon.cache_dir / name).read_bytes() == data, name


def test_replay_of_strace(daemon: Daemon, tmp_path: Path, case: FaultCase, effort: int) -> None:
    case.name = "replay of strace's log of a real daemon"
    require_strace(case)
    log = tmp_path / "strace"
    record(daemon, log)
    replayed = replay(log, str(daemon.cache_dir))
    seen = {type(operation) for operation in replayed.log}
    assert {Create, SyncFile, SyncDirectory, Acknowledged} <= seen
    explorer = Explorer(case, daemon.cache_dir, tmp_path / "scratch")
    # About ten states at each crash point.
    every = STATES * effort / 10 / len(replayed.log)
    check_that_nothing_was_missed(replayed, daemon)
    promises = Promises(replayed.histories)
    explorer.explore(replayed.log, promises, "strace", every=every, states=2)
    explorer.crash(promises, "strace, at the end")
    assert case.explored
    assert case.lost == case.wrong == 0
