"""All shards together: recovered, opened, dropped in one step, bounded."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.catalog import Catalog
from autoloadd_daemon.errors import FullError, StartError, StorageError
from autoloadd_daemon.metrics import Metrics
from autoloadd_daemon.storage.set_aside import is_set_aside
from autoloadd_protocol.producer import Producer

from .harness import (
    PRODUCER,
    Item,
    Life,
    QuickFiles,
    RecordingFiles,
    contents_of,
    no_descriptor_left,
    records_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER = Producer("bash", "5.2", 8)
A = Item(b"blob a")


def catalog_of(cache_dir: Path, files: QuickFiles | None = None) -> Catalog:
    catalog = Catalog(files or QuickFiles(), str(cache_dir), Metrics(), max_bytes=1 << 24)
    catalog.recover()
    return catalog


def stored(cache_dir: Path) -> Path:
    """Store a shard; return its directory."""
    directory = cache_dir / PRODUCER.shard_id()
    life = Life(directory)
    life.put({b"a": A})
    life.crash()
    return directory


def test_shards_are_recovered_by_their_id(cache_dir: Path) -> None:
    stored(cache_dir)
    (cache_dir / "a file").write_bytes(b"not ours")
    catalog = catalog_of(cache_dir)
    shard = catalog.find(PRODUCER.shard_id())
    assert shard is not None
    assert contents_of(shard) == {b"a": A}
    assert [found.id for found, _ in catalog] == [shard.id]
    assert len(catalog) == 1
    assert catalog.files_of(shard).journal_bytes > 0
    assert catalog.failure is None
    assert catalog.find(OTHER.shard_id()) is None
    catalog.files_of(shard).close()


class ReadOnlyFiles(QuickFiles):
    """A disk that takes no writes until it does."""

    error = errno.EROFS

    def remove(self, path: str) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        super().remove(path)


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_what_a_disk_has_that_takes_no_writes_is_served(cache_dir: Path, error: int) -> None:
    directory = stored(cache_dir)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    files = ReadOnlyFiles()
    files.error = error
    catalog = catalog_of(cache_dir, files)
    (shard,) = [shard for shard, _ in catalog]
    assert contents_of(shard) == {b"a": A}
    assert isinstance(catalog.unwritable, FullError) == (error == errno.ENOSPC)
    assert catalog.failure == f"nothing can be written: {cache_dir}: {os.strerror(error)}"
    assert catalog.is_read_only
    for _ in range(2):
        with pytest.raises(StorageError, match="nothing can be written"):
            catalog.check_in_place()
    # As the writer does after it refused a write: what was read is still there.
    catalog.forget_unwritten(shard)
    assert catalog.find(shard.id) is shard
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    files.error = 0
    catalog.probe()
    catalog.recover()
    assert catalog.failure is None
    (shard,) = [shard for shard, _ in catalog]
    assert contents_of(shard) == {b"a": A}
    assert catalog.files_of(shard).journal_count == 1


def test_nothing_is_written_into_a_directory_that_is_lost(cache_dir: Path) -> None:
    catalog = catalog_of(cache_dir)
    catalog.lost = "another directory is there"
    assert catalog.is_read_only
    for write in (catalog.check_in_place, catalog.probe):
        with pytest.raises(StorageError, match="another directory is there"):
            write()
    assert os.listdir(cache_dir) == []


class FullFiles(QuickFiles):
    """A disk that has no room for an image until it has."""

    is_full = True

    def create_for_image(self, path: str) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().create_for_image(path)


@pytest.mark.parametrize("damaged", ["image", "journal.00000007"])
def test_damage_that_cannot_be_put_right_yet_changes_nothing(cache_dir: Path, damaged: str) -> None:
    directory = cache_dir / PRODUCER.shard_id()
    life = Life(directory)
    life.put({b"a": A})
    life.build()
    life.put({b"a": A})
    life.crash()
    (directory / damaged).write_bytes(bytes(1000))
    before = sorted(os.listdir(directory))
    files = FullFiles()
    catalog = catalog_of(cache_dir, files)
    for _ in range(2):
        (shard,) = [shard for shard, _ in catalog]
        assert contents_of(shard) == {b"a": A}
        assert isinstance(catalog.unwritable, FullError)
        assert sorted(os.listdir(directory)) == before
        catalog.recover()
    files.is_full = False
    catalog.recover()
    (shard,) = [shard for shard, _ in catalog]
    assert contents_of(shard) == {b"a": A}
    assert catalog.failure is None
    assert len([name for name in os.listdir(directory) if is_set_aside(name)]) == 1


def test_what_is_served_stays_where_it_cannot_be_recovered_after_all(cache_dir: Path) -> None:
    stored(cache_dir)
    files = ReadOnlyFiles()
    catalog = catalog_of(cache_dir, files)
    for files.error in (errno.EMFILE, errno.EROFS):
        with no_descriptor_left(), pytest.raises(StartError, match="cannot re"):
            catalog.recover()
        (shard,) = [shard for shard, _ in catalog]
        assert contents_of(shard) == {b"a": A}
    files.error = errno.EROFS
    catalog.recover()
    assert len(catalog) == 1


def test_an_empty_directory_of_a_shard_holds_none(cache_dir: Path) -> None:
    (cache_dir / PRODUCER.shard_id()).mkdir()
    (cache_dir / "elsewhere").mkdir()
    assert len(catalog_of(cache_dir, ReadOnlyFiles())) == 0


def test_a_shard_under_another_name_is_refused(cache_dir: Path) -> None:
    stored(cache_dir).rename(cache_dir / "elsewhere")
    with pytest.raises(StartError, match=r"elsewhere holds the shard of zsh/5\.9/8: move it away"):
        catalog_of(cache_dir)


def test_what_is_damaged_and_torn_is_counted(cache_dir: Path) -> None:
    directory = stored(cache_dir)
    with (directory / "journal.00000001").open("ab") as journal:
        journal.write(b"torn")
    (directory / "image").write_bytes(b"no image")
    empty = cache_dir / OTHER.shard_id()
    empty.mkdir()
    (empty / "image").write_bytes(b"none either")
    metrics = Metrics()
    catalog = Catalog(QuickFiles(), str(cache_dir), metrics, max_bytes=1 << 24)
    catalog.recover()
    assert metrics.counters["torn_bytes"] == 4
    assert len(metrics.set_aside) == 2
    assert len(catalog) == 1


def test_an_empty_directory_of_another_kind_stays(cache_dir: Path) -> None:
    """That of the socket lies here where there is no runtime directory, and is empty at a start."""
    (cache_dir / "run").mkdir()
    assert len(catalog_of(cache_dir)) == 0
    assert [path.name for path in cache_dir.iterdir()] == ["run"]


def test_what_was_never_acknowledged_leaves_no_directory(cache_dir: Path) -> None:
    """A daemon was killed in the first write to its shard."""
    for producer, name in ((PRODUCER, "journal.00000001"), (OTHER, "staged.00000001")):
        directory = cache_dir / producer.shard_id()
        directory.mkdir()
        (directory / name).write_bytes(b"begun")
    catalog = catalog_of(cache_dir)
    assert len(catalog) == 0
    assert list(cache_dir.iterdir()) == []
    assert not catalog._metrics.set_aside


def test_a_journal_that_is_missing_is_counted_and_logged(
    cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = stored(cache_dir)
    for name in (b"b", b"c"):
        life = Life(directory)
        # The second frame bears witness that all before it was synced.
        life.put({name: A}, sync=True)
        life.put({name: A})
        life.crash()
    (directory / "journal.00000002").unlink()
    catalog = catalog_of(cache_dir)
    assert [contents_of(shard) for shard, _ in catalog] == [{b"c": A}]
    assert catalog._metrics.counters["journals_missing"] == 1
    lost = f"missing: a journal before {directory}/journal.00000003; nothing from before it is"
    assert lost in caplog.text


@pytest.mark.parametrize("name", ["journal.00000001", "bulk.00000001", "image"])
def test_a_lack_of_descriptors_is_a_start_error_and_no_damage(name: str, cache_dir: Path) -> None:
    directory = stored(cache_dir)
    life = Life(directory)
    life.bulk("merge", [{b"b": A}])
    life.crash()
    (directory / "image").write_bytes(b"")
    before = sorted(directory.iterdir())
    with lack_of_descriptors(directory / name), pytest.raises(StartError, match="Too many open"):
        catalog_of(cache_dir)
    assert sorted(directory.iterdir()) == before


@contextmanager
def lack_of_descriptors(path: Path) -> Iterator[None]:
    """Let one file not be opened."""
    real = os.open

    def refuse(opened: str, *arguments: int) -> int:
        if opened == str(path):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(opened, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        yield


def make_odd(path: Path, kind: str) -> None:
    """Put something in a file's place that no daemon made."""
    if kind == "directory":
        path.mkdir()
        (path / "inside").write_bytes(b"not ours")
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["directory", "link", "pipe"])
@pytest.mark.parametrize(
    "name",
    ["journal.00000001", "journal.00000002", "image", "bulk.00000007", "image.tmp", "staged.0009"],
)
def test_odd_things_are_set_aside_or_removed(name: str, kind: str, cache_dir: Path) -> None:
    directory = stored(cache_dir)
    if name == "journal.00000001":
        (directory / name).unlink()
    make_odd(directory / name, kind)
    make_odd(cache_dir / ".probe", kind)
    make_odd(cache_dir / OTHER.shard_id(), "link")
    metrics = Metrics()
    catalog = Catalog(QuickFiles(), str(cache_dir), metrics, max_bytes=1 << 24)
    catalog.recover()
    shard, disk = catalog.open(PRODUCER)
    assert contents_of(shard) == ({} if name == "journal.00000001" else {b"a": A})
    disk.append([b"frame"], last_generation=9, built_at_ns=0)
    disk.close()
    catalog.probe()
    aside = [Path(each.file).name.partition(".set-aside-")[0] for each in metrics.set_aside]
    counts = name.startswith(("journal", "image")) and name != "image.tmp"
    assert (name in aside) == (counts or kind == "directory")
    assert (".probe" in aside) == (kind == "directory")
    assert OTHER.shard_id() in aside
    assert all(os.path.lexists(each.file) for each in metrics.set_aside)
    assert Path("/dev/zero").exists()


