"""A pace: work, then a longer rest; none for one who hurries."""

from __future__ import annotations

import select
import time

import pytest

from autoloadd_daemon.storage.pace import Pace, at_once


def work(seconds: float) -> None:
    """Use the processor for so long."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def rests(pace: Pace, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return how long it rests after 2 ms of work, in seconds; nothing where it does not."""
    pace._may_work = min(pace._may_work, 1e-3)
    found: list[float] = []
    with monkeypatch.context() as patched:
        patched.setattr(select, "select", lambda *waits: found.append(waits[-1]))
        pace.rest()
        work(0.002)
        pace.rest()
    return found


def test_a_rest_is_four_times_as_long_as_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    (seconds,) = rests(pace, monkeypatch)
    assert 0.008 <= seconds <= 0.010
    begin = time.monotonic()
    work(0.002)
    pace.rest()
    assert time.monotonic() - begin >= 0.002 + 0.008


def test_a_rest_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoloadd_daemon.storage.pace._REST_SECONDS", 0.001)
    assert rests(Pace(), monkeypatch) == [0.001]


def test_little_work_needs_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoloadd_daemon.storage.pace._FIRST_WORK_SECONDS", 3600)
    pace = Pace()
    monkeypatch.setattr(select, "select", pytest.fail)
    pace.rest()
    work(0.002)
    pace.rest()


def test_who_hurries_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    assert rests(pace, monkeypatch) != []
    pace.hurry()
    assert rests(pace, monkeypatch) == []
    assert rests(at_once(), monkeypatch) == []


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_nothing_is_lost_between_rests(count: int) -> None:
    assert list(Pace().over(range(count))) == list(range(count))
