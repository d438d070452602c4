"""Images while the daemon serves: when they are due, what a failure leaves, room by eviction."""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from autoloadd_daemon.errors import StorageError
from autoloadd_daemon.threads import StandingThread
from autoloadd_daemon.writes import Drop, Put
from autoloadd_protocol.errors import NOT_DURABLE, RequestError
from autoloadd_protocol.producer import Producer

from .engine import Engine
from .harness import PRODUCER, Item, Life, RecordingFiles, contents_of, files_in, records_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from autoloadd_daemon.builder import Built

OTHER = Producer("bash", "5.2", 8)
BIG = Item(b"x" * 700_000)
SMALL = Item(b"y")
SECONDS = 20


@pytest.fixture
async def engine(cache_dir: Path, files: RecordingFiles) -> AsyncIterator[Engine]:
    """The parts with a nursery to build in; the sync thread's ends come to trio, as in the app."""
    token = trio.lowlevel.current_trio_token()
    async with trio.open_nursery() as nursery:
        with Engine(cache_dir, files, deliver=token.run_sync_soon) as engine:
            engine.builder.nursery = nursery
            engine.builder.on_built = engine.writer.resume
            engine.builder.drop_shard = engine.writer.evict
            yield engine


async def until(engine: Engine, condition: Callable[[], bool]) -> None:
    """Do what the app's tick does until a condition holds; fail when it takes too long."""
    with trio.fail_after(SECONDS):
        while not condition():
            await trio.sleep(0.002)
            engine.writer.turn()


async def put(engine: Engine, items: dict[bytes, Item], of: Producer = PRODUCER) -> None:
    """Store items and wait for the answer."""
    answers: list[object] = []
    engine.writer.submit(Put(of, "write", answers.append, records_of(items)))
    engine.writer.turn()
    await until(engine, lambda: bool(answers))
    assert isinstance(answers[0], int), answers


def hold_builds(engine: Engine) -> trio.Event:
    """Let builds begin their work only when the event is set."""
    gate = trio.Event()
    build_now = engine.builder.run_in_thread

    async def build_behind_the_gate(build: Callable[[], Built]) -> Built:
        await gate.wait()
        return await build_now(build)

    engine.builder.run_in_thread = build_behind_the_gate
    return gate


def builds(engine: Engine) -> int:
    return engine.metrics.counters["builds"]


async def test_large_changes_get_an_image(engine: Engine, cache_dir: Path) -> None:
    await put(engine, {b"a": BIG})
    assert not engine.builder.is_building(PRODUCER.shard_id())
    await put(engine, {b"b": BIG})
    assert engine.builder.is_building(PRODUCER.shard_id())
    await put(engine, {b"c": SMALL})
    await until(engine, lambda: builds(engine) == 1)
    shard, disk = engine.catalog.open(PRODUCER)
    assert shard.image is not None
    assert len(shard.image) == 2
    assert contents_of(shard) == {b"a": BIG, b"b": BIG, b"c": SMALL}
    directory = cache_dir / shard.id
    await until(engine, lambda: sorted(os.listdir(directory)) == ["image", "journal.00000002"])
    assert disk.journal_bytes == len(files_in(directory)["journal.00000002"])
    assert Life(directory).contents == contents_of(shard)


