"""`autoloadctl verify` on a real cache: without its daemon, and beside one that works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import ctl_environment

if TYPE_CHECKING:
    from .conftest import Ctl, Daemon

CTL = (sys.executable, "-m", "autoloadd_client.cli")
SHARD = "zsh-5.9-8-10c966ddd44835b4"
CHANGING = re.compile(
    r"O_(WRONLY|RDWR|CREAT|TRUNC)|\d (p?write|rename|unlink|f?trunc|f?chmod|mkdir|link|utime)"
)
PRINTING = re.compile(r"write\([12]<")
MANY = {f"name{i}": bytes([i]) * 3000 for i in range(50)}


@pytest.fixture
def stopped(daemon: Daemon) -> Daemon:
    """A daemon that has stored something, and was stopped and killed: an image and a journal."""
    with daemon.cache() as cache:
        cache.put_many(MANY)
    daemon.restart()
    with daemon.cache() as cache:
        cache.put("late", b"blob", sync="fsync")
        cache.put("later", b"blob", sync="fsync")
    daemon.kill()
    return daemon


def appearance(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return what a change would change: times, inodes, bytes."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.stat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_ino, status.st_mtime_ns, data)
    return found


def test_a_good_cache_is_good_and_stays_as_it_is(ctl: Ctl, stopped: Daemon) -> None:
    before = appearance(stopped.cache_dir)
    done = ctl("verify", "--cache-dir", stopped.cache_dir)
    assert (done.returncode, done.stderr) == (0, b"")
    image, journal, total = done.stdout.decode().splitlines()
    assert re.fullmatch(rf"{SHARD}/image +1[\d,]+ B +50 entries +ok", image)
    assert re.fullmatch(rf"{SHARD}/journal\.\d+ +[\d,]+ B +2 frames +ok", journal)
    assert re.fullmatch(rf"{stopped.cache_dir}: 2 files, [\d,]+ B: 2 ok", total)
    assert appearance(stopped.cache_dir) == before


def test_it_opens_nothing_for_writing(stopped: Daemon, home: Path) -> None:
    trace = home / "trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-y", "-o", trace, "-e", "trace=%file,%desc", *CTL, "verify",
         "--cache-dir", stopped.cache_dir],
        check=True, capture_output=True, env=ctl_environment(home, {}),
    )  # fmt: skip
    calls = [line for line in trace.read_text().splitlines() if str(stopped.cache_dir) in line]
    assert any("openat" in line and "/image" in line for line in calls)
    told = [line for line in calls if CHANGING.search(line) and not PRINTING.search(line)]
    assert told == []


def test_damage_is_told_until_the_next_start_has_set_it_aside(ctl: Ctl, stopped: Daemon) -> None:
    image = stopped.cache_dir / SHARD / "image"
    data = bytearray(image.read_bytes())
    data[-100] ^= 1
    image.write_bytes(data)
    option = ("--cache-dir", stopped.cache_dir)
    done = ctl("verify", *option)
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    (said,) = (line for line in lines if line.startswith(f"{SHARD}/image"))
    found = re.search(r"damaged at byte ([\d,]+): the records' checksum does not match$", said)
    assert found is not None
    # The last record, which the flipped bit is in.
    assert len(data) - 3100 < int(found[1].replace(",", "")) < len(data) - 3000
    assert lines[-1].startswith("damaged: the next start of autoloadd sets such files aside; ")
    (file,) = (f for f in json.loads(ctl("verify", "--json", *option).stdout)["files"] if f["at"])
    assert (file["verdict"], file["path"]) == ("damaged", str(image))
    stopped.start()
    after = ctl("verify", *option)
    assert after.returncode == 0
    assert b"  set aside\n" in after.stdout


def test_beside_a_daemon_that_writes_builds_and_drops(ctl: Ctl, daemon: Daemon) -> None:
    blob = bytes(400_000)
    option = ("--cache-dir", daemon.cache_dir)
    with daemon.cache() as cache, daemon.cache("fish/3/8") as other:
        for number in range(8):
            checking = subprocess.Popen(
                [*CTL, "verify", *option],
                stdout=subprocess.PIPE, env=ctl_environment(daemon.directory, {}),
            )  # fmt: skip
            for turn in range(6):
                cache.put(f"name{turn}", blob)
                other.merge({f"n{number}-{turn}": blob})
            if number % 3 == 2:
                cache.drop_shard(SHARD)
            said, _ = checking.communicate(timeout=60)
            assert checking.returncode == 0, said.decode()
    assert daemon.status()["storage"]["state"] == "healthy"


def test_the_usual_cache_is_the_daemons(ctl: Ctl, stopped: Daemon) -> None:
    done = ctl("verify", SHARD, environment={"AUTOLOADD_CACHE_DIR": str(stopped.cache_dir)})
    assert done.returncode == 0
    assert done.stdout.count(f"{SHARD}/".encode()) == 2


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("none",), 2, "there is no shard none in {cache}; there are: {shard}"),
        (("--", "-x"), 2, "there is no shard -x in {cache}; there are: {shard}"),
        (("--cache-dir", "/nowhere"), 4, "/nowhere: No such file or directory; autoloadd makes it"),
        (("--cache-dir", "/bin/sh"), 4, "/bin/sh: Not a directory"),
        (("--cache-dir", ""), 2, "command line --cache-dir: cache_dir: expected a path"),
    ],
)
def test_what_cannot_be_checked_says_why(
    ctl: Ctl, stopped: Daemon, options: tuple[str, ...], status: int, message: str
) -> None:
    where = ("--cache-dir", str(stopped.cache_dir)) if "--cache-dir" not in options else ()
    done = ctl("verify", *where, *options)
    assert (done.returncode, done.stdout) == (status, b"")
    wanted = message.format(cache=stopped.cache_dir, shard=SHARD)
    assert done.stderr.decode().startswith(f"autoloadctl verify: {wanted}")


def test_it_runs_no_code_of_the_current_directory(stopped: Daemon, home: Path) -> None:
    (home / "autoloadd_daemon").mkdir()
    (home / "autoloadd_daemon" / "__init__.py").write_text("raise SystemExit('not ours')")
    done = subprocess.run(
        [sys.executable, "-P", *CTL[1:], "verify", "--cache-dir", stopped.cache_dir],
        capture_output=True, check=False, cwd=home, env=ctl_environment(home, {}),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_the_daemons_package_it_says_what_to_install(home: Path) -> None:
    code = (
        "import sys; sys.modules['autoloadd_daemon'] = None\n"
        "from autoloadd_client.cli.run import run; sys.exit(run(['verify']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, check=False, env=ctl_environment(home, {}),
    )  # fmt: skip
    assert done.returncode == 4
    assert b"autoloadd_daemon is not installed beside this program" in done.stderr


def test_a_reader_that_leaves_early(stopped: Daemon, home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as stdout:
        done = subprocess.run(
            [*CTL, "verify", "--cache-dir", stopped.cache_dir],
            stdout=stdout, stderr=subprocess.PIPE, check=False, env=ctl_environment(home, {}),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, b"")


def test_nowhere_to_print(stopped: Daemon, home: Path) -> None:
    with Path("/dev/full").open("wb") as stdout:
        done = subprocess.run(
            [*CTL, "verify", "--cache-dir", stopped.cache_dir],
            stdout=stdout, stderr=subprocess.PIPE, check=False, env=ctl_environment(home, {}),
        )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.startswith(b"autoloadctl verify: stdout: No space left on device\n")
