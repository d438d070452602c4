"""Journals that are missing, swapped, foreign or left over; crashes between two steps."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pytest

from autoloadd_daemon.errors import DamageError, StorageError
from autoloadd_daemon.storage.files import Files
from autoloadd_daemon.storage.images import IMAGE_NAME, TEMPORARY_NAME, load_image
from autoloadd_daemon.storage.journal import journal_name
from autoloadd_daemon.storage.records import (
    HEADER_BYTES,
    JournalHeader,
    encode_clear,
    encode_put,
    parse_frame,
    parse_journal_header,
)
from autoloadd_daemon.storage.recovery import recover_shard
from autoloadd_daemon.storage.scanning import JOURNAL_NAME
from autoloadd_daemon.storage.set_aside import find_set_aside
from autoloadd_protocol.producer import Producer

from ..harness import (
    EPOCH,
    PRODUCER,
    Contents,
    Item,
    Life,
    QuickFiles,
    RecordingFiles,
    files_in,
    record_of,
    write_files,
)

A, B, C, D = (Item(b"blob " + name, b"f", 3) for name in (b"a", b"b", b"c", b"d"))


@pytest.fixture
def directory(cache_dir: Path) -> Path:
    return cache_dir / "shard"


def live(directory: Path, *steps: tuple[object, ...]) -> Life:
    """Begin a life and do steps such as ("put", {...}); return it alive."""
    life = Life(directory)
    for method, *arguments in steps:
        getattr(life, str(method))(*arguments)
    return life


def three_journals(directory: Path) -> dict[str, bytes]:
    """Return the files of a shard whose second journal deletes `a`."""
    live(directory, ("put", {b"a": A, b"b": B})).crash()
    live(directory, ("delete", [b"a"]), ("put", {b"c": C})).crash()
    # The last frame bears witness that the one before was synced, and all journals before it.
    live(directory, ("put", {b"d": D}), ("sync",), ("put", {b"d": D})).crash()
    files = files_in(directory)
    assert list(files) == [journal_name(number) for number in (1, 2, 3)]
    return files


def recover(directory: Path, files: dict[str, bytes]) -> Life:
    write_files(directory, files)
    return Life(directory)


def assert_goes_on(life: Life) -> None:
    """Write, sync, build, crash, recover: nothing is lost, nothing is refused."""
    expected = life.contents
    for number in range(3):
        expected[b"new %d" % number] = Item(b"new")
        life.put({b"new %d" % number: Item(b"new")}, sync=True)
        assert life.contents == expected
        if number == 1:
            life.build()
            assert life.contents == expected
        life.crash()
        life = Life(life.directory)
        assert life.contents == expected
        assert life.set_aside == []
    life.crash()


def kept_names(life: Life) -> list[str]:
    """Return the former names of the files that recovery set aside."""
    return sorted(
        aside.file.rpartition("/")[2].partition(".set-aside")[0] for aside in life.set_aside
    )


def test_a_header_gives_back_what_it_was_made_from() -> None:
    header = JournalHeader(Producer("zsh", "5.9", 4, "b"), EPOCH, 7, 9, 11, -13)
    assert parse_journal_header(header.pack()) == header
    assert len(header.pack()) == HEADER_BYTES


def test_journals_follow_one_another(directory: Path) -> None:
    life = recover(directory, three_journals(directory))
    assert life.contents == {b"b": B, b"c": C, b"d": D}
    assert_goes_on(life)


# Missing, swapped, foreign


def test_without_the_first_journal_the_others_are_served(directory: Path) -> None:
    files = three_journals(directory)
    del files[journal_name(1)]
    life = recover(directory, files)
    assert life.contents == {b"c": C, b"d": D}
    assert_goes_on(life)


def test_nothing_from_before_a_missing_journal_is_served(directory: Path) -> None:
    files = three_journals(directory)
    del files[journal_name(2)]
    life = recover(directory, files)
    assert life.contents == {b"d": D}, "`a` was deleted in the journal that is missing"
    assert_goes_on(life)


def test_nothing_of_an_image_before_a_missing_journal_is_served(directory: Path) -> None:
    live(directory, ("put", {b"a": A}), ("build",), ("delete", [b"a"])).crash()
    (lost,) = [name for name in files_in(directory) if name.startswith("journal")]
    live(directory, ("put", {b"b": B}), ("sync",), ("put", {b"b": B})).crash()
    files = files_in(directory)
    del files[lost]
    life = recover(directory, files)
    assert life.contents == {b"b": B}
    assert_goes_on(life)


def test_behind_a_gap_nothing_counts_that_may_never_have_been_synced(directory: Path) -> None:
    live(directory, ("put", {b"a": A}), ("build",), ("put", {b"b": B})).crash()
    files = files_in(directory)
    header = JournalHeader(PRODUCER, EPOCH, 9, 40, 0, 5)
    life = recover(directory, {IMAGE_NAME: files[IMAGE_NAME], journal_name(9): header.pack()})
    assert life.contents == {b"a": A}
    assert kept_names(life) == [journal_name(9)]
    assert_goes_on(life)


def test_power_lost_before_the_first_of_two_journals_was_synced(directory: Path) -> None:
    live(directory, ("put", {b"a": A})).crash()
    live(directory, ("put", {b"b": B})).crash()
    files = files_in(directory)
    life = recover(directory, files | {journal_name(1): b""})
    assert life.contents == {}, "`b` without `a` was never the shard's contents"
    assert kept_names(life) == [journal_name(1), journal_name(2)]
    assert_goes_on(life)


def test_swapped_journals_are_set_aside(directory: Path) -> None:
    files = three_journals(directory)
    first, second = journal_name(1), journal_name(2)
    files[first], files[second] = files[second], files[first]
    life = recover(directory, files)
    assert life.contents == {b"d": D}
    assert kept_names(life) == [first, second]
    assert_goes_on(life)


def test_a_copy_of_a_journal_is_set_aside(directory: Path) -> None:
    files = three_journals(directory)
    files[journal_name(4)] = files[journal_name(1)]
    life = recover(directory, files)
    assert life.contents == {b"b": B, b"c": C, b"d": D}
    assert kept_names(life) == [journal_name(4)]
    assert_goes_on(life)


def test_a_journal_of_another_life_is_set_aside(directory: Path) -> None:
    live(directory, ("put", {b"a": A}), ("build",), ("put", {b"b": B})).crash()
    files = files_in(directory)
    (own,) = [name for name in files if name.startswith("journal")]
    number = int(own.partition(".")[2]) + 1
    foreign = JournalHeader(PRODUCER, EPOCH + 1, number, 0, 0, 5).pack()
    foreign += b"".join(encode_put(90, 0, [record_of(b"a", B)]))
    life = recover(directory, files | {journal_name(number): foreign})
    assert life.contents == {b"a": A, b"b": B}
    assert kept_names(life) == [journal_name(number)]
    assert [aside.reason for aside in life.set_aside] == [
        "belongs to an earlier life of this shard"
    ]
    assert_goes_on(life)


def test_a_foreign_journal_does_not_hide_that_one_is_missing(directory: Path) -> None:
    files = three_journals(directory)
    foreign = JournalHeader(PRODUCER, EPOCH + 1, 2, 0, 0, 5).pack()
    life = recover(directory, files | {journal_name(2): foreign})
    assert life.contents == {b"d": D}, "`a` was deleted in the journal that is missing"
    assert kept_names(life) == [journal_name(2)]
    assert_goes_on(life)


def test_a_frame_that_comes_too_late_shows_that_others_came_too_early(directory: Path) -> None:
    data = JournalHeader(PRODUCER, EPOCH, 1, 0, 0, 5).pack()
    frames = [
        b"".join(encode_put(generation, 0, [record_of(name, item)]))
        for generation, name, item in ((1, b"a", A), (2, b"a", B), (3, b"c", C))
    ]
    life = recover(directory, {journal_name(1): data + frames[0] + frames[2] + frames[1]})
    assert life.contents == {b"a": A}, "`c` without what was written before it was never there"
    assert kept_names(life) == [journal_name(1)]
    assert_goes_on(life)


def test_a_frame_that_was_written_twice_is_a_bad_end(directory: Path) -> None:
    data = JournalHeader(PRODUCER, EPOCH, 1, 0, 0, 5).pack()
    good = b"".join(encode_put(2, 0, [record_of(b"a", A)]))
    life = recover(directory, {journal_name(1): data + good + good})
    assert life.contents == {b"a": A}
    assert life.torn_bytes == len(good)


@pytest.mark.parametrize("is_believable", [False, True])
def test_a_frame_behind_a_bad_one_says_only_of_what_lies_before_it_that_it_was_synced(
    is_believable: bool, directory: Path
) -> None:
    """One that says more of itself was never written there: bytes of another file, long gone."""
    good, bad = (b"".join(encode_clear(generation, 0)) for generation in (1, 2))
    start = HEADER_BYTES + len(good) + len(bad)
    witness = b"".join(encode_clear(3, start if is_believable else start + 1))
    journal = JournalHeader(PRODUCER, EPOCH, 1, 0, 0, 5).pack() + good + bytes(len(bad)) + witness
    life = recover(directory, {journal_name(1): journal})
    assert life.shard.generation == 1
    assert kept_names(life) == ([journal_name(1)] if is_believable else [])
    assert life.torn_bytes == (0 if is_believable else len(bad) + len(witness))
    assert_goes_on(life)


def test_frames_that_the_next_header_does_not_count_were_refused(directory: Path) -> None:
    live(directory, ("put", {b"a": A})).crash()
    live(directory, ("put", {b"b": B})).crash()
    files = files_in(directory)
    refused = b"".join(encode_clear(2, 0))
    life = recover(directory, files | {journal_name(1): files[journal_name(1)] + refused})
    assert life.contents == {b"a": A, b"b": B}
    assert life.set_aside == []
    assert_goes_on(life)


# Versions and headers


@pytest.mark.parametrize("name", [IMAGE_NAME, journal_name(1), journal_name(2)])
def test_a_file_of_an_unknown_version_is_kept(name: str, directory: Path) -> None:
    live(directory, ("put", {b"a": A})).crash()
    journal = files_in(directory)[journal_name(1)]
    live(directory, ("build",), ("put", {b"b": B})).crash()
    files = files_in(directory) | {journal_name(1): journal}
    newer = files[name][:8] + b"\x02" + files[name][9:]
    life = recover(directory, files | {name: newer})
    assert kept_names(life) == [name]
    assert "version 2" in life.set_aside[0].reason
    kept = [Path(path) for path in find_set_aside(Files(), [str(directory)])]
    assert [path.read_bytes() for path in kept] == [newer]
    assert_goes_on(life)


def test_files_set_aside_in_one_second_are_all_kept(directory: Path) -> None:
    for number in range(3):
        life = recover_with(directory, b"no image %d" % number)
        assert kept_names(life) == [IMAGE_NAME]
    kept = sorted(path.read_bytes() for path in directory.iterdir())
    assert kept == [b"no image %d" % number for number in range(3)]


def recover_with(directory: Path, image: bytes) -> Life:
    """Recover with an image added to what is there."""
    directory.mkdir(exist_ok=True)
    (directory / IMAGE_NAME).write_bytes(image)
    return Life(directory)


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1])
def test_a_short_header_of_the_last_journal_is_removed(length: int, directory: Path) -> None:
    files = three_journals(directory)
    third = journal_name(3)
    life = recover(directory, files | {third: files[third][:length]})
    assert life.contents == {b"b": B, b"c": C}
    assert life.set_aside == []
    assert third not in files_in(directory)
    assert_goes_on(life)


@pytest.mark.parametrize("length", [0, HEADER_BYTES - 1])
def test_a_short_header_in_the_middle_is_damage(length: int, directory: Path) -> None:
    files = three_journals(directory)
    second = journal_name(2)
    life = recover(directory, files | {second: files[second][:length]})
    assert life.contents == {b"d": D}
    assert kept_names(life) == [second]
    assert_goes_on(life)


@pytest.mark.parametrize(
    "producer", [b"", b"\xc0", b"\x80", b"\xc1", b"\x81\xa4name", b"\x83\xa4name\xa1z"]
)
def test_a_header_that_names_no_producer_is_damage(producer: bytes) -> None:
    data = bytearray(JournalHeader(PRODUCER, EPOCH, 1, 0, 0, 5).pack())
    data[56:508] = producer.ljust(452, b"\0")
    with pytest.raises(DamageError):
        parse_journal_header(resealed(data))


def test_a_header_that_holds_only_a_map_without_its_end_is_damage() -> None:
    data = bytearray(JournalHeader(PRODUCER, EPOCH, 1, 0, 0, 5).pack())
    data[56:508] = b"\xdf\xff\xff\xff\xff".ljust(452, b"\0")
    with pytest.raises(DamageError):
        parse_journal_header(resealed(data))
    data[56:508] = b"\xdc\x04\x00".ljust(452, b"\0")
    with pytest.raises(DamageError, match="names no producer"):
        parse_journal_header(resealed(data))


def test_a_header_that_contradicts_itself_is_damage() -> None:
    data = bytearray(JournalHeader(PRODUCER, EPOCH, 1, 0, 0, 5).pack())
    data[12] = 4
    with pytest.raises(DamageError, match="contradicts itself"):
        parse_journal_header(resealed(data))


def resealed(header: bytearray) -> bytes:
    """Return a header with the checksum that its bytes call for."""
    return bytes(header[:508]) + crc32(bytes(header[:508])).to_bytes(4, "little")


# Crashes between two steps


def test_a_crash_after_the_rotation_before_the_image(directory: Path) -> None:
    life = live(directory, ("put", {b"a": A}))
    life.disk.rotate()
    life.put({b"b": B})
    life.crash()
    life = Life(directory)
    assert life.contents == {b"a": A, b"b": B}
    assert_goes_on(life)


@pytest.mark.parametrize("left", [(1, 2), (1,), (2,)])
def test_a_crash_before_the_covered_journals_are_removed(
    left: tuple[int, ...], directory: Path
) -> None:
    live(directory, ("put", {b"a": A, b"x": D}), ("bulk", "merge", [{b"c": C}])).crash()
    life = live(directory, ("delete", [b"x"]))
    before = files_in(directory)
    life.build()
    life.put({b"b": B})
    life.crash()
    covered = {journal_name(number): before[journal_name(number)] for number in left}
    # The bulk goes after its journal; a power loss may still bring the journal alone back.
    life = recover(directory, files_in(directory) | covered)
    assert life.contents == {b"a": A, b"b": B, b"c": C}
    assert life.set_aside == []
    assert_goes_on(life)


def test_a_left_over_temporary_image_is_removed(directory: Path) -> None:
    files = three_journals(directory)
    life = recover(directory, files | {TEMPORARY_NAME: b"half an image"})
    assert life.contents == {b"b": B, b"c": C, b"d": D}
    assert TEMPORARY_NAME not in files_in(directory)
    assert life.set_aside == []


def test_files_that_are_not_ours_are_left_alone(directory: Path) -> None:
    life = recover(directory, {"README": b"mine", "journal.x": b"", "bulk.1.bak": b""})
    assert life.recovered is None
    assert list(files_in(directory)) == ["README", "bulk.1.bak", "journal.x"]


def test_damage_and_what_follows_leave_after_an_image_is_durable(directory: Path) -> None:
    files = three_journals(directory)
    write_files(directory, files | {journal_name(2): files[journal_name(2)][:-1]})
    disk = RecordingFiles()
    found = recover_shard(disk, str(directory))
    assert not isinstance(found, list)
    operations = disk.operations()
    installed = operations.index(f"rename {TEMPORARY_NAME} {IMAGE_NAME}")
    durable = operations.index("sync_directory shard", installed)
    leaving = [
        place
        for place, operation in enumerate(operations)
        if operation.startswith(("rename journal", "remove journal"))
    ]
    assert len(leaving) == 3
    assert min(leaving) > durable


def test_a_crash_at_each_step_of_setting_aside_keeps_the_prefix(directory: Path) -> None:
    files = three_journals(directory)
    damaged = files | {journal_name(2): files[journal_name(2)][:-1]}
    prefix: Contents = {b"b": B}
    steps = 0
    while True:
        steps += 1
        write_files(directory, damaged)
        disk = RecordingFiles(fail_at=steps, persistent=True)
        if not stops_recovery(disk, directory):
            break
        life = Life(directory, QuickFiles())
        assert life.contents == prefix, disk.failed[0]
        assert_goes_on(life)
    assert steps > 10


def stops_recovery(disk: RecordingFiles, directory: Path) -> bool:
    """Recover on a disk that stops taking changes at some step; tell whether it came to that."""
    try:
        recover_shard(disk, str(directory))
    except (OSError, StorageError):
        assert disk.failed
        return True
    return bool(disk.failed)


# What is lost begins a new epoch


def epochs_on_disk(directory: Path) -> set[int]:
    """Return the epochs of image and journals."""
    files = files_in(directory)
    image = load_image(str(directory / "image"))
    assert image is not None
    journals = [data for name, data in files.items() if JOURNAL_NAME.fullmatch(name)]
    return {image.header.epoch, *(parse_journal_header(data).epoch for data in journals)}


@pytest.mark.parametrize("lost", ["a frame", "a journal", "the tail after a gap", "the image"])
def test_generations_never_compare_across_lost_history(lost: str, directory: Path) -> None:
    files = three_journals(directory)
    if lost == "a frame":
        name = journal_name(2)
        files[name] = files[name][:HEADER_BYTES] + b"x" + files[name][HEADER_BYTES + 1 :]
    elif lost == "a journal":
        del files[journal_name(2)]
    elif lost == "the tail after a gap":
        del files[journal_name(2)]
        unsynced = parse_frame(files[journal_name(3)], HEADER_BYTES).end
        files[journal_name(3)] = files[journal_name(3)][:unsynced]
    else:
        files["image"] = b"damaged"
    life = recover(directory, files)
    epoch = life.shard.epoch
    assert epoch != EPOCH
    assert_goes_on(life)
    assert epochs_on_disk(directory) == {epoch}


def test_without_a_loss_the_epoch_stays(directory: Path) -> None:
    files = three_journals(directory)
    files[journal_name(3)] += b"torn"
    assert recover(directory, files).shard.epoch == EPOCH


def test_bulks_of_a_journal_that_is_set_aside_are_kept_with_it(directory: Path) -> None:
    live(directory, ("put", {b"a": A}), ("bulk", "merge", [{b"b": B}])).crash()
    live(directory, ("put", {b"c": C}), ("sync",), ("put", {b"d": D})).crash()
    files = files_in(directory)
    # Without its header nothing says any more which bulks it named.
    files[journal_name(1)] = b"x" + files[journal_name(1)][1:]
    (bulk,) = [name for name in files if name.startswith("bulk.")]
    life = recover(directory, files)
    assert kept_names(life) == sorted([bulk, journal_name(1)])
    assert_goes_on(life)
    kept = [Path(path) for path in find_set_aside(Files(), [str(directory)])]
    assert {path.name.partition(".set-aside-")[0] for path in kept} == {bulk, journal_name(1)}
    assert [path.read_bytes() for path in kept if path.name.startswith("bulk.")] == [files[bulk]]


def test_an_image_that_may_be_outdated_is_kept_aside(directory: Path) -> None:
    live(directory, ("put", {b"a": A}), ("build",), ("delete", [b"a"])).crash()
    (lost,) = [name for name in files_in(directory) if name.startswith("journal")]
    live(directory, ("put", {b"b": B}), ("sync",), ("put", {b"b": B})).crash()
    files = files_in(directory)
    del files[lost]
    life = recover(directory, files)
    assert kept_names(life) == ["image"]
    assert life.recovered is not None
    assert "a journal before" in str(life.recovered.missing)
