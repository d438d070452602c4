"""Between ready and checked: what is answered at once, what waits, and what damage leads to."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.catalog import Catalog
from autoloadd_daemon.errors import DescriptorsError, StartError
from autoloadd_daemon.loading import load_images
from autoloadd_daemon.metrics import Metrics
from autoloadd_daemon.storage.image_file import ImageFile
from autoloadd_daemon.storage.images import IMAGE_NAME
from autoloadd_protocol.errors import BUSY

from .engine import Engine, Talk
from .harness import PRODUCER, Item, Life, QuickFiles, contents_of, load_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from autoloadd_daemon.storage.images import SealedImage

OLD, NEW = Item(b"old " * 20), Item(b"new")
SECONDS = 20.0
CONTENTS = {b"a": OLD, b"b": NEW, b"c": OLD}


@pytest.fixture
def directory(cache_dir: Path) -> Path:
    """A shard with an image, and a journal with a change that came after it."""
    directory = cache_dir / PRODUCER.shard_id()
    life = Life(directory)
    life.put({b"a": OLD, b"b": OLD, b"c": OLD})
    life.build()
    life.put({b"b": NEW})
    life.crash()
    return directory


@pytest.fixture
def engine(directory: Path, cache_dir: Path) -> Iterator[Engine]:
    """One that was started and has not read the image yet."""
    with Engine(cache_dir, later_bytes=0) as engine:
        assert engine.catalog.is_loading
        yield engine


def damage(directory: Path) -> None:
    """Flip a bit in the last of the image's records."""
    path = directory / IMAGE_NAME
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def files_of(directory: Path) -> dict[str, int]:
    """Return the names with the inodes: a copy that took a file's place shows."""
    return {path.name: path.stat().st_ino for path in directory.iterdir()}


def test_gets_are_answered_before_the_image_is_read(engine: Engine) -> None:
    talk = Talk(engine)
    assert talk.call("get", "a").result[1] == OLD.blob
    assert talk.call("get", "b").result[1] == NEW.blob, "the journal's word counts"
    assert talk.call("get", "none").result is None
    found, left = talk.call("get_many", ["a", "b", "none"]).result
    assert (sorted(found), left) == (["a", "b"], ())
    assert talk.call("missing", ["a", "none"]).result == ("none",)
    (described,) = talk.call("shards").result
    assert (described["entries"], described["image_bytes"] > 0) == (3, True)
    assert talk.call("status").error is None


def test_no_memory_is_shared_before_it_is_checked(engine: Engine) -> None:
    talk = Talk(engine)
    refused = talk.call("attach", [1], [1])
    assert refused.error is not None
    assert refused.error[0] == BUSY
    load_all(engine.catalog)
    assert talk.call("attach", [1], [1]).error is None


@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("names", (), (("a", None), ("b", None), ("c", None))),
        ("count", (), 3),
        ("put", ("d", b"blob"), 3),
        ("delete", (["a", "none"],), 1),
        ("flush", (), (2, 0, None)),
        ("bulk_begin", ("merge",), 1),
        ("drop_shard", (PRODUCER.shard_id(),), None),
    ],
)
def test_what_needs_all_of_it_waits(
    engine: Engine, directory: Path, method: str, params: tuple[object, ...], result: object
) -> None:
    """In its place: what is asked behind it on the same connection is answered behind it."""
    before = files_of(directory)
    talk, other = Talk(engine), Talk(engine)
    number = talk.send(method, *params)
    talk.send("ping")
    other.send("get", "a")
    for each in (talk, other):
        each.session.advance()
    engine.writer.turn()
    engine.writer.sync_in_background()
    engine.sync_thread.submit((synced := Event()).set, lambda _error: None)
    assert synced.wait(SECONDS)
    assert talk.answers() == []
    assert len(other.answers()) == 1, "others do not wait"
    assert talk.session.is_held or talk.session.is_owed
    # Once more: on a busy machine the first turn's share may have ended between the two.
    talk.session.advance()
    assert not talk.session.has_more, "nothing is tried over and over"
    assert files_of(directory) == before
    load_all(engine.catalog)
    first, second = talk.run()
    assert (first.id, first.error, first.result) == (number, None, result)
    assert second.result == "pong"
    talk.session.abandon()


def test_stats_wait_too(engine: Engine) -> None:
    talk = Talk(engine)
    talk.send("stats", 1)
    talk.session.advance()
    assert talk.answers() == []
    load_all(engine.catalog)
    (answer,) = talk.run()
    assert answer.result["entries"] == answer.result["stale"] == 3


def test_a_client_that_leaves_while_it_waits(engine: Engine) -> None:
    talk = Talk(engine)
    talk.send("names")
    talk.session.end_input()
    talk.session.advance()
    assert not talk.session.is_finished
    load_all(engine.catalog)
    (answer,) = talk.run()
    assert answer.error is None
    assert talk.session.is_finished


def test_no_image_is_built_of_one_that_is_not_checked(engine: Engine) -> None:
    (shard,) = [shard for shard, _ in engine.catalog]
    engine.catalog.max_bytes = 1
    engine.builder.look_at(shard)
    engine.builder.consider()
    assert not engine.builder.is_building(shard.id)
    with pytest.raises(AssertionError, match="not checked"):
        shard.begin_build(None)


