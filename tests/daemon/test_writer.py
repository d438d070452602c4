"""The writer: journal before memory before answer, one sync for a batch, refusals that hold."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.writer import MAX_WAITING
from autoloadd_daemon.writes import Clear, Delete, Drop, Flush, Put, Write
from autoloadd_protocol.errors import BAD_REQUEST, BUSY, NOT_DURABLE, SHUTTING_DOWN, RequestError
from autoloadd_protocol.producer import Producer

from .engine import Engine
from .harness import PRODUCER, Item, Life, RecordingFiles, contents_of, records_of

if TYPE_CHECKING:
    from pathlib import Path

OTHER = Producer("bash", "5.2", 8)
A, B = Item(b"blob a"), Item(b"blob b")


class Answers(list[object]):
    """Outcomes in the order in which they came."""

    @property
    def codes(self) -> list[object]:
        return [item.code if isinstance(item, RequestError) else item for item in self]


@pytest.fixture
def answers() -> Answers:
    return Answers()


def put(
    answers: Answers, name: bytes, item: Item, sync: str = "write", of: Producer = PRODUCER
) -> Put:
    return Put(of, sync, answers.append, records_of({name: item}))


def test_a_write_is_appended_applied_and_answered_in_its_turn(
    engine: Engine, files: RecordingFiles, answers: Answers
) -> None:
    engine.writer.submit(put(answers, b"a", A))
    assert answers == []
    assert not engine.writer.is_idle
    engine.writer.turn()
    assert answers == [1]
    assert engine.writer.is_idle
    assert files.operations()[-1] == "append journal.00000001"
    shard, _ = engine.catalog.open(PRODUCER)
    assert contents_of(shard) == {b"a": A}


def test_nobody_sees_a_write_before_its_sync(engine: Engine, answers: Answers) -> None:
    engine.writer.submit(put(answers, b"a", A, "fsync"))
    engine.writer.submit(put(answers, b"b", B))
    engine.writer.turn()
    shard, disk = engine.catalog.open(PRODUCER)
    assert contents_of(shard) == {}
    assert answers == []
    engine.writer.submit(put(answers, b"a", B))
    engine.writer.turn()
    assert answers == [], "the next batch gathers"
    engine.run_callback()
    assert answers == [1, 2, 3]
    assert contents_of(shard) == {b"a": B, b"b": B}
    assert 0 < disk.synced < disk.end


def test_shards_of_one_batch_are_synced_only_where_it_was_asked(
    engine: Engine, files: RecordingFiles, answers: Answers
) -> None:
    engine.writer.submit(put(answers, b"a", A))
    engine.writer.submit(put(answers, b"a", A, "fsync", OTHER))
    engine.settle()
    assert answers == [1, 1]
    assert len([entry for entry in files.operations() if entry.startswith("sync ")]) == 1


@pytest.mark.parametrize("write", [Delete, Clear, Flush])
def test_without_a_shard_there_is_nothing_to_do(
    write: type[Write], engine: Engine, answers: Answers
) -> None:
    arguments = ([b"a"],) if write is Delete else ()
    engine.writer.submit(write(PRODUCER, "fsync", answers.append, *arguments))
    engine.settle()
    assert answers == [0]
    assert len(engine.catalog) == 0


def test_a_refused_append_shows_nothing_and_the_next_one_works(
    engine: Engine, files: RecordingFiles, answers: Answers, cache_dir: Path
) -> None:
    engine.writer.submit(put(answers, b"a", A))
    engine.settle()
    files.fail_next = "append"
    for name in (b"b", b"c"):
        engine.writer.submit(put(answers, name, B))
    engine.settle()
    assert answers.codes == [1, NOT_DURABLE, NOT_DURABLE]
    assert engine.metrics.health.is_degraded
    assert engine.metrics.counters["refused_writes"] == 2
    engine.writer.submit(put(answers, b"d", B))
    engine.settle()
    assert answers.codes[3] == 4, "a number is never used twice"
    assert not engine.metrics.health.is_degraded
    shard, _ = engine.catalog.open(PRODUCER)
    assert contents_of(shard) == {b"a": A, b"d": B}
    again = Life(cache_dir / shard.id)
    assert again.contents == {b"a": A, b"d": B}
    assert again.set_aside == []


def test_a_failed_sync_refuses_its_shard_alone(
    engine: Engine, files: RecordingFiles, answers: Answers, cache_dir: Path
) -> None:
    engine.writer.submit(put(answers, b"a", A))
    engine.settle()
    files.fail_next = "sync"
    engine.writer.submit(put(answers, b"b", B, "fsync"))
    engine.writer.submit(put(answers, b"a", A, "write", OTHER))
    engine.settle()
    assert answers.codes == [1, NOT_DURABLE, 1]
    assert engine.catalog.failure is not None
    assert engine.metrics.health.is_degraded
    files.log.clear()
    engine.writer.submit(Flush(PRODUCER, "fsync", answers.append))
    engine.writer.submit(put(answers, b"c", B))
    # Elsewhere too `fsync` promises what is in doubt now; `write` does not.
    engine.writer.submit(put(answers, b"d", A, "fsync", OTHER))
    engine.writer.submit(put(answers, b"e", A, "write", OTHER))
    engine.settle()
    assert answers.codes[3:] == [NOT_DURABLE, NOT_DURABLE, NOT_DURABLE, 2]
    shard, disk = engine.catalog.open(PRODUCER)
    _, other = engine.catalog.open(OTHER)
    # A flush is for all shards; the one whose sync failed is neither synced nor appended to again.
    assert files.operations(on="journal") == ["append journal.00000001", "sync journal.00000001"]
    assert other.synced == other.end
    assert disk.synced < disk.end
    assert contents_of(shard) == {b"a": A}
    assert Life(cache_dir / shard.id).contents == {b"a": A}


def test_a_sync_that_ends_in_an_unknown_way_refuses_all_that_waited_for_it(
    engine: Engine, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that no journal expected: the shards behind it were not synced either."""

    def fail(*, makes_room: bool) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    engine.writer.submit(put(answers, b"a", A))
    engine.writer.submit(put(answers, b"a", A, "write", OTHER))
    engine.settle()
    shard, disk = engine.catalog.open(PRODUCER)
    other, other_disk = engine.catalog.open(OTHER)
    monkeypatch.setattr(disk, "sync", fail)
    engine.writer.submit(put(answers, b"b", B, "fsync"))
    engine.writer.submit(put(answers, b"b", B, "fsync", OTHER))
    engine.settle()
    assert answers.codes == [1, 1, NOT_DURABLE, NOT_DURABLE]
    assert contents_of(shard) == contents_of(other) == {b"a": A}
    assert "Input/output error" in str(disk.failure)
    assert "Input/output error" in str(other_disk.failure)
    engine.writer.submit(put(answers, b"c", B))
    engine.settle()
    assert answers.codes[4] == NOT_DURABLE, "until an image was built"


