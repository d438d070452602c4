"""Killed at any system call that touches the cache, the live daemon has lost nothing.

A daemon is killed as it enters the call (the call itself is not made); the next start is checked:
acknowledged writes are there, the one that got no answer is whole or not there, nothing else is,
and nothing temporary stays behind. Each kill has a shard of its own; those of earlier kills are
looked at again.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.errors import CacheError
from autoloadd_protocol.producer import Producer

from ..running import START_SECONDS, wait_until
from .expectation import DiedError, Expectation
from .injecting import (
    Tracer,
    arguments,
    calls_in,
    choose,
    left_over,
    paths_of_shard,
    require_strace,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..running import Daemon
    from .injecting import Call
    from .report import FaultCase

    Scenario = Callable[[Daemon, Expectation], None]

BUILD_SECONDS = 20.0
KILLS_PER_SCENARIO = 5
KEPT_SHARDS = 4
LARGE = {f"n{i:02d}": bytes([65 + i]) * 100_000 for i in range(12)}
"""More than 1 MiB: an image is built at once."""


def flush(_daemon: Daemon, shard: Expectation) -> None:
    shard.put({"a": b"a1"})
    shard.put({"b": b"b1", "c": b"c1"})
    shard.flush()
    shard.put({"a": b"a2"})
    shard.delete("b")
    shard.flush()


def put_at_fsync(_daemon: Daemon, shard: Expectation) -> None:
    shard.put({"a": b"a1"}, sync="fsync")
    shard.put({"a": b"a2", "b": b"b1" * 5000}, sync="fsync")
    shard.delete("b", sync="fsync")
    shard.clear(sync="fsync")
    shard.put({"c": b"c1"}, sync="fsync")


def build_of_an_image(daemon: Daemon, shard: Expectation) -> None:
    shard.put({"a": b"a1", "n00": b"older"})
    builds = builds_of(shard)
    shard.replace(LARGE)
    shard.put({"during": b"during"})
    shard.delete("n01", "n02")
    wait_for_build(shard, builds)
    shard.put({"after": b"after"})
    shard.replace({"small": b"small"}, sync="fsync")


def clear_during_a_build(daemon: Daemon, shard: Expectation) -> None:
    builds = builds_of(shard)
    shard.put(LARGE)
    shard.clear()
    shard.put({"only": b"this"})
    wait_for_build(shard, builds)
    shard.put({"after": b"after"})


def clean_stop(daemon: Daemon, shard: Expectation) -> None:
    shard.put({"a": b"a1", "b": b"b1"})
    shard.replace({"c": b"c1" * 1000, "d": b"d1"})
    shard.delete("d")
    os.kill(daemon.pid, signal.SIGTERM)
    assert daemon.process is not None
    daemon.process.wait(START_SECONDS)
    raise DiedError


SCENARIOS: list[Scenario] = [
    flush,
    put_at_fsync,
    build_of_an_image,
    clear_during_a_build,
    clean_stop,
]


def builds_of(shard: Expectation) -> int:
    """Return how many images the daemon has built. Raises DiedError."""
    try:
        builds: int = shard.cache.status()["counters"].get("builds", 0)
    except CacheError as exc:
        raise DiedError from exc
    return builds


def wait_for_build(shard: Expectation, before: int) -> None:
    """Wait for the next image, and for the journals that it covers to be gone."""
    wait_until(lambda: builds_of(shard) > before, BUILD_SECONDS, "an image to be built")
    # Whoever flushes waits for the syncing thread, which removes them.
    shard.flush()


@dataclass
class Trials:
    """One daemon after another on a cache directory, each killed at another call."""

    daemon: Daemon
    case: FaultCase
    stack: ExitStack
    log: Path
    shards: list[Expectation]
    _next: int = 1

    def run(self, scenario: Scenario, call: Call | None) -> None:
        """Run a scenario on a new shard, be killed at a call (None: at the end), and check."""
        producer = Producer("zsh", str(self._next))
        self._next += 1
        paths = paths_of_shard(self.daemon.cache_dir / producer.shard_id())
        shard = self._begin(f"zsh/{producer.version}/8")
        fault = None if call is None else call.killed()
        with Tracer(self.daemon.pid, arguments(paths, self.log, fault)):
            self._carry_out(scenario, shard)
        self.case.explored += 1
        self._check(f"{scenario.__name__} killed at {call}")

    def _begin(self, producer: str) -> Expectation:
        shard = Expectation(self.stack.enter_context(self.daemon.cache(producer)))
        self.shards.append(shard)
        if len(self.shards) > KEPT_SHARDS:
            oldest = self.shards.pop(0).cache
            oldest.clear()
            oldest.close()
        return shard

    def _carry_out(self, scenario: Scenario, shard: Expectation) -> None:
        process = self.daemon.process
        assert process is not None
        try:
            scenario(self.daemon, shard)
        except DiedError:
            pass
        else:
            process.kill()
        status = process.wait(START_SECONDS)
        assert status in (0, -signal.SIGKILL), self.daemon.log

    def _check(self, what: str) -> None:
        before = time.monotonic()
        self.daemon.start()
        self.case.recovered(time.monotonic() - before)
        check_start(self.daemon, what)
        for shard in self.shards:
            shard.check_after_crash(self.case)


def check_start(daemon: Daemon, what: str) -> None:
    """See that a kill is not taken for damage, and that nothing temporary is left."""
    storage = daemon.status()["storage"]
    assert (storage["state"], list(storage["set_aside"])) == ("healthy", []), what
    # An image may be due at once: the one being written is not left over.
    wait_until(
        lambda: not left_over(daemon.cache_dir), BUILD_SECONDS, f"no temporary files: {what}"
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_each_system_call(
    scenario: Scenario, idle_daemon: Daemon, case: FaultCase, effort: int
) -> None:
    case.unit = "kills"
    require_strace(case)
    daemon = idle_daemon.start()
    with ExitStack() as stack:
        trials = Trials(daemon, case, stack, daemon.directory / "calls", [])
        trials.run(scenario, None)
        points = calls_in(trials.log)
        assert {"openat", "writev"} <= {point.name for point in points}
        for call in choose(points, effort, KILLS_PER_SCENARIO):
            trials.run(scenario, call)
    assert (case.lost, case.wrong) == (0, 0)
