"""A batch that is to be synced waits a moment for the writes that are on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.gathering import LONGEST_NS, Gathering
from autoloadd_daemon.writes import Put

from .harness import PRODUCER, Clock, Item, RecordingFiles, records_of

if TYPE_CHECKING:
    from .engine import Engine

MS = 1_000_000


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
def engine(engine: Engine) -> Engine:
    engine.writer.may_gather = True
    return engine


def put(engine: Engine, answers: list[object], name: bytes, sync: str = "fsync") -> None:
    records = records_of({name: Item(b"blob")})
    engine.writer.submit(Put(PRODUCER, sync, answers.append, records))


def synced_together(engine: Engine, clock: Clock) -> list[object]:
    """Put two entries by one sync of a millisecond; return the answers, to which more may come."""
    answers: list[object] = []
    put(engine, answers, b"a")
    put(engine, answers, b"b")
    engine.writer.turn()
    clock.now_ns += MS
    engine.run_callback()
    return answers


def test_one_sync_serves_those_who_come_one_after_another(
    engine: Engine, files: RecordingFiles, clock: Clock
) -> None:
    answers = synced_together(engine, clock)
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
    answers = synced_together(engine, clock)
    put(engine, answers, b"a")
    engine.writer.turn()
    assert engine.writer.is_gathering
    clock.now_ns += LONGEST_NS
    engine.writer.turn()
    assert not engine.writer.is_gathering
    engine.run_callback()
    assert answers == [1, 2, 3]


def test_writes_without_a_sync_wait_for_nobody(engine: Engine, clock: Clock) -> None:
    answers = synced_together(engine, clock)
    put(engine, answers, b"a", "write")
    engine.writer.turn()
    assert answers == [1, 2, 3]


def test_where_no_turn_follows_by_itself_nothing_gathers(engine: Engine, clock: Clock) -> None:
    engine.writer.may_gather = False
    answers = synced_together(engine, clock)
    put(engine, answers, b"a")
    engine.writer.turn()
    assert engine.writer.is_busy
    engine.run_callback()
    assert answers == [1, 2, 3]


def test_nothing_gathers_while_a_shard_is_dropped(engine: Engine, clock: Clock) -> None:
    """Who is told that something gathers asks again and again, without sleeping."""
    answers = synced_together(engine, clock)
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
