"""autoloadctl import: what comes in, what stays, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client import Entry
from autoloadd_client.zshrs.layout import RUSTC_1_95, Header
from autoloadd_client.zshrs.writing import EntryToWrite, encode_shard_file

from ..zshrs_files import DATA, FIXTURES, read_naively
from .conftest import ctl_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from autoloadd_protocol.producer import Producer

    from .conftest import Ctl, Daemon

PRODUCER = "zshrs/0.1.0/8"
SECOND = 10**9
MTIME = 1_735_689_600
BUILT_AT = 1_795_384_784
THREE = DATA / "three.rkyv"

LIMIT = {"AUTOLOADD_MAX_BYTES": "16MiB"}


def write_file(path: Path, entries: Mapping[bytes, EntryToWrite]) -> Path:
    header = Header("0.1.0", 8, BUILT_AT)
    path.write_bytes(b"".join(encode_shard_file(header, entries, RUSTC_1_95)))
    return path


def stored(daemon: Daemon, producer: Producer | str = PRODUCER) -> dict[str, Entry]:
    with daemon.cache(producer) as cache:
        return dict(cache.get_entries(name for name, _ in cache.names()))


def shards(daemon: Daemon) -> list[dict[str, Any]]:
    with daemon.cache(None) as control:
        return control.shards()


def import_json(ctl: Ctl, *arguments: str | Path) -> dict[str, Any]:
    done = ctl("import", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def assert_refused(ctl: Ctl, daemon: Daemon, *arguments: str | Path, said: str) -> None:
    done = ctl("import", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith("autoloadctl: ")
    assert said in done.stderr.decode()
    assert shards(daemon) == []


@pytest.mark.parametrize("name", FIXTURES)
def test_every_entry_comes_in_with_its_times_and_the_shard_with_its_own(
    ctl: Ctl, daemon: Daemon, name: str
) -> None:
    done = ctl("import", "zshrs", DATA / name)
    assert (done.returncode, done.stderr) == (0, b"")
    layout = "1.63" if "163" in name else "1.95"
    naive = read_naively((DATA / name).read_bytes(), layout)
    producer = f"zshrs/{naive.version.decode()}/8"
    assert stored(daemon, producer) == {
        each.decode(): Entry(blob, None, mtime * SECOND, cached_at * SECOND)
        for each, mtime, cached_at, blob in naive.slots
        if each
    }
    (shard,) = shards(daemon)
    assert shard["built_at_ns"] == naive.built_at * SECOND
    assert f"entries of {producer}" in done.stdout.decode()


def test_a_second_import_changes_nothing(ctl: Ctl, daemon: Daemon) -> None:
    first = ctl("import", "zshrs", THREE).stdout.decode()
    assert first.startswith("imported 3 entries of zshrs/0.1.0/8 in ")
    assert first.endswith(": 3 new\n")
    before, entries = shards(daemon), stored(daemon)
    again = ctl("import", "zshrs", THREE)
    assert (again.returncode, again.stdout.decode()) == (
        0,
        "nothing to import: 3 entries of zshrs/0.1.0/8, and the cache has each as new or newer\n",
    )
    (now,), (then,) = shards(daemon), before
    assert (now["generation"], now["built_at_ns"]) == (then["generation"], then["built_at_ns"])
    assert stored(daemon) == entries


def test_a_second_import_of_nothing_changes_nothing(ctl: Ctl, daemon: Daemon) -> None:
    assert import_json(ctl, "zshrs", DATA / "empty.rkyv")["generation"] == 1
    assert import_json(ctl, "zshrs", DATA / "empty.rkyv")["generation"] is None
    (shard,) = shards(daemon)
    assert (shard["entries"], shard["generation"]) == (0, 1)
    assert shard["built_at_ns"] == BUILT_AT * SECOND


def test_a_dry_run_says_what_would_happen_and_changes_nothing(ctl: Ctl, daemon: Daemon) -> None:
    done = ctl("import", "zshrs", "--dry-run", THREE)
    assert (done.returncode, done.stdout) == (
        0, b"would import 3 entries of zshrs/0.1.0/8: 3 new\n",
    )  # fmt: skip
    assert shards(daemon) == []
    with daemon.cache(PRODUCER) as cache:
        cache.put("_empty", b"newer")
    said = import_json(ctl, "zshrs", "--dry-run", THREE)
    assert (said["new"], said["replaced"], said["kept"], said["dry_run"]) == (2, 0, 1, True)
    assert said["generation"] is None
    assert list(stored(daemon)) == ["_empty"]


def test_what_is_newer_in_the_cache_stays_and_what_is_older_goes(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    at = BUILT_AT * SECOND
    there = {
        "older": Entry(b"there", b"fp", 1, at - 1),
        "same": Entry(b"there", None, 1, at),
        "newer": Entry(b"there", None, 1, at + 1),
        "other": Entry(b"there", None, 1, 1),
    }
    with daemon.cache(PRODUCER) as cache:
        cache.replace(there, built_at_ns=99)
    file = write_file(
        tmp_path / "file",
        {
            name: EntryToWrite(b"from the file", MTIME, BUILT_AT)
            for name in (b"older", b"same", b"newer", b"new")
        },
    )
    done = ctl("import", "zshrs", file)
    assert done.stdout.decode().endswith(
        ": 1 new, 1 in place of older ones, 2 not needed: the cache has them as new or newer\n"
    )
    come = Entry(b"from the file", None, MTIME * SECOND, at)
    assert stored(daemon) == {**there, "older": come, "new": come}
    (shard,) = shards(daemon)
    assert shard["built_at_ns"] == 99


def test_the_time_it_was_built_at_survives_a_kill(ctl: Ctl, daemon: Daemon) -> None:
    with daemon.cache(PRODUCER) as cache:
        cache.put("gone", b"")
        cache.delete("gone")
    ctl("import", "zshrs", THREE)
    daemon.kill()
    daemon.start()
    (shard,) = shards(daemon)
    assert (shard["entries"], shard["built_at_ns"]) == (3, BUILT_AT * SECOND)


def test_json_says_all_of_it(ctl: Ctl, daemon: Daemon) -> None:
    said = import_json(ctl, "zshrs", DATA / "name_lengths.rkyv")
    assert said.pop("ns") > 0
    assert said == {
        "file": str(DATA / "name_lengths.rkyv"),
        "producer": PRODUCER,
        "built_at_ns": BUILT_AT * SECOND,
        "entries": 16,
        "new": 15,
        "replaced": 0,
        "kept": 0,
        "left_out": [{"name": "", "reason": "a name has 1 to 1,024 bytes, this one 0"}],
        "dry_run": False,
        "generation": 1,
    }


def test_what_the_cache_cannot_hold_is_left_out_and_named(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    ok = EntryToWrite(b"ok", MTIME, BUILT_AT)
    large = EntryToWrite(bytes((4 << 20) + 1), MTIME, BUILT_AT)
    file = write_file(tmp_path / "file", {b"n" * 1024: ok, b"n" * 1025: ok, b"large\x1b": large})
    done = ctl("import", "zshrs", file)
    assert done.returncode == 0
    _, *left_out = sorted(done.stdout.decode().splitlines())
    assert left_out == [
        r"left out 'large\x1b': 4,194,305 bytes; an entry has 4,194,304 at most",
        f"left out '{'n' * 1025}': a name has 1 to 1,024 bytes, this one 1,025",
    ]
    assert list(stored(daemon)) == ["n" * 1024]


def test_without_a_file_it_is_zshrss_own(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    there = tmp_path / ".zshrs"
    there.mkdir()
    environment = {"HOME": str(tmp_path), "ZSHRS_HOME": ""}
    done = ctl("import", "zshrs", environment=environment)
    assert done.returncode == 2
    assert f"{there}/autoloads.rkyv: No such file or directory" in done.stderr.decode()
    (there / "autoloads.rkyv").write_bytes(THREE.read_bytes())
    assert b"imported 3 " in ctl("import", "zshrs", environment=environment).stdout
    there.rename(tmp_path / "elsewhere")
    environment["ZSHRS_HOME"] = str(tmp_path / "elsewhere")
    assert b"nothing to import" in ctl("import", "zshrs", environment=environment).stdout


def test_of_a_damaged_file_nothing_is_imported(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    data = (DATA / "two_hundred.rkyv").read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(data[:-8])
    said = f"{cut}: nothing was imported: at byte 93,000: zshrs's mark is not in the header"
    assert_refused(ctl, daemon, "zshrs", cut, said=said)
    last_slot = len(data) - 48 - 32
    cut.write_bytes(data[: last_slot + 24] + b"\xff\xff\xff\x7f" + data[last_slot + 28 :])
    said = f"{cut}: nothing was imported: at byte {last_slot + 24:,}: it points to bytes "
    assert_refused(ctl, daemon, "zshrs", cut, said=said)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data.replace(b"lob", b"lub"), lambda data: data + b"\0"],
    ids=["cut off", "another byte", "more"],
)
def test_of_a_damaged_portable_file_nothing_is_imported(
    ctl: Ctl, daemon: Daemon, tmp_path: Path, damage: Any
) -> None:
    ctl("put", "name", "--producer", PRODUCER, given=b"blob")
    file = tmp_path / "file"
    ctl("export", file)
    file.write_bytes(damage(file.read_bytes()))
    ctl("drop", shards(daemon)[0]["id"])
    assert_refused(ctl, daemon, file, said=f"{file}: nothing was imported: at byte ")


def test_a_file_of_the_other_form_is_told(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    said = f"no file of autoloadd's; `autoloadctl import zshrs {THREE}` reads zshrs's own file"
    assert_refused(ctl, daemon, THREE, said=said)
    ctl("put", "name", "--producer", PRODUCER, given=b"blob")
    ctl("export", tmp_path / "file")
    ctl("drop", shards(daemon)[0]["id"])
    said = f"this is autoloadd's own form: `autoloadctl import {tmp_path}/file` reads it"
    assert_refused(ctl, daemon, "zshrs", tmp_path / "file", said=said)


def test_what_is_no_file_is_refused(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    assert_refused(ctl, daemon, "zshrs", "/dev/zero", said="/dev/zero is neither a file nor a pipe")
    assert_refused(ctl, daemon, tmp_path, said=f"{tmp_path} is neither a file nor a pipe")
    assert_refused(ctl, daemon, tmp_path / "none", said="none: No such file or directory")
    os.mkfifo(tmp_path / "pipe")
    command = ["sh", "-c", 'cat "$1" > "$2" & exec "$3" -m autoloadd_client.cli import zshrs "$2"']
    done = subprocess.run(
        [*command, "sh", str(THREE), str(tmp_path / "pipe"), sys.executable],
        capture_output=True, check=False, timeout=60,
        env=ctl_environment(daemon.directory, {}),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"imported 3 entries" in done.stdout


def test_stdin_is_read(ctl: Ctl, daemon: Daemon) -> None:
    data = (DATA / "two_hundred.rkyv").read_bytes()
    done = ctl("import", "zshrs", "-", given=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(stored(daemon)) == 200
    nothing = ctl("import", "-", given=b"")
    assert nothing.returncode == 2
    assert b"-: nothing was imported: at byte 0" in nothing.stderr


def test_a_file_larger_than_the_cache_is_not_read(
    ctl: Ctl, idle_daemon: Daemon, tmp_path: Path
) -> None:
    idle_daemon.environment.update(LIMIT)
    daemon = idle_daemon.start()
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    said = "has more than 16 MiB, which is all that the daemon keeps"
    assert_refused(ctl, daemon, "zshrs", large, said=f"{large} {said}")
    done = ctl("import", "-", given=bytes((16 << 20) + 1))
    assert (done.returncode, said in done.stderr.decode()) == (2, True)


def test_without_a_daemon_it_says_so(ctl: Ctl) -> None:
    assert ctl("import", "zshrs", THREE).returncode == 3


def test_a_cache_that_is_switched_off_is_left_alone(ctl: Ctl, daemon: Daemon) -> None:
    done = ctl("import", "zshrs", THREE, environment={"AUTOLOADD_CACHE": "0"})
    assert (done.returncode, done.stdout) == (1, b"")
    assert shards(daemon) == []


MEASURE = """
import sys
from autoloadd_client.cli.run import run
status = run(sys.argv[1:])
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
sys.stderr.write(line.split()[1])
sys.exit(status)
"""


def peak_bytes(daemon: Daemon, *arguments: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments],
        capture_output=True, check=True, env=ctl_environment(daemon.directory, {}),
    )  # fmt: skip
    return int(done.stderr) * 1024


def test_memory_stays_within_three_times_the_file(daemon: Daemon, tmp_path: Path) -> None:
    blob = os.urandom(3_000)
    entries = {b"fn_%06d" % n: EntryToWrite(blob, MTIME, BUILT_AT) for n in range(8_000)}
    large = str(write_file(tmp_path / "large", entries))
    size = os.path.getsize(large)
    idle = peak_bytes(daemon, "import", "zshrs", "--dry-run", str(THREE))
    out = str(tmp_path / "out")
    for command in (
        ("import", "zshrs", large),
        ("import", "zshrs", large),
        ("export", "zshrs", out),
        ("export", out),
        ("import", out),
    ):
        assert peak_bytes(daemon, *command) - idle < 3 * size, command