def test_a_shard_is_made_once_with_an_epoch_of_its_own(cache_dir: Path) -> None:
    catalog = catalog_of(cache_dir)
    shard, files = catalog.open(PRODUCER)
    assert catalog.open(PRODUCER) == (shard, files)
    other, _ = catalog.open(OTHER)
    assert shard.epoch != other.epoch
    assert shard.epoch != 0
    assert files.directory == str(cache_dir / shard.id)
    assert list(cache_dir.iterdir()) == [], "the first write makes the directory"


def test_dropping_is_one_rename(cache_dir: Path) -> None:
    directory = stored(cache_dir)
    files = RecordingFiles()
    catalog = catalog_of(cache_dir, files)
    files.log.clear()
    catalog.remove_files(PRODUCER.shard_id())
    catalog.forget(PRODUCER.shard_id())
    operations = files.operations()
    assert operations[0].startswith(f"rename {directory.name} .dropped-")
    assert operations[1] == f"sync_directory {cache_dir.name}"
    assert list(cache_dir.iterdir()) == []
    assert len(catalog) == 0


def test_a_drop_that_cannot_rename_leaves_the_shard(cache_dir: Path) -> None:
    stored(cache_dir)
    files = RecordingFiles()
    catalog = catalog_of(cache_dir, files)
    files.fail_next = "rename"
    with pytest.raises(StorageError, match="Input/output error"):
        catalog.remove_files(PRODUCER.shard_id())
    shard, disk = catalog.open(PRODUCER)
    assert contents_of(shard) == {b"a": A}
    disk.sync()
    disk.close()


