"""What tests of several folders share: a real daemon in a private directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from autoloadd_client import Cache
from autoloadd_protocol.framing import LENGTH_BYTES
from autoloadd_protocol.messages import Answer, decode_answer, encode_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


START_SECONDS = 20.0
STOP_SECONDS = 20.0
PRODUCER = "zsh/5.9/8"


@dataclass
class Daemon:
    """A daemon's process, and where it serves. `start` returns when it answers."""

    directory: Path
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> str:
        return str(self.directory / "s")

    @property
    def cache_dir(self) -> Path:
        return self.directory / "cache"

    @property
    def log_path(self) -> Path:
        return self.directory / "log"

    @property
    def log(self) -> str:
        """Everything that the daemon has logged, over all its starts."""
        return self.log_path.read_text()

    def command(self, *options: str) -> list[str]:
        """Return the command line that starts it."""
        where = ["--socket", self.socket_path, "--cache-dir", str(self.cache_dir)]
        program = [sys.executable, "-m", "autoloadd_daemon"]
        return [*self.prefix, *program, *where, *self.options, *options]

    def spawn(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a process without waiting for it to serve."""
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self.command(*options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )

    def start(self, *options: str) -> Daemon:
        """Start it and wait until it answers."""
        self.process = self.spawn(*options)
        wait_until(self._answers, START_SECONDS, f"the daemon to answer:\n{self.log}")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log}")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket_path)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(STOP_SECONDS)
        self.process = None
        return status

    def kill(self) -> None:
        """End it as the OOM killer would."""
        self.stop(signal.SIGKILL)

    def restart(self, *options: str) -> Daemon:
        """Stop it cleanly and start it again."""
        assert self.stop() == 0, self.log
        return self.start(*options)

    def cache(self, producer: str = PRODUCER, **options: object) -> Cache:
        """Return a client of this daemon, with deadlines that a busy machine keeps."""
        chosen: dict[str, object] = {"timeout": 20.0, "bulk_timeout": 60.0, **options}
        return Cache(producer, socket_path=self.socket_path, **chosen)  # type: ignore[arg-type]

    def connect(self) -> RawClient:
        """Return a bare connection, for what no well-behaved client sends."""
        return RawClient(self.socket_path)


class RawClient:
    """A socket that speaks frames, and sends whatever it is told to."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20.0)
        self.socket.connect(path)
        self._received = b""
        self._id = 0x10000

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def receive_frame(self) -> bytes | None:
        """Return the next payload, or None when the server closed."""
        while True:
            if len(self._received) >= LENGTH_BYTES:
                end = LENGTH_BYTES + int.from_bytes(self._received[:LENGTH_BYTES], "big")
                if len(self._received) >= end:
                    payload = self._received[LENGTH_BYTES:end]
                    self._received = self._received[end:]
                    return payload
            data = self.socket.recv(1 << 20)
            if not data:
                assert not self._received, "the server closed in the middle of a frame"
                return None
            self._received += data

    def receive(self) -> Answer | None:
        """Return the next answer, or None when the server closed."""
        payload = self.receive_frame()
        if payload is None:
            return None
        answer = decode_answer(payload)
        assert isinstance(answer, Answer)
        return answer

    def request_bytes(self, method: str, *params: object) -> bytes:
        """Return a request's frame, with an id of its own."""
        self._id += 1
        payload = encode_request(self._id, method, params)
        return len(payload).to_bytes(LENGTH_BYTES, "big") + payload

    def call(self, method: str, *params: object) -> Answer:
        """Send a request and return its answer."""
        self.send(self.request_bytes(method, *params))
        answer = self.receive()
        assert answer is not None
        assert answer.id == self._id
        return answer

    def hello(self, producer: dict[str, object] | None = None) -> Answer:
        """Say hello, as zsh 5.9 unless told otherwise."""
        default = {"name": "zsh", "version": "5.9", "pointer_width": 8}
        return self.call("hello", [1, 0], producer or default)


def wait_until(condition: object, seconds: float, what: str) -> None:
    """Poll until a condition holds; fail after `seconds` with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(0.005)


@pytest.fixture
def home() -> Iterator[Path]:
    """A private directory whose path is short enough for a socket."""
    directory = tempfile.mkdtemp(prefix="ald-")
    yield Path(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def idle_daemon(home: Path) -> Iterator[Daemon]:
    """A daemon that is not started yet; what is left of it is ended after the test."""
    daemon = Daemon(home)
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.process.send_signal(signal.SIGCONT)
        # Asked to stop first: a coverage run writes its data at a clean end.
        daemon.process.terminate()
        try:
            daemon.process.wait(STOP_SECONDS)
        finally:
            daemon.process.kill()


@pytest.fixture
def daemon(idle_daemon: Daemon) -> Daemon:
    """A daemon that serves."""
    return idle_daemon.start()


@pytest.fixture
def cache(daemon: Daemon) -> Iterator[Cache]:
    """A client of `daemon`."""
    with daemon.cache() as client:
        yield client