def test_writes_are_synced_in_the_background(
    engine: Engine, files: RecordingFiles, answers: Answers
) -> None:
    engine.writer.sync_in_background()
    engine.writer.submit(put(answers, b"a", A))
    engine.settle()
    engine.writer.sync_in_background()
    engine.run_callback()
    assert "sync journal.00000001" in files.operations()
    _, disk = engine.catalog.open(PRODUCER)
    assert not disk.has_unsynced
    files.fail_next = "sync"
    engine.writer.submit(put(answers, b"a", B))
    engine.settle()
    engine.writer.sync_in_background()
    engine.run_callback()
    assert engine.metrics.health.is_degraded


def test_a_shard_is_dropped_in_order(engine: Engine, answers: Answers, cache_dir: Path) -> None:
    engine.writer.submit(put(answers, b"a", A))
    engine.writer.submit(Drop(PRODUCER.shard_id(), answers.append))
    engine.writer.submit(put(answers, b"b", B))
    engine.settle()
    assert answers == [1, None, 1]
    shard, _ = engine.catalog.open(PRODUCER)
    assert contents_of(shard) == {b"b": B}
    assert Life(cache_dir / shard.id).contents == {b"b": B}


def test_a_drop_of_nothing_and_one_that_fails_are_refused(
    engine: Engine, files: RecordingFiles, answers: Answers
) -> None:
    engine.writer.submit(Drop("none", answers.append))
    engine.writer.submit(put(answers, b"a", A))
    engine.settle()
    files.fail_next = "rename"
    engine.writer.submit(Drop(PRODUCER.shard_id(), answers.append))
    engine.settle()
    assert answers.codes == [BAD_REQUEST, 1, NOT_DURABLE]
    assert engine.catalog.find(PRODUCER.shard_id()) is not None