def test_a_drop_that_may_not_last_is_refused_and_the_shard_stays(cache_dir: Path) -> None:
    stored(cache_dir)
    files = RecordingFiles()
    catalog = catalog_of(cache_dir, files)
    files.fail_next = "sync_directory"
    with pytest.raises(StorageError, match="Input/output error"):
        catalog.remove_files(PRODUCER.shard_id())
    assert catalog.failure is not None
    assert "dropping it failed" in catalog.failure
    catalog.files_of(catalog.open(PRODUCER)[0]).close()
    (shard,) = [shard for shard, _ in catalog_of(cache_dir)]
    assert contents_of(shard) == {b"a": A}


def test_what_a_drop_leaves_goes_at_the_next_start(cache_dir: Path) -> None:
    stored(cache_dir)
    files = RecordingFiles()
    catalog = catalog_of(cache_dir, files)
    files.fail_next = "remove"
    catalog.remove_files(PRODUCER.shard_id())
    assert [path.name.startswith(".dropped-") for path in cache_dir.iterdir()] == [True]
    assert len(catalog_of(cache_dir)) == 0
    assert list(cache_dir.iterdir()) == []


def test_a_shard_without_files_is_dropped(cache_dir: Path) -> None:
    catalog = catalog_of(cache_dir)
    shard, _ = catalog.open(PRODUCER)
    catalog.remove_files(shard.id)
    catalog.forget(shard.id)
    assert catalog.find(shard.id) is None


