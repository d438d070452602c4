"""autoloadctl export: the bytes that zshrs would have written, in a file that is whole."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoloadd_client import Entry
from autoloadd_client.cli.beside import write_beside
from autoloadd_client.cli.conventions import UsageError
from autoloadd_client.cli.run import run
from autoloadd_client.zshrs.errors import DamagedFileError
from autoloadd_client.zshrs.reading import read_shard_file
from autoloadd_protocol.producer import Producer

from ..damage import damage
from ..running import Daemon, private_directory
from ..zshrs_files import DATA, FIXTURES, read_naively, unseparable_pair
from .conftest import ctl_environment
from .test_autoloadctl_text import run_on_terminal
from .test_import import BUILT_AT, PRODUCER, SECOND, THREE, shards, stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .conftest import Ctl

OTHER = "zshrs/0.2.0/8"
WHOLE = [name for name in FIXTURES if name != "name_lengths.rkyv"]
"""The fixtures of which the cache holds every entry: one of the others has no name."""


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    """A daemon for what this module runs within its own process, which is quicker."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with private_directory() as directory:
        daemon = Daemon(directory)
        try:
            yield daemon.start()
        finally:
            daemon.end()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def shared(running: Daemon) -> Daemon:
    """That daemon, with nothing in it."""
    drop_all(running)
    return running


def drop_all(daemon: Daemon) -> None:
    with daemon.cache(None) as control:
        for shard in control.shards():
            control.drop_shard(shard["id"])


def ctl_here(daemon: Daemon, command: str, *arguments: str | Path) -> None:
    options = ["--socket", daemon.socket_path, "--timeout", "60"]
    assert run([command, *options, *map(str, arguments)]) == 0


ONE = {"name": Entry(b"blob", None, 1, 2)}


def fill(
    daemon: Daemon, entries: Mapping[str, Entry] = ONE, producer: str | Producer = PRODUCER
) -> None:
    with daemon.cache(producer) as cache:
        cache.replace(entries, built_at_ns=3 * SECOND)


def temporary_files(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if ".tmp-" in name]


@pytest.mark.parametrize("name", WHOLE)
def test_what_came_in_goes_out_byte_for_byte(shared: Daemon, tmp_path: Path, name: str) -> None:
    original = (DATA / name).read_bytes()
    out, portable = tmp_path / "out.rkyv", tmp_path / "portable"
    layout = "1.63" if "163" in name else "1.95"
    ctl_here(shared, "import", "zshrs", DATA / name)
    ctl_here(shared, "export", "zshrs", out, "--layout", layout)
    assert out.read_bytes() == original
    # And by way of the portable form, into a cache that never saw it.
    ctl_here(shared, "export", portable)
    drop_all(shared)
    ctl_here(shared, "import", portable)
    out.unlink()
    ctl_here(shared, "export", "zshrs", out, "--layout", layout)
    assert out.read_bytes() == original


def test_also_after_a_restart(ctl: Ctl, daemon: Daemon) -> None:
    ctl("import", "zshrs", THREE)
    daemon.restart()
    done = ctl("export", "zshrs", "-")
    assert (done.returncode, done.stdout, done.stderr) == (0, THREE.read_bytes(), b"")


