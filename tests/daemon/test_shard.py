"""A shard against a dict: whatever is done to it, and wherever it is restarted."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from autoloadd_daemon.shard import Shard
from autoloadd_daemon.storage.images import build_image
from autoloadd_protocol.image import MAX_INDEX_BYTES

from .harness import EPOCH, PRODUCER, Contents, Item, Life, item_of, record_of, records_of

if TYPE_CHECKING:
    from autoloadd_daemon.storage.images import Snapshot
    from autoloadd_daemon.storage.journal import Journal

TIMES = st.integers(-3, 3)
# Few names, so that they meet; some share prefixes, one passes the length of an image's slot.
NAMES = st.sampled_from(
    [b"a", b"ab", b"ab\0", b"abc", b"b", b"\xc3\xa9", b"x" * 38, b"x" * 39, b"x" * 40, b"x" * 60]
)
ITEMS = st.builds(Item, st.binary(max_size=300), st.none() | st.binary(min_size=1), TIMES)
ENTRIES = st.dictionaries(NAMES, ITEMS, max_size=4)
PREFIXES = st.sampled_from([b"", b"a", b"ab", b"abc", b"b", b"x" * 39, b"x" * 40, b"y"])
KEEP = st.none() | st.integers(0, 4000)


class ShardMachine(RuleBasedStateMachine):
    """Does to a shard what clients, builder and crashes do, and to a dict the same."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.root = tempfile.mkdtemp(prefix="ald-", dir=memory if memory.is_dir() else None)
        self.life = Life(Path(self.root) / "shard")
        # In the order of the last change, as eviction needs it.
        self.model: Contents = {}
        self.generation = 0
        self.build: tuple[Snapshot, list[Journal]] | None = None
        self.at_build: Contents = {}
        self.is_overtaken = False

    def teardown(self) -> None:
        self.life.crash()
        shutil.rmtree(self.root)

    @initialize(items=ENTRIES)
    def begin_with(self, items: Contents) -> None:
        if items:
            self.put(items, sync=True)

    @rule(items=ENTRIES.filter(bool), sync=st.booleans())
    def put(self, items: Contents, *, sync: bool) -> None:
        self.life.put(items, sync=sync)
        self._set(items)

    @rule(names=st.lists(NAMES, min_size=1, max_size=4))
    def delete(self, names: list[bytes]) -> None:
        before = self.life.shard.entries
        self.life.delete(names)
        gone = [name for name in dict.fromkeys(names) if self.model.pop(name, None) is not None]
        assert before - self.life.shard.entries == len(gone)
        self.generation += 1

    @rule()
    def clear(self) -> None:
        self.life.clear()
        self._hide_everything()
        self.generation += 1

    @rule(mode=st.sampled_from(["merge", "replace"]), parts=st.lists(ENTRIES, max_size=3))
    def bulk(self, mode: str, parts: list[Contents]) -> None:
        self.life.bulk(mode, parts, built_at_ns=9)
        if mode == "replace":
            self._hide_everything()
            assert self.life.shard.built_at_ns == 9
        merged: Contents = {}
        for part in parts:
            for name in part:
                merged.pop(name, None)
            merged |= part
        self._set(merged)

    @rule()
    def stage_and_give_up(self) -> None:
        staged = self.life.disk.stage("replace", None)
        staged.add(records_of({b"a": Item(b"never seen")}))
        staged.discard()

    @precondition(lambda self: self.build is None and self.generation)
    @rule(keep_bytes=KEEP)
    def begin_build(self, keep_bytes: int | None) -> None:
        covered = self.life.disk.rotate()
        self.build = self.life.shard.begin_build(keep_bytes), covered
        self.at_build = dict(self.model)
        self.is_overtaken = False

    @precondition(lambda self: self.build is not None)
    @rule(crash=st.booleans())
    def finish_build(self, *, crash: bool) -> None:
        """Put the image on disk; then take it in, or crash before that."""
        assert self.build is not None
        snapshot, covered = self.build
        self.build = None
        image, evicted = build_image(self.life.files, str(self.life.directory), snapshot)
        if not self.is_overtaken:
            for name in list(self.at_build)[:evicted]:
                # One that was stored again meanwhile is a newer one, and stays.
                if self.model.get(name) is self.at_build[name]:
                    del self.model[name]
        if crash:
            self.restart()
            return
        self.life.shard.finish_build(image, evicted)
        self.life.disk.forget(covered)
        for journal in covered:
            journal.close()
            journal.remove()

    @precondition(lambda self: self.build is not None)
    @rule()
    def abandon_build(self) -> None:
        self.life.shard.abandon_build()
        self.build = None

    @rule()
    def restart(self) -> None:
        self.life.crash()
        self.life = Life(self.life.directory)
        self.build = None
        assert self.life.set_aside == []
        assert self.life.torn_bytes == 0

    @rule(prefix=PREFIXES, after=NAMES | st.just(b""), limit=st.integers(1, 5))
    def list_names(self, prefix: bytes, after: bytes, limit: int) -> None:
        expected = sorted(name for name in self.model if name.startswith(prefix) and name > after)
        page = self.life.shard.list_names(prefix, after, limit)
        assert [name for name, _ in page] == expected[:limit]
        assert [item_of(record) for _, record in page] == [self.model[name] for name, _ in page]

    @rule(name=NAMES)
    def look_up(self, name: bytes) -> None:
        found = self.life.shard.look_up(name)
        assert (None if found is None else item_of(found)) == self.model.get(name)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert self.life.contents == self.model

    @invariant()
    def pages_of_names_hold_each_once(self) -> None:
        names: list[bytes] = []
        while page := self.life.shard.list_names(b"", names[-1] if names else b"", 2):
            names += [name for name, _ in page]
            assert len(names) <= len(self.model)
        assert names == sorted(self.model)

    @invariant()
    def counts_what_is_stale(self) -> None:
        for time in range(-3, 5):
            stale = sum(item.mtime < time for item in self.model.values())
            assert sum(self.life.shard.frozen().records_older_than(time)) == stale

    @invariant()
    def generation_never_falls(self) -> None:
        assert self.life.shard.generation == self.generation

    @invariant()
    def counts_its_bytes(self) -> None:
        shard = self.life.shard
        layers = [*shard._changes.values(), *shard._building.values()]
        stored = sum(record.stored_bytes for record in layers if record is not None)
        image = 0 if shard.image is None else shard.image.header.total_bytes
        assert shard.stored_bytes == image + stored + len(layers) * MAX_INDEX_BYTES

    def _set(self, items: Contents) -> None:
        for name, item in items.items():
            self.model.pop(name, None)
            self.model[name] = Item(*item)
        self.generation += 1

    def _hide_everything(self) -> None:
        self.model = {}
        self.is_overtaken = True


