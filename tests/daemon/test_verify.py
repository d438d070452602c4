"""What `verify` says of a cache's files: just what recovery would do, and nothing is changed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import socket
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from autoloadd_daemon.storage import records
from autoloadd_daemon.storage.checking import FileReport, Verdict, check_shard
from autoloadd_daemon.storage.files import Files
from autoloadd_daemon.storage.recovery import Recovered, recover_shard
from autoloadd_daemon.verify import Progress, Report, VerifyError, check_cache, main
from autoloadd_protocol.image import HEADER_BYTES, SLOT, SLOT_BYTES, Image
from autoloadd_protocol.producer import Producer

from .harness import PRODUCER, Item, Life, QuickFiles, files_in, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE, BULK = "image", "bulk.00000001"
COVERED, FIRST, SECOND = "journal.00000001", "journal.00000002", "journal.00000003"


@pytest.fixture
def directory(cache_dir: Path) -> Path:
    """A shard's directory that holds an image, two journals and a bulk, all good."""
    directory = cache_dir / PRODUCER.shard_id()
    life = Life(directory)
    life.put({b"a": Item(b"1"), b"b" * 60: Item(b"2")})
    life.bulk("merge", [{b"c": Item(b"3")}])
    life.build()
    life.put({b"a": Item(b"4")}, sync=True)
    life.delete([b"c"], sync=True)
    life.crash()
    life = Life(directory)
    life.bulk("merge", [{b"d": Item(b"5"), b"e": Item(b"6")}], sync=True)
    life.put({b"f": Item(b"7")})
    life.clear()
    life.put({b"g": Item(b"8")}, sync=True)
    life.crash()
    return directory


def look_at(directory: Path) -> dict[str, FileReport]:
    reports = check_shard(Files(), str(directory))
    return {os.path.basename(report.path): report for report in reports}


def verdicts(directory: Path) -> dict[str, Verdict]:
    return {name: report.verdict for name, report in look_at(directory).items()}


def change_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_good_files_are_counted(directory: Path) -> None:
    found = look_at(directory)
    assert {name: (r.kind, r.verdict, r.entries) for name, r in found.items()} == {
        IMAGE: ("image", Verdict.OK, 3),
        FIRST: ("journal", Verdict.OK, 2),
        SECOND: ("journal", Verdict.OK, 4),
        BULK: ("bulk", Verdict.OK, 2),
    }
    for name, report in found.items():
        assert report.size == (directory / name).stat().st_size
        assert (report.problem, report.at) == (None, None)


def test_every_flipped_bit_and_every_cut_is_damage_just_where_recovery_says_so(
    directory: Path, tmp_path: Path
) -> None:
    good = files_in(directory)
    copy = tmp_path / directory.name
    seen: set[frozenset[Verdict]] = set()
    for name in (IMAGE, FIRST, SECOND, BULK):
        data = good[name]
        # Every byte of a header's fields, fewer of what is alike.
        places = [at for at in range(len(data)) if at < 128 or at % 17 == 0]
        damaged = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in places]
        for other in damaged + [data[:at] for at in places]:
            write_files(copy, {**good, name: other})
            said = look_at(copy)
            assert files_in(copy) == {**good, name: other}
            seen.add(frozenset(report.verdict for report in said.values()))
            aside = set_aside_by_recovery(copy)
            assert {n for n in (IMAGE, FIRST, SECOND) if said[n].verdict is Verdict.DAMAGED} == {
                n for n in aside if not n.startswith("bulk")
            }
            if name == BULK:
                assert said[BULK].verdict is Verdict.DAMAGED
    assert frozenset({Verdict.OK, Verdict.TORN}) in seen
    assert any(Verdict.DAMAGED in each for each in seen)


def set_aside_by_recovery(directory: Path) -> set[str]:
    found = recover_shard(QuickFiles(), str(directory))
    if isinstance(found, Recovered):
        for journal in found.journals:
            journal.close()
        found = found.set_aside
    return {os.path.basename(each.file).partition(".set-aside-")[0] for each in found}


def test_the_first_bad_byte_is_told(directory: Path) -> None:
    good = files_in(directory)
    image = Image(good[IMAGE])
    record = image.look_up(b"c")
    assert record is not None
    places = {0: 0, 200: 0, HEADER_BYTES + 1: HEADER_BYTES, record.blob_start: record.start - 8}
    for at, told in places.items():
        change_byte(directory / IMAGE, at)
        report = look_at(directory)[IMAGE]
        assert (report.verdict, report.at, report.entries) == (Verdict.DAMAGED, told, None)
        write_files(directory, good)
    (directory / IMAGE).write_bytes(good[IMAGE] + b"more")
    assert look_at(directory)[IMAGE].at == len(good[IMAGE])