def test_an_export_says_what_it_wrote(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    ctl("import", "zshrs", THREE)
    out = tmp_path / "out.rkyv"
    said = ctl("export", "zshrs", out).stdout.decode()
    assert re.fullmatch(rf"wrote 3 entries of {PRODUCER} to {out} in [\d.]+ m?s: 560 B\n", said)
    answer = json.loads(ctl("export", "zshrs", out, "--json").stdout)
    assert answer.pop("ns") > 0
    assert answer == {
        "file": str(out),
        "producer": PRODUCER,
        "built_at_ns": BUILT_AT * SECOND,
        "entries": 3,
        "left_out": [],
        "bytes": 560,
    }


def test_times_are_floored_to_seconds(ctl: Ctl, daemon: Daemon) -> None:
    with daemon.cache(PRODUCER) as cache:
        cache.replace(
            {"name": Entry(b"blob", None, 5 * SECOND + 999_999_999, -1)},
            built_at_ns=9 * SECOND + 999_999_999,
        )
    found = read_naively(ctl("export", "zshrs", "-").stdout, "1.95")
    assert (found.built_at, found.slots) == (9, [(b"name", 5, -1, b"blob")])


def test_importing_ones_own_export_changes_nothing(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    # The file's times are floored: what is there is the newer one.
    fill(daemon, {"name": Entry(b"blob", None, 5, 7 * SECOND + 1)})
    ctl("export", "zshrs", tmp_path / "out")
    assert b"nothing to import" in ctl("import", "zshrs", tmp_path / "out").stdout


def test_entries_with_a_fingerprint_stay_out_of_zshrss_file(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    fill(daemon, {"a": Entry(b"1", b"fp", 1, 2), "b": Entry(b"2", None, 1, 2)})
    done = ctl("export", "zshrs", tmp_path / "out", "--json")
    assert done.stderr == b"left out 1 entry with a fingerprint, which zshrs does not know\n"
    assert json.loads(done.stdout)["left_out"] == ["a"]
    found = read_shard_file((tmp_path / "out").read_bytes())
    assert [each.name for each in found.entries] == ["b"]


def test_with_a_time_only_fresh_entries_are_written(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    fill(daemon, {"old": Entry(b"1", None, 4, 0), "new": Entry(b"2", None, 5, 0)})
    found = read_naively(ctl("export", "zshrs", "-", "--mtime", "5").stdout, "1.95")
    assert [name for name, *_ in found.slots] == [b"new"]
    ctl("export", tmp_path / "out", "--mtime", "5")
    ctl("drop", shards(daemon)[0]["id"])
    ctl("import", tmp_path / "out")
    assert list(stored(daemon)) == ["new"]


def test_the_only_zshrs_there_is_is_meant(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    out = tmp_path / "out"
    none = ctl("export", "zshrs", out)
    assert none.returncode == 2
    assert none.stderr.decode().endswith("the daemon has none of zshrs yet\n")
    fill(daemon, producer="zsh/5.9/8")
    assert ctl("export", "zshrs", out).returncode == 2
    fill(daemon)
    # What the user usually means is another shell's: no help here.
    usual = {"AUTOLOADD_PRODUCER": "zsh/5.9/8"}
    assert f"of {PRODUCER} " in ctl("export", "zshrs", out, environment=usual).stdout.decode()
    fill(daemon, producer=OTHER)
    two = ctl("export", "zshrs", out)
    assert two.returncode == 2
    listed = f"the daemon has:\n  --producer {PRODUCER}\n  --producer {OTHER}\n"
    assert two.stderr.decode().endswith(listed)
    for chosen in (
        ctl("export", "zshrs", out, "--producer", OTHER),
        ctl("export", "zshrs", out, environment={"AUTOLOADD_PRODUCER": OTHER}),
    ):
        assert f"of {OTHER} " in chosen.stdout.decode()
    assert read_shard_file(out.read_bytes()).header.zshrs_version == "0.2.0"


@pytest.mark.parametrize("producer", ["zsh/5.9/8", "zshrs/0.1.0/8/a-build"])
def test_zshrss_file_is_for_zshrs(ctl: Ctl, daemon: Daemon, tmp_path: Path, producer: str) -> None:
    fill(daemon, producer=producer)
    done = ctl("export", "zshrs", tmp_path / "out", "--producer", producer)
    assert done.returncode == 2
    assert f"(zshrs/VERSION/WIDTH), not {producer}; " in done.stderr.decode()
    assert os.listdir(tmp_path) == []


def test_a_producer_without_a_shard_has_nothing_to_write(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    for form in ([], ["zshrs"]):
        done = ctl("export", *form, tmp_path / "out", "--producer", PRODUCER)
        assert done.returncode == 1
        assert f"there are no entries of {PRODUCER}, and nothing was written" in str(done.stderr)
    assert os.listdir(tmp_path) == []


def test_what_zshrss_file_cannot_hold_is_refused_and_the_file_stays(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    one, other = (name.decode() for name in unseparable_pair(same_bucket=True))
    fill(daemon, dict.fromkeys((one, other), Entry(b"", None, 1, 1)))
    out = tmp_path / "out"
    out.write_bytes(b"as it was")
    done = ctl("export", "zshrs", out)
    assert (done.returncode, done.stdout) == (4, b"")
    assert "nothing was written: zshrs's file cannot hold both of two names" in str(done.stderr)
    assert repr(one) in done.stderr.decode()
    with daemon.cache(PRODUCER) as cache:
        cache.replace({}, built_at_ns=-1)
    early = ctl("export", "zshrs", out)
    assert (early.returncode, b"before 1970" in early.stderr) == (4, True)
    assert out.read_bytes() == b"as it was"
    assert os.listdir(tmp_path) == ["out"]


def test_a_shard_moves_to_another_machine(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    producer = Producer("a shell/with slashes", "5.9", 4, "a build")
    entries = {
        "a": Entry(b"1", b"fingerprint", -(2**63), 2**63 - 1),
        "ä\n": Entry(bytes(range(256)) * 9, None, 1, 2),
        **{f"large {number}": Entry(bytes(4 << 20), None, 3, 4) for number in range(3)},
        **{f"name {number:04}": Entry(b"%d" % number, b"fp", 3, 4) for number in range(1_100)},
    }
    fill(daemon, entries, producer)
    out = tmp_path / "out"
    assert ctl("export", out).returncode == 0
    with private_directory() as elsewhere:
        other = Daemon(elsewhere).start()
        try:
            moved = ctl("import", out, environment={"AUTOLOADD_SOCKET": other.socket_path})
            assert (moved.returncode, moved.stderr) == (0, b"")
            with other.cache(producer) as cache:
                assert dict(cache.get_entries(name for name, _ in cache.names())) == entries
            (shard,) = shards(other)
            assert (shard["producer"], shard["built_at_ns"]) == (producer.as_map(), 3 * SECOND)
            again = ctl("export", "-", environment={"AUTOLOADD_SOCKET": other.socket_path})
            assert again.stdout == out.read_bytes()
        finally:
            other.end()


def test_the_file_is_private_and_replaces_what_a_link_points_to(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    fill(daemon)
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o644)
    link.symlink_to("there/file")
    with target.open("rb") as old:
        assert ctl("export", link).returncode == 0
        # Whoever has it open keeps the old bytes: they were not written over.
        assert old.read() == b"old"
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert target.read_bytes() == ctl("export", "-").stdout
    assert os.listdir(tmp_path / "there") == ["file"]


def test_it_is_synced_before_it_gets_its_name(
    daemon: Daemon, run_directory: Path, tmp_path: Path
) -> None:
    fill(daemon)
    log = tmp_path / "log"
    subprocess.run(
        ["strace", "-qq", "-y", "-o", log, "-e", "trace=openat,fsync,rename",
         sys.executable, "-m", "autoloadd_client.cli", "export", tmp_path / "out"],
        check=True, capture_output=True, env=ctl_environment(run_directory, {}),
    )  # fmt: skip
    steps = [line for line in log.read_text().splitlines() if str(tmp_path) in line]
    patterns = (
        rf'openat\(.*"{tmp_path}", .*O_DIRECTORY',
        rf'openat\(.*"{tmp_path}/out\.tmp-[0-9a-f]+", O_WRONLY\|O_CREAT\|O_EXCL\|O_CLOEXEC, 0600\)',
        rf"fsync\(\d+<{tmp_path}/out\.tmp-[0-9a-f]+>\) += 0",
        rf'rename\("{tmp_path}/out\.tmp-[0-9a-f]+", "{tmp_path}/out"\) += 0',
        rf"fsync\(\d+<{tmp_path}>\) += 0",
    )
    assert len(steps) == len(patterns), steps
    assert all(map(re.match, patterns, steps)), steps


def test_what_cannot_be_replaced_is_left_alone(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    fill(daemon)
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    for path, said in {
        "directory": "is there and is no regular file; - writes to stdout",
        "/dev/null": "is there and is no regular file; - writes to stdout",
        "/dev/stdout": "is there and is no regular file; - writes to stdout",
        "none/out": "No such file or directory; nothing was written",
        "file/out": "Not a directory; nothing was written",
    }.items():
        done = ctl("export", tmp_path / path)
        assert (done.returncode, done.stdout) == (2, b"")
        assert said in done.stderr.decode()
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_file_that_does_not_fit_leaves_nothing(
    daemon: Daemon, run_directory: Path, tmp_path: Path
) -> None:
    fill(daemon, {"name": Entry(bytes(4 << 20), None, 1, 1)})
    (tmp_path / "out").write_bytes(b"as it was")
    # A bound on the size of files acts as a full disk does: a write that takes only a part.
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 4096; exec "$@"', "sh", sys.executable, "-m",
         "autoloadd_client.cli", "export", tmp_path / "out"],
        capture_output=True, check=False, env=ctl_environment(run_directory, {}),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.endswith(b"out: File too large; nothing was written\n")
    assert (tmp_path / "out").read_bytes() == b"as it was"
    assert os.listdir(tmp_path) == ["out"]


INTERRUPTED = """
import os, signal, sys
from autoloadd_client.cli.beside import write_beside
def parts():
    yield bytes(2_000_000)
    assert len(os.listdir(os.path.dirname(sys.argv[1]))) == 1
    os.kill(os.getpid(), int(sys.argv[2]))
    yield bytes(2_000_000)
write_beside(sys.argv[1], parts())
"""


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("call", "said", "left"),
    [
        ("open", "Input/output error; nothing was written", b"as it was"),
        ("fsync", "out is written, and a power loss may take it: its directory could not", b"new"),
    ],
)
def test_what_is_said_of_a_directory_that_fails_is_true(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, said: str, left: bytes
) -> None:
    (tmp_path / "out").write_bytes(b"as it was")
    real = getattr(os, call)

    def fail_for_directories(what: Any, *more: Any) -> Any:
        if Path(f"/proc/self/fd/{what}" if isinstance(what, int) else what).is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(what, *more)

    monkeypatch.setattr(os, call, fail_for_directories)
    with pytest.raises(UsageError, match=said):
        write_beside(str(tmp_path / "out"), [b"new"])
    assert (tmp_path / "out").read_bytes() == left
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_is_interrupted_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, tmp_path / "out", str(int(number))],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert b"AssertionError" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_an_export_under_nohup_goes_on(tmp_path: Path) -> None:
    out, hup = tmp_path / "out", str(int(signal.SIGHUP))
    subprocess.run(["nohup", sys.executable, "-c", INTERRUPTED, out, hup], check=True)
    assert out.stat().st_size == 4_000_000


def test_stdout_is_for_pipes(ctl: Ctl, daemon: Daemon, run_directory: Path, tmp_path: Path) -> None:
    fill(daemon)
    both = ctl("export", "-", "--json")
    assert (both.returncode, both.stdout) == (2, b"")
    assert b"--json and - both mean stdout" in both.stderr
    shown = run_on_terminal(run_directory, "export", "-", status=2)
    assert shown.endswith("- means stdout, which is a terminal or closed: send it elsewhere\r\n")
    shown = run_on_terminal(run_directory, "export", str(tmp_path / "out"))
    assert shown.startswith("\rreading " + "█" * 30 + " 1 of 1\x1b[K\r\x1b[Kwrote 1 entry of ")
    shown = run_on_terminal(run_directory, "import", str(tmp_path / "out"))
    assert shown.startswith("\rcomparing " + "█" * 30 + " 1 of 1\x1b[K\r\x1b[Knothing to import")


def test_a_reader_that_has_enough_ends_it(
    daemon: Daemon, run_directory: Path, tmp_path: Path
) -> None:
    fill(daemon, {str(number): Entry(bytes(1 << 20), None, 1, 1) for number in range(4)})
    done = subprocess.run(
        ["sh", "-c", '{ "$@"; echo $? >&2; } | head -c 1', "sh", sys.executable, "-m",
         "autoloadd_client.cli", "export", "-"],
        capture_output=True, check=False, env=ctl_environment(run_directory, {}),
    )  # fmt: skip
    assert (len(done.stdout), done.stderr) == (1, b"141\n")


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
times = st.integers(-(2**63), 2**63 - 1)
entries_of_any_shell = st.dictionaries(
    names,
    st.builds(
        Entry, st.binary(max_size=99), st.none() | st.binary(min_size=1, max_size=9), times, times
    ),
    max_size=30,
)


def test_random_shards_come_back_as_they_were(shared: Daemon, tmp_path: Path) -> None:
    out = tmp_path / "out"

    @settings(max_examples=30, deadline=None)
    @given(entries_of_any_shell, st.integers(0, 2**63 - 1))
    def check(entries: dict[str, Entry], built_at_ns: int) -> None:
        with shared.cache(PRODUCER) as cache:
            cache.replace(entries, built_at_ns=built_at_ns)
        ctl_here(shared, "export", out)
        first = out.read_bytes()
        drop_all(shared)
        ctl_here(shared, "import", out)
        assert stored(shared) == entries
        ctl_here(shared, "export", out)
        assert out.read_bytes() == first
        ctl_here(shared, "export", "zshrs", out)
        naive = read_naively(out.read_bytes(), "1.95")
        assert naive.built_at == built_at_ns // SECOND
        assert {name.decode(): rest for name, *rest in naive.slots} == {
            name: [
                (entry.binary_mtime_ns or 0) // SECOND,
                (entry.cached_at_ns or 0) // SECOND,
                entry.blob,
            ]
            for name, entry in entries.items()
            if entry.fingerprint is None
        }

    check()


def check_one_file(daemon: Daemon, file: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Import a file; tell whether it was refused. It is what our reader and another one say."""
    data = file.read_bytes()
    drop_all(daemon)
    status = run(["import", "zshrs", "--socket", daemon.socket_path, str(file)])
    said = capsys.readouterr()
    try:
        layout = read_shard_file(data).layout.name
    except DamagedFileError as exc:
        reason = str(exc)
    else:
        assert (status, said.err) == (0, "")
        naive = read_naively(data, layout)
        producer = Producer("zshrs", naive.version.decode(), naive.pointer_width)
        assert stored(daemon, producer) == {
            name.decode(): Entry(blob, None, mtime * SECOND, cached_at * SECOND)
            for name, mtime, cached_at, blob in naive.slots
        }
        return False
    assert (status, said.out) == (2, "")
    assert said.err == f"autoloadctl: {file}: nothing was imported: {reason}\n"
    assert shards(daemon) == []
    return True


def test_of_150_damaged_files_each_is_imported_as_it_says_or_not_at_all(
    shared: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = Random(20_261_123)
    file = tmp_path / "file"
    refused = 0
    for number in range(150):
        file.write_bytes(damage((DATA / WHOLE[number % len(WHOLE)]).read_bytes(), random))
        refused += check_one_file(shared, file, capsys)
    assert 20 < refused < 140