TestShard = ShardMachine.TestCase
TestShard.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)


@pytest.fixture
def shard() -> Shard:
    return Shard(PRODUCER, epoch=EPOCH, built_at_ns=5)


def test_a_new_shard_is_empty(shard: Shard) -> None:
    assert shard.id == PRODUCER.shard_id()
    assert (shard.entries, shard.blob_bytes, shard.stored_bytes, shard.generation) == (0, 0, 0, 0)
    assert shard.look_up(b"a") is None
    assert shard.list_names(b"", b"", 10) == []
    assert sum(shard.frozen().records_older_than(2**63 - 1)) == 0
    assert shard.build_pressure(0) == 0


def test_a_delete_counts_what_was_there(shard: Shard) -> None:
    shard.put(records_of({b"a": Item(b"1"), b"b": Item(b"2")}))
    assert shard.delete([b"a", b"a", b"none"]) == 1
    assert shard.clear(9) == 1
    assert shard.clear(10) == 0


def test_a_build_is_wanted_when_changes_or_journals_are_large(shard: Shard) -> None:
    megabyte = 1024 * 1024
    assert shard.build_pressure(megabyte) == 1
    assert shard.build_pressure(3 * megabyte) == 3
    shard.put([(b"a", record_of(b"a", Item(b"x" * megabyte)))])
    assert shard.build_pressure(0) > 1


def test_a_build_is_wanted_when_everything_in_the_image_is_hidden(cache_dir: Path) -> None:
    life = Life(cache_dir / "shard")
    life.put({b"a": Item(b"x")})
    life.build()
    assert life.shard.build_pressure(0) == 0
    life.clear()
    assert life.shard.build_pressure(0) == math.inf


def test_a_second_build_is_a_bug(shard: Shard) -> None:
    shard.put(records_of({b"a": Item(b"1")}))
    shard.begin_build(None)
    with pytest.raises(AssertionError, match="a build is under way"):
        shard.begin_build(None)


def test_evicted_entries_are_counted(cache_dir: Path) -> None:
    life = Life(cache_dir / "shard")
    life.put({b"a": Item(b"x" * 100), b"b": Item(b"y")})
    life.build(keep_bytes=400)
    assert life.contents == {b"b": Item(b"y")}
    assert life.shard.evicted == 1