async def test_a_build_that_fails_is_tried_again(
    engine: Engine, files: RecordingFiles, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoloadd_daemon.builder._PAUSE_NS", 1_000_000)
    files.fail_next = "rename"
    await put(engine, {b"a": BIG, b"b": BIG})
    await until(engine, lambda: engine.metrics.counters["build_failures"] == 1)
    await put(engine, {b"c": SMALL})
    shard, _ = engine.catalog.open(PRODUCER)
    assert contents_of(shard) == {b"a": BIG, b"b": BIG, b"c": SMALL}
    await until(engine, lambda: builds(engine) == 1)
    assert contents_of(shard) == {b"a": BIG, b"b": BIG, b"c": SMALL}
    directory = cache_dir / shard.id
    await until(engine, lambda: "journal.00000001" not in os.listdir(directory))
    assert Life(directory).contents == contents_of(shard)


async def test_a_build_that_is_not_urgent_waits_after_the_one_before(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoloadd_daemon.builder._PAUSE_NS", 1 << 60)
    await put(engine, {b"a": BIG, b"b": BIG})
    await until(engine, lambda: builds(engine) == 1)
    await put(engine, {b"c": BIG, b"d": BIG})
    assert not engine.builder.is_building(PRODUCER.shard_id())
    # The pause is over; nothing more is written.
    engine.builder._next_ns = 0
    engine.writer.turn()
    assert engine.builder.is_building(PRODUCER.shard_id())
    await until(engine, lambda: builds(engine) == 2)


async def test_a_long_build_is_followed_by_a_longer_pause(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoloadd_daemon.builder._PAUSE_NS", 0)
    gate = hold_builds(engine)
    await put(engine, {b"a": BIG, b"b": BIG})
    begun = time.monotonic_ns()
    await trio.sleep(0.05)
    gate.set()
    lasted = time.monotonic_ns() - begun
    await until(engine, lambda: builds(engine) == 1)
    assert engine.builder._next_ns >= begun + lasted + 4 * lasted
    monkeypatch.setattr("autoloadd_daemon.builder._LONGEST_PAUSE_NS", 0)
    engine.builder._next_ns = 0
    await put(engine, {b"c": BIG, b"d": BIG})
    await until(engine, lambda: builds(engine) == 2)
    assert engine.builder._next_ns <= time.monotonic_ns()


@pytest.fixture
def _endless_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a build that keeps to its pace rest for an hour after each step."""
    monkeypatch.setattr("autoloadd_daemon.storage.pace._FIRST_WORK_SECONDS", 0)
    monkeypatch.setattr("autoloadd_daemon.storage.pace._WORK_SECONDS", 0)
    monkeypatch.setattr("autoloadd_daemon.storage.pace._REST_PER_WORK", 1 << 60)
    monkeypatch.setattr("autoloadd_daemon.storage.pace._REST_SECONDS", 3600)


@pytest.mark.usefixtures("_endless_rests")
async def test_a_write_that_waits_for_a_build_hurries_it(engine: Engine) -> None:
    gate = hold_builds(engine)
    await put(engine, {b"a": BIG, b"b": BIG})
    engine.catalog.max_bytes = 1_000_000
    engine.builder.look_around()
    answers: list[object] = []
    engine.writer.submit(Put(PRODUCER, "write", answers.append, records_of({b"c": SMALL})))
    engine.writer.turn()
    assert answers == []
    gate.set()
    await until(engine, lambda: bool(answers))
    await engine.builder.build_all()


@pytest.mark.usefixtures("_endless_rests")
async def test_the_end_hurries_a_build(engine: Engine) -> None:
    gate = hold_builds(engine)
    await put(engine, {b"a": BIG, b"b": BIG})
    assert engine.builder.is_building(PRODUCER.shard_id())
    await put(engine, {b"c": SMALL})
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.builder.build_all)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
    shard, files = engine.catalog.open(PRODUCER)
    assert builds(engine) == 2
    assert files.journal_bytes == 0
    assert contents_of(shard) == {b"a": BIG, b"b": BIG, b"c": SMALL}


async def test_what_an_image_was_built_from_is_given_up_in_a_thread(engine: Engine) -> None:
    engine.builder.run_in_thread = StandingThread("build").run
    jobs: list[Callable[[], None]] = []
    engine.builder.free_in_thread = jobs.append
    await put(engine, {b"a": BIG, b"b": BIG})
    await until(engine, lambda: builds(engine) == 1)
    shard, _ = engine.catalog.open(PRODUCER)
    before = weakref.ref(shard.image)
    engine.builder._next_ns = 0
    await put(engine, {b"c": BIG, b"d": BIG})
    await until(engine, lambda: builds(engine) == 2)
    await until(engine, lambda: len(jobs) == 2)
    assert before() is not None
    threading.Thread(target=jobs[1]).start()
    await until(engine, lambda: before() is None)
    assert contents_of(shard).keys() == {b"a", b"b", b"c", b"d"}


async def test_failed_journals_heal_by_an_image(
    engine: Engine, files: RecordingFiles, cache_dir: Path
) -> None:
    await put(engine, {b"a": SMALL})
    files.fail_next = "sync"
    engine.writer.sync_in_background()
    await until(engine, lambda: engine.metrics.health.is_degraded)
    shard, disk = engine.catalog.open(PRODUCER)
    assert disk.failure is not None
    engine.builder.heal()
    engine.writer.turn()
    await until(engine, lambda: builds(engine) == 1)
    assert disk.failure is None
    assert not engine.metrics.health.is_degraded
    await put(engine, {b"b": SMALL})
    assert Life(cache_dir / shard.id).contents == {b"a": SMALL, b"b": SMALL}


async def test_a_build_that_fails_while_writes_are_refused_says_so(
    engine: Engine, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No second try in this test, however slow the machine is.
    monkeypatch.setattr("autoloadd_daemon.builder._PAUSE_NS", 1 << 60)
    await put(engine, {b"a": SMALL})
    files.fail_next = "sync"
    engine.writer.sync_in_background()
    await until(engine, lambda: engine.metrics.health.is_degraded)
    assert "sync failed" in str(engine.metrics.health.error)
    files.fail_next = "rename"
    engine.builder.heal()
    engine.writer.turn()
    await until(engine, lambda: engine.metrics.counters["build_failures"] == 1)
    assert "building an image failed" in str(engine.metrics.health.error)
    assert engine.catalog.failure is not None


async def test_a_write_that_is_refused_leaves_a_shard_that_is_being_built(
    engine: Engine, files: RecordingFiles, cache_dir: Path
) -> None:
    gate = hold_builds(engine)
    await put(engine, {b"a": BIG, b"b": BIG})
    shard, _ = engine.catalog.open(PRODUCER)
    assert engine.builder.is_building(shard.id)
    files.fail_next = "create"
    try:
        refused = await try_to_put(engine, b"c")
    finally:
        gate.set()
    assert refused is not None
    assert refused.code == NOT_DURABLE
    assert engine.catalog.find(shard.id) is shard
    await until(engine, lambda: builds(engine) == 1)
    assert contents_of(shard) == {b"a": BIG, b"b": BIG}
    assert Life(cache_dir / shard.id).contents == contents_of(shard)


async def test_an_end_leaves_images_alone(engine: Engine, cache_dir: Path) -> None:
    await put(engine, {b"a": BIG, b"b": BIG})
    await put(engine, {b"c": SMALL})
    await put(engine, {b"a": SMALL}, OTHER)
    await engine.builder.build_all()
    for producer, held in (
        (PRODUCER, {b"a": BIG, b"b": BIG, b"c": SMALL}),
        (OTHER, {b"a": SMALL}),
    ):
        directory = cache_dir / producer.shard_id()
        await until(engine, lambda where=directory: os.listdir(where) == ["image"])  # type: ignore[misc]
        assert Life(directory).contents == held


async def test_over_the_bound_other_shards_go_first(engine: Engine, cache_dir: Path) -> None:
    engine.catalog.max_bytes = 1_500_000
    await put(engine, {b"old": BIG}, OTHER)
    await put(engine, {b"a": BIG, b"b": SMALL})
    await put(engine, {b"c": BIG})
    await until(engine, lambda: engine.catalog.find(OTHER.shard_id()) is None)
    assert engine.metrics.counters["evicted_shards"] == 1
    await until(engine, lambda: not (cache_dir / OTHER.shard_id()).exists())
    shard, _ = engine.catalog.open(PRODUCER)
    assert contents_of(shard).keys() == {b"a", b"b", b"c"}


async def test_what_was_written_last_is_measured_although_nothing_follows(engine: Engine) -> None:
    asked: list[str] = []
    engine.builder.drop_shard = lambda shard_id, _done: asked.append(shard_id)
    await put(engine, {b"old": BIG}, OTHER)
    await put(engine, {b"a": BIG})
    engine.catalog.max_bytes = engine.catalog.lasting_bytes + 1000
    engine.builder.look_around()
    engine.writer.turn()
    await put(engine, {b"b": Item(bytes(2000))})
    assert engine.catalog.lasting_bytes > engine.catalog.max_bytes
    assert asked == []
    engine.builder.look_around()
    engine.writer.turn()
    assert asked == [OTHER.shard_id()]
    engine.builder.look_around()
    engine.writer.turn()
    assert asked == [OTHER.shard_id()]


async def test_one_shard_is_dropped_at_a_time(engine: Engine) -> None:
    asked: list[str] = []
    engine.builder.drop_shard = lambda shard_id, _done: asked.append(shard_id)
    engine.catalog.max_bytes = 1_400_000
    await put(engine, {b"old": BIG}, OTHER)
    await put(engine, {b"a": BIG})
    assert engine.catalog.lasting_bytes > engine.catalog.max_bytes
    await put(engine, {b"b": SMALL})
    assert asked == [OTHER.shard_id()]


async def test_a_write_at_the_hard_bound_has_a_shard_dropped_before_it(engine: Engine) -> None:
    await put(engine, {b"old": BIG}, OTHER)
    await put(engine, {b"a": BIG})
    # As SIGHUP and a start with another configuration do.
    engine.catalog.max_bytes = 1_000_000
    for shard, _ in engine.catalog:
        engine.builder.look_at(shard)
    found: list[object] = []

    def answered(outcome: object) -> None:
        found.extend([outcome, engine.catalog.find(OTHER.shard_id())])

    engine.writer.submit(Put(PRODUCER, "write", answered, records_of({b"b": SMALL})))
    engine.writer.turn()
    assert found == []
    await until(engine, lambda: bool(found))
    assert found == [2, None]


async def test_where_dropping_fails_the_bound_holds_all_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_shard_id: str) -> None:
        raise StorageError("no shard can be renamed")

    monkeypatch.setattr(engine.catalog, "remove_files", fail)
    engine.catalog.max_bytes = 1_500_000
    await put(engine, {b"old": BIG}, OTHER)
    await put(engine, {b"a": BIG, b"b": SMALL})
    await put(engine, {b"c": BIG})
    await until(engine, lambda: engine.catalog.stored_bytes <= engine.catalog.max_bytes)
    assert engine.catalog.find(OTHER.shard_id()) is not None
    assert engine.metrics.counters["evicted"] >= 1


async def test_over_the_bound_the_oldest_entries_go(engine: Engine) -> None:
    engine.catalog.max_bytes = 2_000_000
    for name in (b"a", b"b", b"c"):
        await put(engine, {name: BIG})
    shard, _ = engine.catalog.open(PRODUCER)
    await until(engine, lambda: shard.evicted > 0 and not engine.builder.is_building(shard.id))
    assert contents_of(shard).keys() == {b"b", b"c"}
    assert engine.metrics.counters["evicted"] == 1
    assert engine.catalog.stored_bytes <= engine.catalog.max_bytes


async def test_writes_wait_for_a_build_only_at_the_hard_bound(engine: Engine) -> None:
    assert not engine.builder.must_be_waited_for
    engine.catalog.max_bytes = 1_000_000
    await put(engine, {b"a": BIG, b"b": BIG})
    assert engine.builder.must_be_waited_for
    await put(engine, {b"c": SMALL})
    await until(engine, lambda: builds(engine) >= 1)
    shard, _ = engine.catalog.open(PRODUCER)
    await until(engine, lambda: not engine.builder.is_building(shard.id))
    assert b"c" in contents_of(shard)
    assert engine.catalog.stored_bytes <= engine.catalog.max_bytes


async def test_a_shard_is_not_dropped_while_its_image_is_built(engine: Engine) -> None:
    await put(engine, {b"a": BIG, b"b": BIG})
    answers: list[object] = []
    engine.writer.submit(Drop(PRODUCER.shard_id(), answers.append))
    engine.writer.turn()
    assert answers == []
    await until(engine, lambda: bool(answers))
    assert answers == [None]
    assert builds(engine) == 1
    assert len(engine.catalog) == 0


async def test_a_journal_that_cannot_be_removed_is_no_failure(
    engine: Engine, files: RecordingFiles, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files.fail_next = "remove"
    await put(engine, {b"a": BIG, b"b": BIG})
    await until(engine, lambda: "a journal that is not needed could not be removed" in caplog.text)
    assert not engine.metrics.health.is_degraded
    directory = cache_dir / PRODUCER.shard_id()
    assert list(files_in(directory)) == ["image", "journal.00000001"]
    life = Life(directory)
    assert life.contents == {b"a": BIG, b"b": BIG}
    assert life.set_aside == []


async def test_the_least_recently_used_shard_goes_first_though_it_changed(engine: Engine) -> None:
    engine.catalog.max_bytes = 2_000_000
    third = Producer("fish", "3", 8)
    for producer in (PRODUCER, OTHER, third):
        await put(engine, {b"a": BIG}, producer)
    # All of them wait for an image; the one that was used longest ago goes, and no entry more.
    await until(engine, lambda: len(engine.catalog) == 2)
    assert engine.catalog.find(PRODUCER.shard_id()) is None
    assert engine.metrics.counters["evicted_shards"] == 1
    assert engine.metrics.counters["evicted"] == 0


async def test_what_is_staged_costs_nobody_anything(engine: Engine) -> None:
    engine.catalog.max_bytes = 2_000_000
    await put(engine, {b"a": BIG}, OTHER)
    staged = engine.catalog.stage(PRODUCER, "merge", None)
    staged.add(records_of({b"b": BIG, b"c": BIG}))
    engine.catalog.staged_bytes = staged.stored_bytes
    await put(engine, {b"d": SMALL}, OTHER)
    assert engine.catalog.find(OTHER.shard_id()) is not None
    assert engine.catalog.find(PRODUCER.shard_id()) is None, "no shard before the commit"
    staged.discard()
    engine.catalog.staged_bytes = 0
    shard, _ = engine.catalog.open(OTHER)
    assert contents_of(shard) == {b"a": BIG, b"d": SMALL}
    assert engine.metrics.counters["evicted_shards"] == 0


async def test_writes_are_refused_where_no_room_can_be_made(
    engine: Engine, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is well, so writes go on, up to the hard bound; they do again afterwards."""
    monkeypatch.setattr("autoloadd_daemon.builder._PAUSE_NS", 1_000_000)
    engine.catalog.max_bytes = 4_000_000
    failing = True
    real = files.create_for_image

    def create_for_image(path: str) -> int:
        if failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path)

    monkeypatch.setattr(files, "create_for_image", create_for_image)
    refusal = None
    for number in range(20):
        refusal = await try_to_put(engine, b"%d" % number)
        if refusal is not None:
            break
    assert refusal is not None, "the bound holds"
    assert refusal.code == NOT_DURABLE
    assert "the cache is full, and no room can be made" in refusal.message
    assert "No space left" in refusal.message
    assert engine.catalog.stored_bytes < 4_000_000 * 9 / 8 + 2 * 700_000
    assert engine.catalog.disk_bytes < 4_000_000 * 9 / 8 + 2 * 700_000
    assert engine.metrics.health.is_degraded
    shard, _ = engine.catalog.open(PRODUCER)
    before = contents_of(shard)
    assert len(before) == number
    failing = False
    await until(engine, lambda: not engine.metrics.health.is_degraded)
    await put(engine, {b"again": BIG})
    await until(engine, lambda: engine.catalog.lasting_bytes <= engine.catalog.max_bytes)
    kept = contents_of(shard)
    assert b"again" in kept
    assert kept.items() <= (before | {b"again": BIG}).items()


async def try_to_put(engine: Engine, name: bytes) -> RequestError | None:
    """Store 700 kB; return the refusal, or None."""
    answers: list[object] = []
    engine.writer.submit(Put(PRODUCER, "write", answers.append, records_of({name: BIG})))
    await until(engine, lambda: bool(answers))
    return answers[0] if isinstance(answers[0], RequestError) else None


async def test_journals_of_what_is_written_again_are_bounded(engine: Engine) -> None:
    """Small shards, none of which is due by itself."""
    engine.catalog.max_bytes = 3_000_000
    large = Item(b"x" * 100_000)
    for _ in range(9):
        for version in "123456":
            await put(engine, {b"same": large}, Producer("zsh", version, 8))
            assert engine.catalog.disk_bytes < engine.catalog.max_bytes * 9 / 8 + 200_000
    assert len(engine.catalog) == 6, "nothing had to go"
    assert builds(engine) > 0


async def test_a_shard_with_many_short_journals_gets_an_image(engine: Engine) -> None:
    await put(engine, {b"a": SMALL})
    shard, disk = engine.catalog.open(PRODUCER)
    for number in range(17):
        disk.rotate()
        await put(engine, {b"%d" % number: SMALL})
    await until(engine, lambda: builds(engine) == 1)
    assert disk.journal_count <= 2
    assert len(contents_of(shard)) == 18


async def test_hundreds_of_shards_share_a_few_descriptors(
    cache_dir: Path, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoloadd_daemon.writer.journals_allowed", lambda: 16)
    token = trio.lowlevel.current_trio_token()
    with Engine(cache_dir, files, deliver=token.run_sync_soon) as engine:
        engine.writer.on_progress = lambda: None
        producers = [Producer("zsh", str(number), 8) for number in range(200)]
        for blob in (SMALL, Item(b"again")):
            answers: list[object] = []
            for producer in producers:
                engine.writer.submit(
                    Put(producer, "write", answers.append, records_of({b"a": blob}))
                )
            most = 0
            with trio.fail_after(SECONDS):
                while len(answers) < len(producers):
                    engine.writer.turn()
                    most = max(most, len(engine.catalog.open_journals))
                    await trio.sleep(0.001)
            assert most <= 3 * 16
            assert all(isinstance(answer, int) for answer in answers)
        await until(engine, lambda: len(engine.catalog.open_journals) <= 16)
    assert not engine.metrics.health.is_degraded
    for producer in producers[::20]:
        assert Life(cache_dir / producer.shard_id()).contents == {b"a": Item(b"again")}