def test_a_torn_tail_is_no_damage(directory: Path) -> None:
    good = (directory / SECOND).read_bytes()
    (directory / SECOND).write_bytes(good + b"half a frame")
    report = look_at(directory)[SECOND]
    assert (report.verdict, report.at) == (Verdict.TORN, len(good))
    assert report.problem == "12 bytes that were not promised"
    assert check_cache(str(directory.parent)).status == 0


def test_what_was_once_synced_is_damage_with_all_that_follows(directory: Path) -> None:
    change_byte(directory / FIRST, records.HEADER_BYTES + 40)
    found = look_at(directory)
    assert found[FIRST].verdict is found[SECOND].verdict is Verdict.DAMAGED
    assert found[FIRST].at == records.HEADER_BYTES
    assert found[SECOND].problem == f"follows {directory / FIRST}"
    assert found[IMAGE].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("swapped", "problem"), [(True, "under another one's name"), (False, "magic does not match")]
)
def test_a_journal_under_a_wrong_name_or_of_another_kind(
    directory: Path, swapped: bool, problem: str
) -> None:
    source = directory / (FIRST if swapped else IMAGE)
    shutil.copy(source, directory / "journal.00000009")
    report = look_at(directory)["journal.00000009"]
    assert report.verdict is Verdict.DAMAGED
    assert problem in str(report.problem)


def test_a_missing_journal_is_damage_of_the_shard(directory: Path) -> None:
    (directory / FIRST).unlink()
    found = look_at(directory)
    assert found[directory.name].verdict is Verdict.DAMAGED
    problem = f"a journal before {directory / SECOND} is missing: nothing from before it is served"
    assert found[directory.name].problem == problem
    assert (found[IMAGE].verdict, found[IMAGE].at) == (Verdict.DAMAGED, None)
    assert found[IMAGE].problem == "a journal behind it is missing: what it holds may be outdated"
    assert found[SECOND].verdict is Verdict.OK


def test_what_the_image_covers_need_not_be_whole(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / directory.name
    life = Life(other)
    life.put({b"a": Item(b"1")})
    life.bulk("merge", [{b"c": Item(b"3")}])
    covered = files_in(other)
    life.build()
    life.crash()
    write_files(other, {**files_in(other), **covered, "bulk.00000001": b"not what was committed"})
    assert verdicts(other) == {
        IMAGE: Verdict.OK,
        COVERED: Verdict.SPARE,
        "bulk.00000001": Verdict.SPARE,
    }


def test_left_overs_and_files_of_others_are_named_and_no_damage(directory: Path) -> None:
    for name in (
        "image.tmp",
        "journal.00000002.tmp",
        "staged.00000007",
        "bulk.00000009",
        "notes",
        "journal.00000004",
    ):
        (directory / name).write_bytes(b"half")
    (directory / f"{IMAGE}.set-aside-20261122T101500Z").write_bytes(b"bad")
    (directory.parent / ".probe").touch()
    (directory.parent / ".dropped-7-1").mkdir()
    report = check_cache(str(directory.parent))
    found = {os.path.basename(file.path): str(file.verdict) for file in report.files}
    assert found == {
        ".dropped-7-1": "not needed",
        ".probe": "not needed",
        "bulk.00000009": "not needed",
        "image.tmp": "not needed",
        "journal.00000002.tmp": "not needed",
        "journal.00000004": "not needed",
        "staged.00000007": "not needed",
        "image.set-aside-20261122T101500Z": "set aside",
        "notes": "unknown",
        **dict.fromkeys((IMAGE, FIRST, SECOND, BULK), "ok"),
    }
    assert report.status == 0


def repack(path: Path, change: Callable[[bytearray, Image], None]) -> None:
    """Change an image so that all its checksums match."""
    image = Image(path.read_bytes())
    data = bytearray(image.buffer)
    change(data, image)
    records = image.header.records_at
    head = image.header._replace(
        index_checksum=crc32(data[HEADER_BYTES:records]),
        records_checksum=crc32(data[records:]),
    )
    data[:HEADER_BYTES] = head.pack()
    path.write_bytes(data)


def swap_blobs(data: bytearray, image: Image) -> None:
    taken = [at for at in slots(image) if data[at]]
    one, two = taken[0], taken[1]
    data[one + 48 : one + 64], data[two + 48 : two + 64] = (
        data[two + 48 : two + 64],
        data[one + 48 : one + 64],
    )


def forget_a_time(data: bytearray, image: Image) -> None:
    at = next(at for at in slots(image) if data[at])
    name, _, start, end = SLOT.unpack_from(data, at)
    SLOT.pack_into(data, at, name, 99, start, end)


def reverse_the_order(data: bytearray, image: Image) -> None:
    at, entries = image.header.order_at, len(image)
    order = [data[at + 4 * i : at + 4 * i + 4] for i in range(entries)]
    data[at : at + 4 * entries] = b"".join(reversed(order))


def spoil_a_record(data: bytearray, image: Image) -> None:
    record = image.look_up(b"c")
    assert record is not None
    data[record.blob_start] ^= 1


def slots(image: Image) -> range:
    return range(HEADER_BYTES, image.header.order_at, SLOT_BYTES)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (swap_blobs, "the index does not lead to the record of b'"),
        (forget_a_time, "the index does not lead to the record of b'"),
        (reverse_the_order, "the order has b'"),
        (spoil_a_record, "a record's checksum does not match"),
    ],
)
def test_an_image_that_contradicts_itself_although_its_checksums_match(
    directory: Path, change: Callable[[bytearray, Image], None], problem: str
) -> None:
    repack(directory / IMAGE, lambda _data, _image: None)
    assert look_at(directory)[IMAGE].verdict is Verdict.OK
    repack(directory / IMAGE, change)
    report = look_at(directory)[IMAGE]
    assert report.verdict is Verdict.DAMAGED
    assert problem in str(report.problem)