def test_back_pressure_has_a_bound(engine: Engine, answers: Answers) -> None:
    for _ in range(MAX_WAITING - 1):
        engine.writer.submit(put(answers, b"a", A))
    assert not engine.writer.is_full
    engine.writer.submit(put(answers, b"a", A))
    assert engine.writer.is_full
    engine.settle()
    assert not engine.writer.is_full
    assert answers == list(range(1, MAX_WAITING + 1))
    engine.writer.submit(put(answers, b"big", Item(b"x" * (16 << 20))))
    assert engine.writer.is_full, "bytes are bounded too"


def test_what_waits_at_the_end_is_done_and_the_rest_refused(
    engine: Engine, answers: Answers
) -> None:
    engine.writer.submit(put(answers, b"a", A, "fsync"))
    engine.writer.turn()
    engine.writer.close()
    engine.settle()
    engine.writer.submit(put(answers, b"b", B))
    assert answers.codes == [1, SHUTTING_DOWN]


def test_a_flush_is_for_all_shards_and_fails_with_any(
    engine: Engine, files: RecordingFiles, answers: Answers
) -> None:
    engine.writer.submit(put(answers, b"a", A, of=OTHER))
    engine.writer.submit(Flush(PRODUCER, "fsync", answers.append))
    engine.settle()
    assert answers == [1, 0], "of a shard that there is not"
    _, other = engine.catalog.open(OTHER)
    assert other.synced == other.end, "the connection may have written to another one before"
    engine.writer.submit(put(answers, b"b", B, of=OTHER))
    engine.settle()
    files.fail_next = "sync"
    engine.writer.submit(put(answers, b"a", A))
    engine.writer.submit(Flush(PRODUCER, "fsync", answers.append))
    engine.settle()
    assert answers.codes[2:] == [2, 1, NOT_DURABLE]
    engine.writer.submit(Flush(PRODUCER, "fsync", answers.append))
    engine.settle()
    assert answers.codes[5] == NOT_DURABLE, "until it is healed"
    assert engine.metrics.health.is_degraded


@pytest.mark.parametrize("sync", ["write", "fsync"])
def test_a_lack_of_descriptors_is_no_fault_of_storage(
    sync: str, cache_dir: Path, answers: Answers
) -> None:
    files = RecordingFiles(error=errno.EMFILE)
    with Engine(cache_dir, files) as engine:
        files.fail_next = "create" if sync == "write" else "sync_directory"
        engine.writer.submit(put(answers, b"a", A, sync))
        engine.settle()
        assert answers.codes == [BUSY]
        assert not engine.metrics.health.is_degraded
        engine.writer.submit(put(answers, b"a", B, sync))
        engine.settle()
        assert isinstance(answers[1], int)


def test_a_first_write_that_is_refused_leaves_no_shard(
    engine: Engine, files: RecordingFiles, answers: Answers, cache_dir: Path
) -> None:
    files.fail_next = "append"
    engine.writer.submit(put(answers, b"a", A))
    engine.settle()
    assert answers.codes == [NOT_DURABLE]
    assert len(engine.catalog) == 0
    assert list(cache_dir.iterdir()) == []


def test_a_sync_that_works_does_not_make_a_full_disk_healthy(
    engine: Engine, files: RecordingFiles, answers: Answers
) -> None:
    engine.writer.submit(put(answers, b"a", A))
    engine.settle()
    files.fail_next = "append"
    engine.writer.submit(put(answers, b"b", B))
    engine.settle()
    engine.writer.sync_in_background()
    engine.run_callback()
    engine.writer.submit(Flush(PRODUCER, "fsync", answers.append))
    engine.settle()
    assert answers.codes == [1, NOT_DURABLE, 2]
    assert engine.metrics.health.is_degraded
