"""As a service: real socket activation and notifications, units that systemd accepts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoloadd_client import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = Path(__file__).parents[2] / "systemd"
DEADLINE = 20.0
BLOB = bytes(range(256)) * 257
PRODUCER = "zsh/5.9/8"


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path: pytest's paths may be longer than a socket's may be.
    with tempfile.TemporaryDirectory(prefix="autoloadd-") as path:
        yield Path(path)


@contextmanager
def notify_socket(address: str) -> Iterator[socket.socket]:
    """A datagram socket as systemd has it; an address that begins with @ is an abstract one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        receiver.settimeout(DEADLINE)
        yield receiver


def read_until(receiver: socket.socket, wanted: str) -> list[str]:
    """Return the assignments received up to the wanted one."""
    received: list[str] = []
    while wanted not in received:
        received += receiver.recv(4096).decode().splitlines()
    return received


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def daemon_command(directory: Path) -> list[str]:
    (directory / "config.toml").touch()
    return [
        *(sys.executable, "-m", "autoloadd_daemon"),
        *("--cache-dir", str(directory / "cache"), "--config", str(directory / "config.toml")),
    ]


def activate_command(directory: Path, notify: str) -> list[str]:
    """`systemd-socket-activate`, which passes on only what it is told to of the environment."""
    passed = {name: os.environ[name] for name in os.environ if name.startswith("COVERAGE_")}
    passed["NOTIFY_SOCKET"] = notify
    return [
        *("systemd-socket-activate", f"--listen={directory}/socket"),
        *(f"--setenv={name}={value}" for name, value in passed.items()),
        *daemon_command(directory),
    ]


def wait_listening(path: Path) -> None:
    """Wait until there is a listening socket at the path. Connecting is what activates."""
    end = time.monotonic() + DEADLINE
    with socket.socket(socket.AF_UNIX) as probe:
        while probe.connect_ex(str(path)) != 0:
            assert time.monotonic() < end, f"nobody listens on {path}"
            time.sleep(0.005)


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_serves_the_socket_that_systemd_hands_over(directory: Path, kind: str) -> None:
    path = directory / "socket"
    address = str(directory / "notify") if kind == "path" else f"@{directory}/notify"
    with (
        notify_socket(address) as receiver,
        running(activate_command(directory, address)) as process,
    ):
        wait_listening(path)
        made = path.stat().st_ino
        assert "READY=1" in read_until(receiver, "READY=1")
        with Cache(PRODUCER, socket_path=str(path), timeout=DEADLINE) as cache:
            assert cache.put("_git", BLOB) == 1
            assert cache.get("_git") == BLOB
            assert cache.get("_svn") is None
            # systemd-socket-activate executes the daemon in its own place.
            assert cache.status()["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert "STOPPING=1" in read_until(receiver, "STOPPING=1")
        assert process.wait(DEADLINE) == 0
        # It is systemd's: the next client must find it there.
        assert path.stat().st_ino == made


def test_a_lost_socket_of_systemd_is_reported_and_not_bound_again(directory: Path) -> None:
    path = directory / "socket"
    with (
        notify_socket(f"@{directory}/notify"),
        running(activate_command(directory, f"@{directory}/notify")) as process,
    ):
        wait_listening(path)
        with Cache(PRODUCER, socket_path=str(path), timeout=DEADLINE) as cache:
            cache.ping()
            path.unlink()
            deadline = time.monotonic() + DEADLINE
            while not cache.status()["counters"].get("socket_lost"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert not path.exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


def test_what_was_stored_is_there_at_the_next_activation(directory: Path) -> None:
    path = directory / "socket"
    for expected in (None, BLOB):
        path.unlink(missing_ok=True)
        with (
            notify_socket(f"@{directory}/notify") as receiver,
            running(activate_command(directory, f"@{directory}/notify")) as process,
        ):
            wait_listening(path)
            with Cache(PRODUCER, socket_path=str(path), timeout=DEADLINE) as cache:
                assert cache.get("_git") == expected
                cache.put("_git", BLOB)
            read_until(receiver, "READY=1")
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0


def test_says_ready_when_it_answers_on_its_own_socket(directory: Path) -> None:
    path = directory / "socket"
    command = [*daemon_command(directory), "--socket", str(path)]
    with (
        notify_socket(str(directory / "notify")) as receiver,
        running(command, NOTIFY_SOCKET=str(directory / "notify")) as process,
    ):
        read_until(receiver, "READY=1")
        with Cache(PRODUCER, socket_path=str(path), timeout=DEADLINE) as cache:
            cache.ping()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        read_until(receiver, "STOPPING=1")
        assert not path.exists()


@pytest.fixture
def verify(directory: Path) -> list[str]:
    """`systemd-analyze --user` as a user has it who installed with pip install --user."""
    executable = directory / ".local/bin/autoloadd"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    environment = [f"HOME={directory}", f"XDG_RUNTIME_DIR={directory}"]
    return ["env", *environment, "systemd-analyze", "--user"]


@pytest.mark.parametrize("unit", ["autoloadd.socket", "autoloadd.service"])
def test_systemd_finds_no_fault_in_the_unit(verify: list[str], unit: str) -> None:
    ran = subprocess.run(
        [*verify, "--man=no", "verify", str(UNITS / unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_verification_sees_a_fault(verify: list[str], directory: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("NoNewPrivileges=", "NoNewPrivilege=")
        (directory / unit.name).write_text(text)
    ran = subprocess.run(
        [*verify, "--man=no", "verify", str(directory / "autoloadd.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "NoNewPrivilege" in ran.stderr
