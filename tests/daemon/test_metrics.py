"""Counters, and when storage that is ill is tried again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from autoloadd_daemon.errors import FullError
from autoloadd_daemon.metrics import Health, Metrics
from autoloadd_daemon.storage.set_aside import SetAside

if TYPE_CHECKING:
    from .harness import Clock

MS = 1_000_000


def test_healthy_is_how_it_begins(clock: Clock) -> None:
    health = Health()
    assert not health.is_degraded
    assert not health.is_due()
    assert not health.heal()
    assert health.as_map() == {
        "state": "healthy", "error": None, "since_ns_ago": None, "next_try_ns": None,
    }  # fmt: skip
    assert clock.now_ns > 0


def test_a_failure_is_reported_once_until_healed(clock: Clock) -> None:
    health = Health()
    assert health.report("disk full")
    clock.now_ns += 100 * MS
    assert not health.report("still full")
    assert health.is_degraded
    assert health.as_map() == {
        "state": "degraded",
        "error": "still full",
        "since_ns_ago": 100 * MS,
        "next_try_ns": 150 * MS,
    }
    assert health.heal()
    assert not health.heal()
    assert not health.is_degraded


def test_attempts_back_off_to_thirty_seconds(clock: Clock) -> None:
    health = Health()
    health.report("full")
    pauses: list[int] = []
    last = clock.now_ns
    while len(pauses) < 10:
        clock.now_ns += 50 * MS
        if health.is_due():
            pauses.append((clock.now_ns - last) // MS)
            last = clock.now_ns
            assert not health.is_due()
    assert pauses == [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]


def test_a_full_disk_is_tried_again_every_second(clock: Clock) -> None:
    health = Health()
    for _ in range(100):
        health.report("a failed sync")
        clock.now_ns += health.next_try_ns - clock.now_ns
        assert health.is_due()
    assert health.next_try_ns - clock.now_ns == 30_000 * MS
    health.report(FullError("no room"))
    assert health.next_try_ns - clock.now_ns == 1000 * MS, "room may come at any time"
    clock.now_ns += 1000 * MS
    assert health.is_due()
    assert health.next_try_ns - clock.now_ns == 1000 * MS


def test_after_healing_attempts_begin_soon_again(clock: Clock) -> None:
    health = Health()
    for _ in range(2):
        health.report("full")
        clock.now_ns += 250 * MS
        assert health.is_due()
        clock.now_ns += 500 * MS
        assert health.is_due()
        health.heal()
        assert not health.is_due()


def test_an_overdue_attempt_is_due_now(clock: Clock) -> None:
    health = Health()
    health.report("full")
    clock.now_ns += 10_000 * MS
    assert health.as_map()["next_try_ns"] == 0


def test_counters_count() -> None:
    before = time.monotonic_ns()
    metrics = Metrics()
    assert before <= metrics.started_ns <= time.monotonic_ns()
    metrics.count("writes")
    metrics.count("writes", 4)
    assert metrics.counters == {"writes": 5}
    assert metrics.counters["never"] == 0


def test_the_last_hundred_files_set_aside_are_kept() -> None:
    metrics = Metrics()
    metrics.set_aside.extend(SetAside(str(number), "bad") for number in range(150))
    assert [report.file for report in metrics.set_aside] == [str(n) for n in range(50, 150)]
