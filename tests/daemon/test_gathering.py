"""A batch that is to be synced waits a moment for the writes that are on their way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.gathering import LONGEST_NS, Gathering
from autoloadd_daemon.writes import Put

from .engine import Engine
from .harness import PRODUCER, Item, RecordingFiles, records_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MS = 1_000_000


class Clock:
    """CLOCK_MONOTONIC as the tests set it."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * MS

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", clock)
    return clock


def test_it_waits_for_those_who_were_answered_together(clock: Clock) -> None:
    gathering = Gathering()
    assert not gathering.is_worth_it(1), "nobody is known to come"
    gathering.note_sync(synced=3, waiting=2, began_ns=clock.now_ns - 200_000)
    assert gathering.is_worth_it(4)
    assert not gathering.is_worth_it(5)


def test_half_of_what_a_sync_takes(clock: Clock) -> None:
    gathering = Gathering()
    gathering.note_sync(synced=2, waiting=0, began_ns=clock.now_ns - 200_000)
    clock.now_ns += 99_999
    assert gathering.is_worth_it(1)
    clock.now_ns += 1
    assert not gathering.is_worth_it(1)


def test_never_long(clock: Clock) -> None:
    gathering = Gathering()
    gathering.note_sync(synced=2, waiting=0, began_ns=clock.now_ns - 2_000 * MS)
    clock.now_ns += LONGEST_NS
    assert not gathering.is_worth_it(1)


@pytest.fixture
def files() -> RecordingFiles:
    return RecordingFiles()


@pytest.fixture
def engine(cache_dir: Path, files: RecordingFiles) -> Iterator[Engine]:
    with Engine(cache_dir, files) as engine:
        engine.writer.may_gather = True
        yield engine


def put(engine: Engine, answers: list[object], name: bytes, sync: str = "fsync") -> None:
    records = records_of({name: Item(b"blob")})
    engine.writer.submit(Put(PRODUCER, sync, answers.append, records))


def test_one_sync_serves_those_who_come_one_after_another(
    engine: Engine, files: RecordingFiles, clock: Clock
) -> None:
    answers: list[object] = []
    put(engine, answers, b"a")
    put(engine, answers, b"b")
    engine.writer.turn()
    clock.now_ns += MS
    engine.run_callback()
    assert answers == [1, 2]
    files.log.clear()
    put(engine, answers, b"a")
    engine.writer.turn()
    assert engine.writer.is_gathering
    assert files.log == []
    put(engine, answers, b"b")
    engine.writer.turn()
    assert not engine.writer.is_gathering
    assert engine.writer.is_busy
    engine.run_callback()
    assert answers == [1, 2, 3, 4]
    assert files.operations(on="journal") == ["append journal.00000001", "sync journal.00000001"]


def test_who_comes_no_more_is_not_waited_for(engine: Engine, clock: Clock) -> None:
    answers: list[object] = []
    put(engine, answers, b"a")
    put(engine, answers, b"b")
    engine.writer.turn()
    clock.now_ns += MS
    engine.run_callback()
    put(engine, answers, b"a")
    engine.writer.turn()
    assert engine.writer.is_gathering
    clock.now_ns += LONGEST_NS
    engine.writer.turn()
    assert not engine.writer.is_gathering
    engine.run_callback()
    assert answers == [1, 2, 3]


def test_writes_without_a_sync_wait_for_nobody(engine: Engine, clock: Clock) -> None:
    answers: list[object] = []
    put(engine, answers, b"a")
    put(engine, answers, b"b")
    engine.writer.turn()
    clock.now_ns += MS
    engine.run_callback()
    put(engine, answers, b"a", "write")
    engine.writer.turn()
    assert answers == [1, 2, 3]


def test_where_no_turn_follows_by_itself_nothing_gathers(engine: Engine, clock: Clock) -> None:
    engine.writer.may_gather = False
    answers: list[object] = []
    put(engine, answers, b"a")
    put(engine, answers, b"b")
    engine.writer.turn()
    clock.now_ns += MS
    engine.run_callback()
    put(engine, answers, b"a")
    engine.writer.turn()
    assert engine.writer.is_busy
    engine.run_callback()
    assert answers == [1, 2, 3]


def test_nothing_gathers_while_a_shard_is_dropped(engine: Engine, clock: Clock) -> None:
    """Who is told that something gathers asks again and again, without sleeping."""
    answers: list[object] = []
    put(engine, answers, b"a")
    put(engine, answers, b"b")
    engine.writer.turn()
    clock.now_ns += MS
    engine.run_callback()
    put(engine, answers, b"a")
    engine.writer.turn()
    assert engine.writer.is_gathering
    engine.writer.evict(PRODUCER.shard_id(), answers.append)
    engine.writer.turn()
    assert engine.writer.is_busy
    assert not engine.writer.is_gathering
    clock.now_ns += LONGEST_NS
    engine.settle()
    assert answers == [1, 2, None, 1]
