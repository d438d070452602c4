"""Starting the daemon: where it refuses to, what it says then, and what it leaves alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol import __version__

from ..running import Daemon, own_environment, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from autoloadd_client import Cache

SECONDS = 20.0
MIB = 1024 * 1024


def run(home: Path, *options: str, **environment: str) -> tuple[int, str, str]:
    """Run the daemon where it must end by itself; return status, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "autoloadd_daemon", *options],
        env=own_environment({"XDG_CONFIG_HOME": str(home / "config"), **environment}),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout, done.stderr


def refused(home: Path, *options: str) -> tuple[int, str]:
    """Return exit status and message of a daemon that cannot start; it must print nothing else."""
    where = ["--socket", f"{home}/socket", "--cache-dir", f"{home}/cache"]
    status, stdout, stderr = run(home, *where, *options)
    assert stdout == ""
    assert "Traceback" not in stderr
    return status, stderr


def look(*directories: Path) -> dict[str, tuple[int, ...]]:
    """Return what there is of files and directories, so that any change shows."""
    paths = [path for each in directories for path in [each, *each.rglob("*")]]
    found = {str(path): path.lstat() for path in paths}
    return {
        path: (each.st_ino, each.st_mode, each.st_size, each.st_mtime_ns, each.st_ctime_ns)
        for path, each in found.items()
    }


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("this test gives a directory to another user: run it as root")


# What it can say without starting


def test_version(home: Path) -> None:
    assert run(home, "--version") == (0, f"autoloadd {__version__}\n", "")


def test_check_config_says_where_each_value_comes_from(home: Path) -> None:
    (home / "file.toml").write_text('\nmax_bytes = "64 MiB"\nsync_interval = 0.5\n')
    status, stdout, stderr = run(
        home,
        *("--check-config", "--socket", f"{home}/socket", "--config", f"{home}/file.toml"),
        AUTOLOADD_SYNC_INTERVAL="2s",
        AUTOLOADD_CACHE_DIR=f"{home}/elsewhere",
        AUTOLOADD_SOCKET="/not/this/one",
    )
    assert (status, stderr) == (0, "")
    assert [line.split(maxsplit=2) for line in stdout.splitlines()] == [
        ["socket", f"{home}/socket", "command line --socket"],
        ["cache_dir", f"{home}/elsewhere", "environment AUTOLOADD_CACHE_DIR"],
        ["max_bytes", str(64 * MIB), f"{home}/file.toml:2"],
        ["sync_interval", "2.0", "environment AUTOLOADD_SYNC_INTERVAL"],
        ["log_level", "info", "default"],
    ]
    assert {path.name for path in home.iterdir()} == {"file.toml"}


def test_the_configuration_file_at_its_usual_place(home: Path) -> None:
    (home / "config" / "autoloadd").mkdir(parents=True)
    file = home / "config" / "autoloadd" / "config.toml"
    file.write_text("max_bytes = 20971520\n")
    status, stdout, _ = run(home, "--check-config", "--socket", f"{home}/socket")
    assert status == 0
    assert ["max_bytes", "20971520", f"{file}:1"] in map(str.split, stdout.splitlines())


def test_a_variable_that_is_no_setting_is_named(home: Path, idle_daemon: Daemon) -> None:
    said = "environment AUTOLOADD_MAX_BYTE: there is no such setting, it is ignored; known: "
    odd = {"AUTOLOADD_MAX_BYTE": "1", "AUTOLOADD_CACHE": "1", "AUTOLOADD_PRODUCER": "zsh/5.9/8",
           "AUTOLOADD_WAIT_MS": "50"}  # fmt: skip
    status, stdout, stderr = run(home, "--check-config", "--socket", f"{home}/socket", **odd)
    assert status == 0
    assert stderr.startswith(f"autoloadd: warning: {said}AUTOLOADD_CACHE, ")
    assert stderr.count("\n") == 1
    assert "AUTOLOADD" not in stdout
    idle_daemon.environment |= odd
    idle_daemon.start()
    assert idle_daemon.stop() == 0
    assert idle_daemon.log.count(said) == 1
    assert idle_daemon.log.count("there is no such setting") == 1


# What it refuses


def test_unknown_option(home: Path) -> None:
    status, message = refused(home, "--no-such-option")
    assert status == 2
    assert message.endswith("autoloadd: error: unrecognized arguments: --no-such-option\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_bytes = \n", "autoloadd: {file}: Invalid value (at line 1, column 13)"),
        ("\nmax_byte = 1\n", "autoloadd: {file}:2: unknown setting 'max_byte'; known: socket, "),
        ('max_bytes = "many"\n', "autoloadd: {file}:1: max_bytes: 'many': expected a size, such "),
        ("max_bytes = 5\n", "autoloadd: {file}:1: max_bytes: 5: expected at least 16 MiB"),
        ("max_bytes = true\n", "autoloadd: {file}:1: max_bytes: True: expected a size"),
        ("sync_interval = -1\n", "autoloadd: {file}:1: sync_interval: -1: expected seconds from"),
        ('\n\nlog_level = "loud"\n', "autoloadd: {file}:3: log_level: 'loud': expected one of "),
        ("socket = 5\n", "autoloadd: {file}:1: socket: expected a path"),
        ("[socket]\npath = 1\n", "autoloadd: {file}:1: socket: expected a path"),
    ],
)
def test_a_configuration_file_that_cannot_be_used(home: Path, text: str, message: str) -> None:
    file = home / "file.toml"
    file.write_text(text)
    status, stdout, stderr = run(home, "--config", str(file))
    assert (status, stdout) == (2, "")
    assert stderr.startswith(message.format(file=file))
    assert stderr.count("\n") == 1


