"""A daemon of our own: on a socket and a cache directory that nobody else uses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from autoloadd_client.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 20.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.005


class DaemonFailedError(Exception):
    """The daemon did not start, or did not stop as it must. The message ends with its log."""


class Daemon:
    """One run of `autoloadd`. All its files lie in `directory`, which must be private."""

    def __init__(self, directory: str, *options: str) -> None:
        self.socket_path = os.path.join(directory, "socket")
        self.cache_dir = os.path.join(directory, "cache")
        self._log_path = os.path.join(directory, "log")
        config = os.path.join(directory, "config.toml")
        # An empty file of ours: the user's own configuration must not change what is measured.
        with open(config, "a", encoding="utf-8"), open(self._log_path, "ab") as log:
            # fmt: off
            self._process = subprocess.Popen(
                [sys.executable, "-m", "autoloadd_daemon", "--socket", self.socket_path,
                 "--cache-dir", self.cache_dir, "--config", config, *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # Ctrl-C is for us; we then stop the daemon as systemd would.
                start_new_session=True,
            )
            # fmt: on

    def wait_ready(self) -> None:
        """Return when the daemon accepts connections. Raises DaemonFailedError."""
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None:
                raise DaemonFailedError(
                    f"autoloadd ended with exit code {self._process.returncode}\n{self.read_log()}"
                )
            if time.monotonic() > deadline:
                raise DaemonFailedError(
                    f"autoloadd did not accept within {START_SECONDS:.0f} s\n{self.read_log()}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Send SIGTERM and wait. Raises DaemonFailedError unless the daemon exits with 0."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as exc:
            raise DaemonFailedError(
                f"autoloadd did not stop within {STOP_SECONDS:.0f} s of SIGTERM\n{self.read_log()}"
            ) from exc
        if code != 0:
            raise DaemonFailedError(f"autoloadd ended with exit code {code}\n{self.read_log()}")

    def wait(self) -> int:
        """Wait until the daemon ends by itself, and return its exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """Make sure that the daemon is gone."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket_path)
            except OSError:
                return False
        return True

    def read_log(self) -> str:
        """Return the last lines that the daemon logged."""
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-20:])


@contextmanager
def running_daemon(directory: str) -> Iterator[Daemon]:
    """Start a daemon, wait until it is ready, and stop it at the end; kill it after an error.

    A CacheError comes out as DaemonFailedError, with the daemon's side of it.
    """
    daemon = Daemon(directory)
    try:
        daemon.wait_ready()
        yield daemon
        daemon.stop()
    except CacheError as exc:
        raise DaemonFailedError(f"{exc}\n{daemon.read_log()}") from exc
    finally:
        daemon.kill()