def test_a_header_that_counts_wrongly(directory: Path) -> None:
    image = Image((directory / IMAGE).read_bytes())
    head = image.header._replace(blob_bytes=999).pack()
    (directory / IMAGE).write_bytes(head + bytes(image.buffer[HEADER_BYTES:]))
    problem = look_at(directory)[IMAGE].problem
    assert problem == "3 records of 3 bytes, which the header contradicts"


def test_a_shard_in_another_ones_directory(directory: Path) -> None:
    moved = directory.rename(directory.parent / Producer("fish", "3").shard_id())
    report = look_at(moved)[moved.name]
    assert report.verdict is Verdict.DAMAGED
    assert "holds the shard of zsh/5.9/8" in str(report.problem)


def test_damage_is_told_also_beside_a_daemon_that_works(directory: Path) -> None:
    change_byte(directory / IMAGE, HEADER_BYTES)

    class Appending(Files):
        def read(self, path: str) -> bytes:
            (directory / "staged.00000042").touch()
            return super().read(path)

    reports = check_shard(Appending(), str(directory))
    assert {r.verdict for r in reports if r.path.endswith("/image")} == {Verdict.DAMAGED}


class UnreadableFiles(Files):
    """One file that the system refuses to read."""

    def __init__(self, name: str, error: int) -> None:
        self.name = name
        self.error = error

    def read(self, path: str) -> bytes:
        """Read, unless it is that file."""
        if path.endswith(f"/{self.name}"):
            raise OSError(self.error, os.strerror(self.error))
        return super().read(path)


def test_what_cannot_be_read_is_no_damage(directory: Path) -> None:
    reports = check_shard(UnreadableFiles(FIRST, errno.EMFILE), str(directory))
    found = {os.path.basename(report.path): report for report in reports}
    assert {report.verdict for report in reports} == {Verdict.UNREADABLE}
    assert found[FIRST].problem == "Too many open files"
    assert "another file cannot be read: Too many open files" in str(found[SECOND].problem)
    assert Report(str(directory.parent), reports).status == 4


def test_odd_things_under_our_names_do_not_stop_it(directory: Path) -> None:
    (directory / "bulk.00000007").mkdir()
    (directory / "image.tmp").symlink_to("/nowhere")
    (directory.parent / "link").symlink_to("/nowhere")
    assert verdicts(directory)["bulk.00000007"] is Verdict.SPARE
    found = check_cache(str(directory.parent)).files
    assert {os.path.basename(f.path): f.verdict for f in found}["link"] is Verdict.UNKNOWN


def test_damage_goes_before_what_cannot_be_read() -> None:
    verdicts = (Verdict.OK, Verdict.UNREADABLE, Verdict.DAMAGED)
    files = [FileReport("/c/x", "image", verdict, 1) for verdict in verdicts]
    assert [Report("/c", files[:n]).status for n in range(4)] == [0, 0, 4, 1]


def test_just_one_shard(directory: Path) -> None:
    shutil.copytree(directory, directory.parent / "other")
    report = check_cache(str(directory.parent), [directory.name])
    assert {os.path.dirname(file.path) for file in report.files} == {str(directory)}
    with pytest.raises(VerifyError, match=r"there is no shard none in .*; there are: other, zsh"):
        check_cache(str(directory.parent), ["none"])