def test_the_disk_is_probed_with_a_file_that_goes_again(cache_dir: Path) -> None:
    files = RecordingFiles()
    catalog = catalog_of(cache_dir, files)
    catalog.probe()
    (cache_dir / ".probe").write_bytes(b"left over")
    catalog.probe()
    assert list(cache_dir.iterdir()) == []
    assert files.operations(on="probe")[:5] == [
        "remove .probe",  # at the start: one that a killed daemon left
        "remove .probe",
        "create .probe",
        "append .probe",
        "sync .probe",
    ]


@pytest.mark.parametrize("operation", ["create", "append", "sync"])
def test_a_disk_that_takes_nothing_is_noticed(operation: str, cache_dir: Path) -> None:
    files = RecordingFiles(error=errno.ENOSPC)
    catalog = catalog_of(cache_dir, files)
    files.fail_next = operation
    with pytest.raises(StorageError, match=r"\.probe: No space left on device"):
        catalog.probe()
    assert list(cache_dir.iterdir()) == []


def test_the_least_recently_used_shard_is_found(cache_dir: Path) -> None:
    catalog = catalog_of(cache_dir)
    first, _ = catalog.open(PRODUCER)
    second, _ = catalog.open(OTHER)
    first.last_used_ns, second.last_used_ns = 2, 1
    assert catalog.least_recently_used() is second
    catalog.open_bulks[1] = second.id
    assert catalog.least_recently_used() is None, "the last one stays, and one that is staged for"
    third, _ = catalog.open(Producer("fish", "3", 8))
    third.last_used_ns = 3
    assert catalog.least_recently_used() is first


def test_all_bytes_are_counted(cache_dir: Path) -> None:
    catalog = catalog_of(cache_dir)
    shard, _ = catalog.open(PRODUCER)
    shard.put(records_of({b"a": A}))
    catalog.staged_bytes = 1000
    catalog.set_aside_bytes = 100
    of_shard = shard.stored_bytes + 16_384
    assert catalog.stored_bytes == 1000 + of_shard
    assert catalog.lasting_bytes == 100 + of_shard, "what is staged must cost nobody anything"
    assert catalog.disk_bytes == 100 + 16_384


def test_a_failed_journal_is_a_failure_of_the_catalog(cache_dir: Path) -> None:
    files = RecordingFiles()
    catalog = catalog_of(cache_dir, files)
    _, disk = catalog.open(PRODUCER)
    disk.append([b"frame"], last_generation=1, built_at_ns=0)
    files.fail_next = "sync"
    with pytest.raises(StorageError):
        disk.sync()
    assert catalog.failure is not None
    assert "sync failed" in catalog.failure
    disk.close()


def test_what_was_set_aside_is_reported_and_the_oldest_of_too_many_goes(cache_dir: Path) -> None:
    directory = stored(cache_dir)
    for second in range(5):
        (directory / f"image.set-aside-20261122T10150{second}Z").write_bytes(b"damaged")
    catalog = catalog_of(cache_dir)
    kept = [f"{directory}/image.set-aside-20261122T10150{second}Z" for second in (4, 3, 2)]
    assert [aside.file for aside in catalog._metrics.set_aside] == kept
    assert sorted(map(str, directory.glob("image.set-aside-*"))) == sorted(kept)


def test_nothing_is_written_to_a_directory_that_is_lost(cache_dir: Path) -> None:
    catalog = catalog_of(cache_dir)
    catalog.lost = "it was removed"
    with pytest.raises(StorageError, match="it was removed"):
        catalog.probe()
    assert list(cache_dir.iterdir()) == []