def test_a_good_image_takes_the_files_place(engine: Engine) -> None:
    (shard,) = [shard for shard, _ in engine.catalog]
    early = shard.look_up(b"a")
    frozen = shard.frozen()
    load_all(engine.catalog)
    assert not engine.catalog.is_loading
    assert not isinstance(shard.image, ImageFile)
    assert contents_of(shard) == CONTENTS
    assert early is not None
    assert bytes(early.buffer[early.blob_start : early.blob_end]) == OLD.blob
    again = frozen.look_up(b"c")
    assert again is not None
    assert again.blob_bytes == len(OLD.blob)


def test_what_a_disk_did_not_give_at_the_start_is_counted_when_it_does(
    directory: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # Of a disk that cannot be read for a moment.
        patch.setattr(ImageFile, "look_up", lambda _image, _name: None)
        catalog = Catalog(QuickFiles(), str(cache_dir), Metrics(), max_bytes=1 << 24)
        catalog.recover(later_bytes=0)
    (shard,) = [shard for shard, _ in catalog]
    assert shard.entries == 4
    load_all(catalog)
    assert contents_of(shard) == CONTENTS


def recovered_at_the_start(cache_dir: Path) -> tuple[object, list[str]]:
    """Return what a start finds that reads everything, and what it sets aside."""
    catalog = Catalog(QuickFiles(), str(cache_dir), Metrics(), max_bytes=1 << 24)
    catalog.recover()
    found = {shard.id: contents_of(shard) for shard, _ in catalog}
    return found, [aside.reason for aside in catalog._metrics.set_aside]


def test_damage_is_put_right_as_it_would_have_been_at_the_start(
    directory: Path, cache_dir: Path
) -> None:
    damage(directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    expected = recovered_at_the_start(cache_dir)
    for path in directory.iterdir():
        path.unlink()
    for name, data in before.items():
        (directory / name).write_bytes(data)
    with Engine(cache_dir, later_bytes=0) as engine:
        talk = Talk(engine)
        served = [talk.call("get", name).result for name in ("a", "b", "c")]
        assert [None if each is None else each[1] for each in served].count(None) == 1
        (old,) = [shard for shard, _ in engine.catalog]
        forgotten: list[object] = []
        engine.catalog.on_forget = forgotten.append
        put = talk.send("put", "d", b"waits")
        talk.session.advance()
        load_all(engine.catalog)
        assert forgotten == [old]
        found = {shard.id: contents_of(shard) for shard, _ in engine.catalog}
        reasons = [aside.reason for aside in engine.metrics.set_aside]
        assert (found, reasons) == expected
        assert found == {old.id: {b"b": NEW}}
        (shard,) = [shard for shard, _ in engine.catalog]
        assert shard.epoch != old.epoch, "generations that were lost are used again"
        (answer,) = talk.run()
        assert (answer.id, answer.error) == (put, None)
        assert talk.call("get", "d").result[1] == b"waits"


def test_a_torn_tail_is_counted_once(directory: Path, cache_dir: Path) -> None:
    damage(directory)
    with (directory / "journal.00000002").open("ab") as journal:
        journal.write(b"torn")
    with Engine(cache_dir, later_bytes=0) as engine:
        assert engine.metrics.counters["torn_bytes"] == 4
        load_all(engine.catalog)
        assert engine.metrics.counters["torn_bytes"] == 4


def test_in_a_directory_that_is_lost_nothing_is_recovered(engine: Engine, directory: Path) -> None:
    """What lies there now may be another daemon's: the damaged shard is not served any more."""
    damage(directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    engine.catalog.lost = "another directory is there"
    load_all(engine.catalog)
    assert not engine.catalog.is_loading
    assert len(engine.catalog) == 0
    assert Talk(engine).call("get", "b").result is None
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_lack_of_memory_is_no_damage(engine: Engine) -> None:
    async def fail(_job: Callable[[], SealedImage]) -> SealedImage:
        raise DescriptorsError("Too many open files")

    with pytest.raises(StartError, match=r"cannot read .*: Too many open files"):
        load_images(engine.catalog, fail).send(None)
    assert engine.catalog.is_loading


def test_small_images_are_read_at_once(directory: Path, cache_dir: Path) -> None:
    size = (directory / IMAGE_NAME).stat().st_size
    for later_bytes, is_later in ((size, False), (size - 1, True)):
        with Engine(cache_dir, later_bytes=later_bytes) as engine:
            assert engine.catalog.is_loading == is_later
            load_all(engine.catalog)


def test_where_a_journal_is_damaged_the_image_is_read_at_once(
    directory: Path, cache_dir: Path
) -> None:
    """What is left is saved as an image before the journal leaves."""
    journal = directory / "journal.00000002"
    data = bytearray(journal.read_bytes())
    data[20] ^= 1
    journal.write_bytes(data)
    with Engine(cache_dir, later_bytes=0) as engine:
        assert not engine.catalog.is_loading
        (shard,) = [shard for shard, _ in engine.catalog]
        assert contents_of(shard) == {b"a": OLD, b"b": OLD, b"c": OLD}
        assert len(engine.metrics.set_aside) == 1