def test_a_configuration_file_that_cannot_be_read(home: Path) -> None:
    directory, binary = home / "directory", home / "binary"
    directory.mkdir()
    binary.write_bytes(b"a = 1\n\xff")
    for path, reason in (
        (directory, "cannot be read: Is a directory"),
        (home / "none", "there is no such configuration file"),
        (binary, "not UTF-8, expected a TOML file"),
    ):
        status, message = refused(home, "--config", str(path))
        assert status == 2
        assert message.startswith(f"autoloadd: {path}")
        assert message.endswith(f"{reason}\n")
    assert not (home / "cache").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-bytes", "1 MiB"), "command line --max-bytes: max_bytes: '1 MiB': expected at "),
        (("--max-bytes", "1 PiB"), "command line --max-bytes: max_bytes: '1 PiB': expected a "),
        (("--sync-interval", "nan"), "command line --sync-interval: sync_interval: 'nan': "),
        (("--log-level", "INFO"), "command line --log-level: log_level: 'INFO': expected one of"),
        (("--socket", ""), "command line --socket: socket: expected a path"),
    ],
)
def test_values_that_cannot_be(home: Path, options: tuple[str, ...], message: str) -> None:
    status, stderr = refused(home, *options)
    assert status == 2
    assert stderr.startswith(f"autoloadd: {message}")


def test_a_socket_path_that_is_too_long(home: Path) -> None:
    path = f"{home}/{'s' * 200}"
    status, message = refused(home, "--socket", path)
    assert status == 2
    assert f"socket path '{path}' has {len(path)} bytes" in message
    assert "at most 107" in message
    assert list(home.iterdir()) == []


def test_the_longest_socket_path(home: Path) -> None:
    path = home / ("s" * (107 - len(str(home)) - 1))
    command = [sys.executable, "-m", "autoloadd_daemon", "--socket", str(path)]
    command += ["--cache-dir", str(home / "cache")]
    with subprocess.Popen(command, env=own_environment({}), stderr=subprocess.DEVNULL) as process:
        wait_until(path.exists, SECONDS, "the socket")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SECONDS)
            client.connect(str(path))
            client.sendall(bytes.fromhex("00000009 94 00 01 a470696e67 90"))
            assert client.recv(100)[-4:] == b"pong"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("which", ["cache", "run"])
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("symlink", "is a symbolic link; it must be a directory of its own"),
        (
            "group-writable",
            "has mode 0770, others can reach it; ",
        ),
        (
            "world-readable",
            "has mode 0755, others can reach it; ",
        ),
        ("foreign", "belongs to uid 12345, not to uid "),
        ("file", "is not a directory"),
    ],
)
def test_a_directory_that_cannot_be_trusted(home: Path, which: str, what: str, reason: str) -> None:
    directory = home / which
    if what == "file":
        directory.write_text("")
    else:
        modes = {"group-writable": 0o770, "world-readable": 0o755}
        target = home / "target" if what == "symlink" else directory
        target.mkdir(mode=0o700)
        target.chmod(modes.get(what, 0o700))
        if what == "symlink":
            directory.symlink_to(target)
        if what == "foreign":
            need_root()
            os.chown(directory, 12345, -1)
    status, message = refused(home, "--socket", str(home / "run" / "socket"))
    assert status == 1
    assert message.startswith(f"autoloadd: {directory} ")
    assert reason in message
    assert not (home / "run" / "socket").exists()


def test_what_lies_at_the_sockets_path_is_not_removed(home: Path) -> None:
    (home / "socket").write_text("precious")
    status, message = refused(home)
    assert status == 1
    assert message.endswith(f"{home}/socket is there and is no socket: move it away\n")
    assert (home / "socket").read_text() == "precious"


# Two at once


def test_a_second_daemon_on_one_cache_directory_touches_nothing(
    daemon: Daemon, cache: Cache, home: Path
) -> None:
    cache.put("a", b"1")
    before = look(daemon.cache_dir)
    (home / "other").mkdir(mode=0o700)
    status, message = refused(home, "--socket", f"{home}/other/socket")
    assert status == 3
    assert message.endswith(f"autoloadd: another autoloadd uses {daemon.cache_dir}\n")
    assert look(daemon.cache_dir) == before
    assert list((home / "other").iterdir()) == []
    assert cache.get("a") == b"1"


