"""A real daemon in a process of its own, and a client that sends whatever it is told to."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from autoloadd_client import Cache
from autoloadd_protocol.framing import LENGTH_BYTES, encode_frame
from autoloadd_protocol.messages import (
    Answer,
    decode_answer,
    encode_notification,
    encode_request,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from autoloadd_protocol.producer import Producer

START_SECONDS = 20.0
STOP_SECONDS = 20.0
ANSWER_SECONDS = 20.0
PRODUCER = "zsh/5.9/8"
OUR_VARIABLES = (
    "AUTOLOADD_", "ZSHRS_CACHE", "NO_COLOR", "JOURNAL_STREAM", "NOTIFY_SOCKET", "PYTHONUNBUFFERED",
)  # fmt: skip
"""What decides in the environment how daemon and command line behave."""

FAST_POLL_SECONDS = 0.005


def producer_map(text: str = PRODUCER) -> dict[str, object]:
    """Return NAME/VERSION/WIDTH as it stands in a `hello`."""
    name, version, width = text.split("/")
    return {"name": name, "version": version, "pointer_width": int(width)}


def own_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which only the test decides what the daemon and its clients do."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OUR_VARIABLES)}
    return {**kept, **changes}


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until a condition holds; fail after `seconds` with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(FAST_POLL_SECONDS)


def takes_less_than(seconds: float, action: Callable[[], object], *, trials: int = 5) -> None:
    """Do something until it once takes less time than this; fail where it never does.

    A busy machine only ever adds time: one trial that was quick shows that nothing waits.
    """
    took: list[float] = []
    while len(took) < trials:
        began = time.monotonic()
        action()
        took.append(time.monotonic() - began)
        if took[-1] < seconds:
            return
    raise AssertionError(f"took {', '.join(f'{each:.2f}' for each in took)} s, never {seconds:g}")


@contextmanager
def private_directory() -> Iterator[Path]:
    """A directory of ours alone, whose path is short enough for a socket."""
    directory = Path(tempfile.mkdtemp(prefix="ald-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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
        return str(self.directory / "socket")

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

    @property
    def pid(self) -> int:
        """The running process's id."""
        assert self.process is not None
        return self.process.pid

    @property
    def files(self) -> set[str]:
        """The names of all files in the cache directory, relative to it."""
        # Not rglob, which fails where the daemon removes a directory meanwhile.
        found = (
            os.path.join(at, name) for at, _, names in os.walk(self.cache_dir) for name in names
        )
        return {os.path.relpath(path, self.cache_dir) for path in found}

    def command(self, *options: str) -> list[str]:
        """Return the command line that starts it."""
        where = ["--socket", self.socket_path, "--cache-dir", str(self.cache_dir)]
        program = [sys.executable, "-m", "autoloadd_daemon"]
        return [*self.prefix, *program, *where, *self.options, *options]

    def environment_of_process(self) -> dict[str, str]:
        """Return the environment that it is started with: the user's own files are not read."""
        own = {"XDG_CONFIG_HOME": str(self.directory / "config"), **self.environment}
        return own_environment(own)

    def spawn(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a process without waiting for it to serve."""
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self.command(*options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment_of_process(),
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
        try:
            with self.connect() as client:
                return bool(client.ok("ping") == "pong")
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def logged_at(self, said: str) -> datetime:
        """Return when it logged a message: by its own clock, however late this process looks."""
        line = next(line for line in self.log.splitlines() if line.endswith(f": {said}"))
        return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC)

    def assert_stopped_in_time(self) -> None:
        """Check that the end came within 5 s of SIGTERM or SIGINT."""
        ended = self.logged_at("stopped")
        began = min(
            self.logged_at(f"stopping: {name}")
            for name in ("SIGTERM", "SIGINT")
            if f"stopping: {name}" in self.log
        )
        assert ended - began <= timedelta(seconds=5)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; return the exit status."""
        assert self.process is not None
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

    def end(self) -> None:
        """End what is left of it after a test; it has to end cleanly."""
        if self.process is None:
            return
        process = self.process
        process.send_signal(signal.SIGCONT)
        try:
            # Asked to stop: a coverage run writes its data at a clean end.
            assert self.stop() == 0, self.log
        finally:
            process.kill()
            process.wait()

    def cache(self, producer: Producer | str | None = PRODUCER, **options: Any) -> Cache:
        """Return a client of this daemon, with deadlines that a busy machine keeps."""
        chosen = {"timeout": ANSWER_SECONDS, "bulk_timeout": 60.0, **options}
        return Cache(producer, socket_path=self.socket_path, **chosen)

    def connect(self) -> RawClient:
        """Return a bare connection, for what no well-behaved client sends."""
        return RawClient(self.socket_path)

    def status(self) -> dict[str, Any]:
        """Return what it says of itself, asked on a connection of its own."""
        with self.connect() as client:
            result: dict[str, Any] = client.ok("status")
            return result


def get_locally(cache: Cache, name: str) -> tuple[bool, bytes | None]:
    """Return whether a get was answered without the daemon, and its blob. Raises CacheError."""
    before = cache._shared._gets
    blob = cache.get(name)
    return cache._shared._gets == before, blob


class RawClient:
    """A socket that speaks frames, and sends whatever it is told to."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(ANSWER_SECONDS)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._received = bytearray()
        self._id = 0x10000

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def end_input(self) -> None:
        """Say that nothing more is sent; answers can still be received."""
        self.socket.shutdown(socket.SHUT_WR)

    def receive_frame(self) -> bytes | None:
        """Return the next payload, or None when the server closed."""
        while True:
            if len(self._received) >= LENGTH_BYTES:
                end = LENGTH_BYTES + int.from_bytes(self._received[:LENGTH_BYTES], "big")
                if len(self._received) >= end:
                    payload = bytes(self._received[LENGTH_BYTES:end])
                    del self._received[:end]
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

    def is_closed(self) -> bool:
        """Wait for the server's end of the stream; False when it sends something instead."""
        try:
            return self.receive_frame() is None
        except ConnectionResetError:
            return True

    def request_bytes(self, method: str, *params: object) -> bytes:
        """Return a request's frame, with an id of its own."""
        self._id += 1
        return encode_frame(encode_request(self._id, method, params))

    def call(self, method: str, *params: object) -> Answer:
        """Send a request and return its answer."""
        self.send(self.request_bytes(method, *params))
        answer = self.receive()
        assert answer is not None, "the server closed the connection"
        assert answer.id in (self._id, None)
        return answer

    def call_all(self, *requests: tuple[object, ...]) -> list[Answer]:
        """Send requests `(method, *params)` in one write; return their answers, in order."""
        first = self._id + 1
        self.send(b"".join(self.request_bytes(str(each[0]), *each[1:]) for each in requests))
        return self.answers(first, len(requests))

    def answers(self, first_id: int, count: int) -> list[Answer]:
        """Return so many answers; their ids follow one another."""
        found: list[Answer] = []
        for number in range(first_id, first_id + count):
            answer = self.receive()
            assert answer is not None, f"the server closed before answer {len(found)}"
            assert answer.id == number
            found.append(answer)
        return found

    def notify(self, method: str, *params: object) -> None:
        """Send a notification."""
        self.send(encode_frame(encode_notification(method, params)))

    def ok(self, method: str, *params: object) -> Any:
        """Send a request and return its result; it must not be refused."""
        answer = self.call(method, *params)
        assert answer.error is None, answer.error
        return answer.result

    def refusal(self, method: str, *params: object) -> str:
        """Send a request that must be refused; return the code."""
        answer = self.call(method, *params)
        assert answer.error is not None, f"{answer.result!r:.200}"
        return answer.error[0]

    def hello(self, producer: dict[str, object] | None = None) -> Answer:
        """Say hello, as zsh 5.9 unless told otherwise."""
        return self.call("hello", [1, 0], producer or producer_map())