def test_an_empty_cache_is_well(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cache-dir", str(cache_dir)]) == 0
    assert capsys.readouterr().out == f"{cache_dir}: 0 files, 0 B: empty\n"


def test_json_has_every_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / os.fsdecode(b"\xff\n")).touch()
    change_byte(directory / IMAGE, 0)
    assert main(["--json", "--cache-dir", str(directory.parent)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["verdicts"]["damaged"] == 1
    assert {os.path.basename(file["path"]) for file in said["files"]} == set(os.listdir(directory))
    (image,) = (file for file in said["files"] if file["kind"] == "image")
    assert image == {
        "path": str(directory / IMAGE),
        "kind": "image",
        "verdict": "damaged",
        "size": (directory / IMAGE).stat().st_size,
        "entries": None,
        "problem": "no image: the magic does not match",
        "at": 0,
    }


class Terminal(io.StringIO):
    """What a terminal is written."""

    def isatty(self) -> bool:
        """Be one."""
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "written"),
    [
        (Terminal(), 0.0, "\rchecking a\\x1b\x1b[K\rchecking b\x1b[K\r\x1b[K"),
        (Terminal(), 3600.0, ""),
        (io.StringIO(), 0.0, ""),
    ],
)
def test_what_takes_long_says_on_a_terminal_where_it_is(
    stream: io.StringIO, quiet: float, written: str
) -> None:
    progress = Progress(stream, quiet=quiet)
    progress.show("a\x1b")
    progress.show("b")
    progress.clear()
    assert stream.getvalue() == written


class VanishingFiles(UnreadableFiles):
    """One file that cannot be read, while another one goes, both once."""

    def __init__(self, unreadable: str, gone: str) -> None:
        super().__init__(unreadable, errno.EMFILE)
        self.gone = gone

    def read(self, path: str) -> bytes:
        """Read, unless it is the turn of one of the two."""
        if path.endswith(f"/{self.gone}"):
            self.name = self.gone = "none"
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return super().read(path)


def test_files_that_go_while_it_is_found_out_what_is_wrong_are_looked_for_again(
    directory: Path,
) -> None:
    reports = check_shard(VanishingFiles(SECOND, BULK), str(directory))
    assert {report.verdict for report in reports} == {Verdict.OK}
    change_byte(directory / IMAGE, 0)
    reports = check_shard(VanishingFiles("none", IMAGE), str(directory))
    assert [r.at for r in reports if r.kind == "image"] == [0]


def test_an_image_that_is_no_file_has_no_first_bad_byte(directory: Path) -> None:
    (directory / IMAGE).unlink()
    (directory / IMAGE).mkdir()
    report = look_at(directory)[IMAGE]
    assert (report.verdict, report.at) == (Verdict.DAMAGED, None)


def test_the_daemons_socket_is_no_stranger(home: Path) -> None:
    (home / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "run" / "socket"))
        (report,) = check_cache(str(home)).files
    assert (report.kind, report.verdict) == ("socket", Verdict.OK)


def test_what_shells_keep_beside_the_socket_is_no_stranger(home: Path) -> None:
    kept = {"zsh-asked", "zsh-away", "zsh-daemon", "zsh.lock", "plugin-5.9-1-2-3.zwc"}
    (home / "run" / ".zsh-5.9-1147-16c2-x8s1" / "farm").mkdir(parents=True)
    (home / "run" / "zsh-5.9-1147-16c2").symlink_to(".zsh-5.9-1147-16c2-x8s1")
    for name in {*kept, "notes"}:
        (home / "run" / name).touch()
    (home / "zsh-asked").touch()
    unknown = {r.path for r in check_cache(str(home)).files if r.verdict is Verdict.UNKNOWN}
    assert unknown == {str(home / "run" / "notes"), str(home / "zsh-asked")}


def test_what_goes_before_it_is_looked_at_is_no_matter(cache_dir: Path) -> None:
    (cache_dir / "notes").touch()
    report = check_cache(str(cache_dir), tell=lambda name: (cache_dir / name).unlink())
    assert report.files == []


def test_a_directory_that_cannot_be_listed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir

    def refuse(path: str) -> list[str]:
        if path == str(directory):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    report = check_cache(str(directory.parent))
    assert [(f.verdict, f.problem) for f in report.files] == [
        (Verdict.UNREADABLE, "Permission denied")
    ]
    assert report.status == 4


def test_an_interrupt_ends_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_path: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "listdir", interrupt)
    assert main(["--cache-dir", str(directory.parent)]) == 130