def test_a_second_daemon_on_one_socket_directory_touches_nothing(
    daemon: Daemon, cache: Cache, home: Path
) -> None:
    cache.put("a", b"1")
    before = look(daemon.cache_dir)
    listening = os.stat(daemon.socket_path)
    for name in ("socket", "another"):
        other = ("--socket", f"{home}/{name}", "--cache-dir", f"{home}/other")
        status, message = refused(home, *other)
        assert status == 3
        assert message.endswith(f"autoloadd: another autoloadd uses {home}\n")
        assert not (home / "other").exists()
    assert look(daemon.cache_dir) == before
    assert os.stat(daemon.socket_path) == listening
    assert cache.get("a") == b"1"


def test_ten_started_at_once_of_which_one_serves(idle_daemon: Daemon) -> None:
    processes = [idle_daemon.spawn() for _ in range(10)]
    try:
        wait_until(
            lambda: sum(each.poll() is None for each in processes) == 1, SECONDS, "nine to end"
        )
        (serving,) = [each for each in processes if each.poll() is None]
        assert sorted(each.returncode for each in processes if each is not serving) == [3] * 9
        with idle_daemon.cache() as cache:
            wait_until(lambda: os.path.exists(idle_daemon.socket_path), SECONDS, "the socket")
            cache.put("a", b"1")
            assert cache.status()["pid"] == serving.pid
        serving.terminate()
        assert serving.wait(SECONDS) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    idle_daemon.start()
    with idle_daemon.cache() as cache:
        assert cache.get("a") == b"1"


class DaemonWithoutRuntimeDirectory(Daemon):
    """Its socket is in its cache directory, as it is by default where nothing else can hold it."""

    @property
    def socket_path(self) -> str:
        return str(self.cache_dir / "run" / "socket")


def test_a_socket_in_the_cache_directory(home: Path) -> None:
    """Its directory is empty at the first start and at each one after a clean stop."""
    daemon = DaemonWithoutRuntimeDirectory(home)
    try:
        daemon.start().restart()
    finally:
        daemon.end()


def test_a_stale_socket_file_is_replaced(daemon: Daemon, cache: Cache) -> None:
    cache.put("a", b"1")
    daemon.kill()
    assert os.path.exists(daemon.socket_path)
    daemon.start()
    assert cache.get("a") == b"1"
    assert os.stat(daemon.socket_path).st_mode & 0o777 == 0o600
    assert daemon.stop() == 0
    assert not os.path.exists(daemon.socket_path)


def test_a_directory_that_is_damaged_beyond_recovery_is_left_as_it_is(idle_daemon: Daemon) -> None:
    shard = idle_daemon.cache_dir / "zsh-5.9-8-00000000"
    shard.mkdir(parents=True, mode=0o700)
    idle_daemon.cache_dir.chmod(0o700)
    (shard / "image").write_bytes(b"no image")
    idle_daemon.start()
    assert idle_daemon.stop() == 0
    (kept,) = shard.iterdir()
    assert kept.name.startswith("image.set-aside-")
    assert kept.read_bytes() == b"no image"


# Its log


@pytest.mark.parametrize("matches", [True, False])
def test_journald_reads_the_priority_from_each_line(idle_daemon: Daemon, matches: bool) -> None:
    idle_daemon.log_path.touch()
    found = idle_daemon.log_path.stat()
    stream = f"{found.st_dev}:{found.st_ino + (not matches)}"
    idle_daemon.environment["JOURNAL_STREAM"] = stream
    (idle_daemon.cache_dir / "zsh-5.9-8-1").mkdir(parents=True, mode=0o700)
    idle_daemon.cache_dir.chmod(0o700)
    (idle_daemon.cache_dir / "zsh-5.9-8-1" / "image").write_bytes(b"no image")
    idle_daemon.start()
    assert idle_daemon.stop() == 0
    lines = idle_daemon.log.splitlines()
    serves = next(line for line in lines if "serves" in line)
    aside = next(line for line in lines if "set aside" in line)
    if matches:
        assert serves == f"<6>autoloadd {__version__} serves {idle_daemon.socket_path}"
        assert aside.startswith("<3>set aside: ")
    else:
        assert serves.endswith(f" autoloadd: INFO: autoloadd {__version__} serves "
                               f"{idle_daemon.socket_path}")  # fmt: skip
        assert " autoloadd: ERROR: set aside: " in aside


def test_the_log_level(idle_daemon: Daemon) -> None:
    idle_daemon.start("--log-level", "error")
    assert idle_daemon.stop() == 0
    assert idle_daemon.log == ""


def test_check_config_with_nowhere_to_print(home: Path) -> None:
    command = [sys.executable, "-m", "autoloadd_daemon", "--check-config"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command,
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            env=own_environment({"HOME": str(home)}),
        )
    assert done.returncode == 1
    assert done.stderr == b"autoloadd: cannot write to stdout: No space left on device\n"


def test_check_config_with_a_path_that_is_not_utf8(home: Path) -> None:
    command = [sys.executable, "-m", "autoloadd_daemon", "--check-config", "--cache-dir"]
    done = subprocess.run(
        [*map(os.fsencode, command), b"/tmp/b\xfd"],
        check=False,
        capture_output=True,
        env=own_environment({"HOME": str(home)}),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"/tmp/b\xfd" in done.stdout
