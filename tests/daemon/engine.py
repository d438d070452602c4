"""The daemon's parts put together without a process, a socket or an event loop."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from autoloadd_daemon.builder import Builder
from autoloadd_daemon.catalog import Catalog
from autoloadd_daemon.methods.context import Context
from autoloadd_daemon.metrics import Metrics
from autoloadd_daemon.session import Session
from autoloadd_daemon.sharing import Sharing
from autoloadd_daemon.storage.images import build_image
from autoloadd_daemon.storage.syncing import SyncThread
from autoloadd_daemon.writer import Writer
from autoloadd_protocol.framing import LENGTH_BYTES
from autoloadd_protocol.messages import (
    Answer,
    decode_answer,
    encode_notification,
    encode_request,
)

from .harness import PRODUCER, QuickFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from autoloadd_daemon.shard import Shard

SECONDS = 20.0


class Engine:
    """Catalog, writer and sync thread; the loop's part of a sync is done by `settle`.

    `deliver` brings the ends of syncs to a loop that there is.
    """

    def __init__(
        self,
        cache_dir: Path,
        files: QuickFiles | None = None,
        *,
        deliver: Callable[[Callable[[], None]], None] | None = None,
        later_bytes: int | None = None,
    ) -> None:
        self.files = files or QuickFiles()
        self.metrics = Metrics()
        self.catalog = Catalog(self.files, str(cache_dir), self.metrics, max_bytes=1 << 24)
        self.catalog.recover(later_bytes=later_bytes)
        self._callbacks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.sync_thread = SyncThread(deliver or self._callbacks.put)
        self.builder = Builder(self.catalog, self.files, self.sync_thread, self.metrics)
        self.writer = Writer(self.catalog, self.builder, self.sync_thread, self.metrics)
        self.sharing = Sharing(self.files, [str(cache_dir)])
        self.catalog.on_forget = self.sharing.drop
        self.stops: list[Callable[[object], None]] = []
        self.context = Context(
            self.catalog,
            self.writer,
            self.metrics,
            instance="test",
            socket_path="/none",
            stop=self.stops.append,
            connections=lambda: 1,
            sharing=self.sharing,
            want_image=self.builder.want_image,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self.sync_thread.stop(SECONDS)
        for _, files in self.catalog:
            files.close()

    def run_callback(self) -> None:
        """Wait for the end of one job of the sync thread, as the loop would."""
        self._callbacks.get(timeout=SECONDS)()

    def build(self, shard: Shard) -> None:
        """Build an image of a shard, here and now."""
        files = self.catalog.files_of(shard)
        covered = files.rotate()
        shard.finish_build(*build_image(self.files, files.directory, shard.begin_build(None)))
        files.forget(covered)

    def settle(self) -> None:
        """Carry out everything that was submitted."""
        self.writer.turn()
        while not self.writer.is_idle:
            self.run_callback()


class Talk:
    """One client's conversation with a session: requests in, answers out."""

    def __init__(self, engine: Engine, *, is_silent: bool = False) -> None:
        self.engine = engine
        self.woken = 0
        self.session = Session(engine.context, self._wake)
        self._id = 0
        self._received = b""
        if not is_silent:
            assert self.call("hello", [1, 0], PRODUCER.as_map()).error is None

    def send(self, method: str, *params: object) -> int:
        """Give the session a request without running it; return its id."""
        self._id += 1
        self.session.receive(framed(encode_request(self._id, method, params)))
        return self._id

    def notify(self, method: str, *params: object) -> None:
        """Give the session a notification without running it."""
        self.session.receive(framed(encode_notification(method, params)))

    def call(self, method: str, *params: object) -> Answer:
        """Run one request to its end."""
        self.send(method, *params)
        (answer,) = self.run()
        assert answer.id == self._id
        return answer

    def run(self) -> list[Answer]:
        """Advance until nothing is left to do; return the answers."""
        answers: list[Answer] = []
        while True:
            self.session.advance()
            self.engine.settle()
            answers += self.answers()
            if not (self.session.has_more or self.session._stalled):
                return answers

    def answers(self) -> list[Answer]:
        """Return the answers that are in the output."""
        self.session.close_passing()
        self._received += b"".join(self.session.take_output())
        answers = []
        while len(self._received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._received[:LENGTH_BYTES], "big")
            answer = decode_answer(self._received[LENGTH_BYTES:end])
            assert isinstance(answer, Answer)
            answers.append(answer)
            self._received = self._received[end:]
        return answers

    def _wake(self) -> None:
        self.woken += 1


def framed(payload: bytes) -> bytes:
    """Return a payload behind its length."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload
