"""The real daemon and the real command line, each in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Ctl = Callable[..., subprocess.CompletedProcess[bytes]]

START_SECONDS = 20.0
STOP_SECONDS = 10.0
RUN_SECONDS = 60.0

PRODUCER = "zsh/5.9/8"


@dataclass
class Daemon:
    """A daemon on a socket and a cache directory of its own."""

    socket_path: Path
    cache_dir: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> int:
        """Ask it to stop, as systemd does, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def start_daemon(socket_path: Path, cache_dir: Path) -> Daemon:
    """Return a daemon that accepts connections."""
    command = [sys.executable, "-m", "autoloadd_daemon"]
    process = subprocess.Popen(
        [*command, "--socket", str(socket_path), "--cache-dir", str(cache_dir)]
    )
    deadline = time.monotonic() + START_SECONDS
    while not _accepts(socket_path):
        assert process.poll() is None, f"the daemon ended with {process.returncode}"
        assert time.monotonic() < deadline, "the daemon is not ready"
        time.sleep(0.01)
    return Daemon(socket_path, cache_dir, process)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """A directory that may hold a socket: ours, mode 0700."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def daemon(run_directory: Path, tmp_path: Path) -> Iterator[Daemon]:
    running = start_daemon(run_directory / "socket", tmp_path / "cache")
    yield running
    assert running.stop() == 0


@pytest.fixture
def ctl(run_directory: Path) -> Ctl:
    """Run autoloadctl against the test's own socket, whether anyone is there or not."""

    def run(
        *arguments: str | bytes | Path,
        given: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "autoloadd_client.cli", *arguments],
            input=given,
            capture_output=True,
            check=False,
            timeout=RUN_SECONDS,
            env=ctl_environment(run_directory, environment or {}),
        )

    return run


def ctl_environment(run_directory: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which only the test decides what autoloadctl does."""
    ours = ("AUTOLOADD_", "ZSHRS_CACHE", "NO_COLOR")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return {**kept, "AUTOLOADD_SOCKET": str(run_directory / "socket"), **more}
