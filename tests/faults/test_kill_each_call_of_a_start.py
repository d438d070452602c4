"""Killed at any system call of its start, while it puts right what an earlier kill left behind.

The next start finds what a start that nobody disturbed finds: nothing more is lost or set aside,
and nothing temporary is left.
"""

from __future__ import annotations

import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol.producer import Producer

from ..running import START_SECONDS, wait_until
from .expectation import read_contents
from .injecting import arguments, calls_in, choose, left_over, paths_of_shard, require_strace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..running import Daemon
    from .expectation import Contents
    from .injecting import Call
    from .report import FaultCase

    Spoil = Callable[[Path], None]

PARTS = 3
"""Each of them ends in time on a slow machine, also where every call is tried."""
KILLS_PER_PART = 2
IMAGE = {f"n{i:02d}": bytes([65 + i]) * 3_000 for i in range(12)}


def nothing_more(_shard: Path) -> None:
    return


def damage_the_image(shard: Path) -> None:
    flip_last_byte(shard / "image")


def damage_the_first_journal(shard: Path) -> None:
    # The journal that follows vouches for it: this is damage, not a torn tail.
    flip_last_byte(min(shard.glob("journal.*")))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("spoil", [nothing_more, damage_the_image, damage_the_first_journal])
def test_killed_at_each_system_call_of_a_start(
    spoil: Spoil, part: int, idle_daemon: Daemon, case: FaultCase, effort: int
) -> None:
    case.unit = "kills"
    require_strace(case)
    daemon, template = idle_daemon, idle_daemon.directory / "template"
    acknowledged = leave_much_behind(daemon)
    shard = shard_directory(daemon)
    spoil(shard)
    shutil.copytree(daemon.cache_dir, template)
    log = daemon.directory / "calls"
    expected = traced_start(daemon, arguments(paths_of_shard(shard), log))
    assert (expected == acknowledged) == (spoil is nothing_more)
    points = calls_in(log)
    assert {"openat", "unlink"} <= {point.name for point in points}
    for call in choose(points[part::PARTS], effort, KILLS_PER_PART):
        put_back(daemon, template)
        start_and_be_killed(daemon, call)
        case.explored += 1
        found = next_start(daemon, case, is_damaged=spoil is not nothing_more)
        case.lost += sum(name not in found for name in expected)
        case.wrong += sum(expected.get(name) != blob for name, blob in found.items())
        assert found == expected, f"killed at {call}"
    assert (case.lost, case.wrong) == (0, 0)


def shard_directory(daemon: Daemon) -> Path:
    return daemon.cache_dir / Producer("zsh", "5.9").shard_id()


def leave_much_behind(daemon: Daemon) -> Contents:
    """Be killed with an image, journals, bulks and temporary files; return what was stored."""
    with daemon.start().cache() as cache:
        cache.replace(IMAGE)
    daemon.restart()
    with daemon.cache() as cache:
        cache.put_many({"n00": b"newer", "n01": b"newer"})
        cache.delete(["n02"])
    daemon.kill()
    daemon.start()
    with daemon.cache() as cache, daemon.connect() as other:
        cache.put("n03", b"newest")
        assert other.hello().error is None
        token = other.ok("bulk_begin", "merge")
        other.ok("bulk_add", token, {"n04": [b"of a bulk"], "n12": [b"of a bulk"]})
        other.ok("bulk_commit", token)
        other.ok("bulk_add", other.ok("bulk_begin", "merge"), {"half": [b"half"]})
        contents = read_contents(cache)
        daemon.kill()
    shard = shard_directory(daemon)
    (shard / "image.tmp").write_bytes(b"half an image")
    (shard / "bulk.00000099").write_bytes(b"named by no frame")
    dropped = daemon.cache_dir / ".dropped-1-1"
    dropped.mkdir()
    (dropped / "image").write_bytes(b"of a shard that was dropped")
    return contents


def put_back(daemon: Daemon, template: Path) -> None:
    """Let the cache directory be as it was."""
    shutil.rmtree(daemon.cache_dir)
    shutil.copytree(template, daemon.cache_dir)


def traced_start(daemon: Daemon, tracer: list[str]) -> Contents:
    """Start with strace beside it; return what is found."""
    daemon.prefix = [*tracer, "-D"]
    daemon.start()
    daemon.prefix = ()
    with daemon.cache() as cache:
        contents = read_contents(cache)
    daemon.kill()
    return contents


def start_and_be_killed(daemon: Daemon, call: Call) -> None:
    """Start a daemon that is killed at a call, or when it answers."""
    paths, log = paths_of_shard(shard_directory(daemon)), daemon.directory / "calls"
    # Other calls need not stop: it starts five times as fast.
    daemon.prefix = [*arguments(paths, log, call.killed()), "-D", "--seccomp-bpf"]
    daemon.process = daemon.spawn()
    daemon.prefix = ()
    wait_until(lambda: has_ended_or_serves(daemon), START_SECONDS, "the daemon to serve or to end")
    daemon.process.kill()
    assert daemon.wait() == -signal.SIGKILL, daemon.log


def has_ended_or_serves(daemon: Daemon) -> bool:
    """Tell whether there is nothing more to wait for."""
    assert daemon.process is not None
    if daemon.process.poll() is not None:
        return True
    try:
        with daemon.connect() as client:
            return bool(client.ok("ping") == "pong")
    except OSError:
        return False


def next_start(daemon: Daemon, case: FaultCase, *, is_damaged: bool) -> Contents:
    """Start without a disturbance; return what is found."""
    before = time.monotonic()
    daemon.start()
    case.recovered(time.monotonic() - before)
    assert bool(daemon.status()["storage"]["set_aside"]) == is_damaged
    assert left_over(daemon.cache_dir) == []
    with daemon.cache() as cache:
        contents = read_contents(cache)
    daemon.kill()
    return contents
