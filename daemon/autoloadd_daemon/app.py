"""The daemon put together: the only module that knows all the parts.

Start: lock, recover, listen, ready. Stop: listen no more, answer what was taken, flush, go.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from typing import TYPE_CHECKING

import trio

from autoloadd_protocol import __version__
from autoloadd_protocol.errors import NOT_DURABLE, RequestError
from autoloadd_protocol.page import HEARTBEAT_NS

from .activation import inherited_listener, notify
from .allocation import return_free_blocks, return_large_blocks
from .builder import Builder
from .catalog import Catalog
from .config import AT_ONCE, AT_START
from .descriptors import raise_limit
from .errors import AlreadyServedError, ConfigError, DamageError, StartError, StopError
from .exhaustion import run_or_end
from .lease_timer import end_leases_in_time
from .listening import DirectoryLock, Listener, bind
from .loading import LATER_BYTES, load_images
from .log import set_level
from .methods.context import Context
from .metrics import Metrics
from .reports import report_recovery, what_is_not_stored
from .serving import EpollServer
from .sharing import Sharing
from .signals import SIGNALS, keep_signals
from .storage.files import Files
from .storage.syncing import SyncThread
from .threads import StandingThread
from .writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .config import Settings
    from .errors import StorageError
    from .serving_tasks import TaskServer

_logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.25
_CHECK_SECONDS = 0.5
_DRAIN_SECONDS = 2.0
_BUILD_SECONDS = 2.0
_SYNC_SECONDS = 0.5
_SEND_SECONDS = 0.25
_POLL_SECONDS = 0.005
_FIRST_COME_SECONDS = 0.02
"""After the start: whoever wanted the daemon is answered before a thread takes the processor."""


class App:
    """One daemon. `run` returns after a clean stop, and raises DaemonError if it cannot start."""

    def __init__(self, settings: Settings, *, reload: Callable[[], Settings]) -> None:
        self._settings = self._running = settings
        self._reload = reload
        self._metrics = Metrics()
        self._files = Files()
        self._stop_requested = trio.Event()
        self._shutdown_answers: list[Callable[[object], None]] = []
        self._background = trio.CancelScope()
        self._loading = trio.CancelScope()
        self._start_failure: StartError | None = None
        self._not_stored: str | None = None

    def run(self) -> None:
        """Serve until told to stop."""
        self._early_signals = keep_signals()
        os.umask(0o077)
        raise_limit()
        return_large_blocks()
        inherited = inherited_listener(os.environ)
        self._locks: list[DirectoryLock] = []
        try:
            self._take_locks(inherited)
            self._catalog = Catalog(
                self._files,
                self._settings.cache_dir,
                self._metrics,
                max_bytes=self._settings.max_bytes,
            )
            started = time.monotonic()
            self._catalog.recover(later_bytes=LATER_BYTES)
            report_recovery(self._catalog, self._metrics, time.monotonic() - started)
            self._note_unwritable()
            self._sharing = Sharing(self._files, [lock.path for lock in self._locks])
            self._listener = inherited or bind(self._settings.socket)
        except StartError:
            for lock in reversed(self._locks):
                lock.undo()
            raise
        try:
            trio.run(self._main)
        finally:
            for lock in self._locks:
                lock.release()
        if self._start_failure is not None:
            raise self._start_failure
        if self._not_stored is not None:
            raise StopError(f"stopped, but not everything is stored: {self._not_stored}")

    def _take_locks(self, inherited: Listener | None) -> None:
        self._locks.append(DirectoryLock.take(self._files, self._settings.cache_dir))
        if inherited is None:
            socket_dir = os.path.dirname(self._settings.socket)
            self._locks.append(DirectoryLock.take(self._files, socket_dir))

    async def _main(self) -> None:
        self._sync_thread = SyncThread(self._deliver)
        self._builder = Builder(self._catalog, self._files, self._sync_thread, self._metrics)
        self._writer = Writer(self._catalog, self._builder, self._sync_thread, self._metrics)
        self._context = self._make_context()
        self._server = self._make_server()
        self._writer.on_progress = self._server.settle
        self._writer.not_before_ns = self._sharing.trusted_until_ns
        self._catalog.on_forget = self._sharing.drop
        self._builder.on_built = self._after_build
        self._build_thread = StandingThread("build")
        self._builder.run_in_thread = self._build_thread.run
        self._builder.free_in_thread = self._build_thread.submit
        self._builder.drop_shard = self._writer.evict
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                self._builder.nursery = nursery
                nursery.start_soon(run_or_end, self._watch_signals, signals)
                nursery.start_soon(run_or_end, self._server.serve)
                nursery.start_soon(self._look_after)
                nursery.start_soon(run_or_end, self._load_images)
                self._server.listen_on(self._listener.socket)
                _logger.info("autoloadd %s serves %s", __version__, self._listener.path)
                notify("READY=1", os.environ)
                for number in self._early_signals:
                    self._obey(number)
                await self._stop_requested.wait()
                await self._stop()
                nursery.cancel_scope.cancel()

    def _deliver(self, callback: Callable[[], None]) -> None:
        # The server is made after what it serves.
        self._server.deliver(callback)

    def _make_context(self) -> Context:
        return Context(
            self._catalog,
            self._writer,
            self._metrics,
            instance=os.urandom(8).hex(),
            socket_path=self._listener.path,
            stop=self._stop_and_answer,
            connections=lambda: self._server.connections,
            sharing=self._sharing,
            want_image=self._builder.want_image,
        )

    def _make_server(self) -> EpollServer | TaskServer:
        # The portable server can be had on Linux too: AUTOLOADD_SERVING=tasks.
        if hasattr(select, "epoll") and os.environ.get("AUTOLOADD_SERVING") != "tasks":
            return EpollServer(self._context)
        from .serving_tasks import TaskServer  # noqa: PLC0415

        return TaskServer(self._context)

    def _stop_and_answer(self, answer: Callable[[object], None]) -> None:
        self._shutdown_answers.append(answer)
        self._stop_requested.set()

    # While it serves

    def _after_build(self) -> None:
        self._writer.resume()
        self._build_thread.submit(return_free_blocks)

    async def _load_images(self) -> None:
        """Have what the start left in its files read and checked, then writes and builds begin."""
        with self._loading:
            if self._catalog.is_loading:
                await trio.sleep(_FIRST_COME_SECONDS)
            try:
                await self._load_or_recover()
            except StartError as exc:
                self._start_failure = exc
                self._stop_requested.set()
                return
            for shard, _ in self._catalog:
                self._builder.look_at(shard)
            self._writer.resume()

    async def _load_or_recover(self) -> None:
        started = time.monotonic()
        try:
            await load_images(self._catalog, self._build_thread.run)
        except DamageError as exc:
            _logger.error("%s", exc)  # noqa: TRY400
            self._check_cache_directory()
            self._catalog.recover_again()
            report_recovery(self._catalog, self._metrics, time.monotonic() - started)
            self._note_unwritable()

    async def _watch_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self._obey(number)

    def _obey(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._read_configuration_again()
        else:
            _logger.info("stopping: %s", signal.Signals(number).name)
            self._stop_requested.set()

    def _read_configuration_again(self) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", os.environ)
        try:
            settings = self._reload()
        except ConfigError as exc:
            _logger.error("the configuration is kept as it was: %s", exc)  # noqa: TRY400
        else:
            self._take_over(settings)
        notify("READY=1", os.environ)

    def _take_over(self, settings: Settings) -> None:
        changed = ", ".join(settings.differing(self._settings, AT_ONCE))
        _logger.info("the configuration was read again: %s", changed or "nothing changes now")
        for change in settings.differing(self._running, AT_START):
            _logger.warning("only the next start makes it so: %s", change)
        self._settings = settings
        self._catalog.max_bytes = settings.max_bytes
        set_level(settings.log_level)

    async def _look_after(self) -> None:
        with self._background:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_or_end, self._tick)
                nursery.start_soon(run_or_end, self._sync_regularly)
                nursery.start_soon(run_or_end, self._beat)
                nursery.start_soon(run_or_end, self._begin_to_write)
                nursery.start_soon(
                    run_or_end, end_leases_in_time, self._writer.leases, self._server.settle
                )

    async def _tick(self) -> None:
        """Look after what no event announces: deadlines, the socket's file, storage that is ill."""
        last_check = time.monotonic()
        while True:
            await trio.sleep(_TICK_SECONDS)
            self._server.check_deadlines()
            if self._metrics.health.is_due():
                self._try_to_heal()
            self._builder.look_around()
            self._writer.resume()
            if time.monotonic() - last_check >= _CHECK_SECONDS:
                last_check = time.monotonic()
                self._check_directories()
                self._check_socket()

    def _check_directories(self) -> None:
        """Notice that a directory was removed or replaced: what is there now may be another's."""
        self._check_cache_directory()
        for lock in self._locks[1:]:
            if not lock.is_in_place():
                self._lock_again(lock)

    def _check_cache_directory(self) -> None:
        cache_lock = self._locks[0]
        if self._catalog.lost is None and not cache_lock.is_in_place():
            self._catalog.lost = (
                f"{cache_lock.path} was removed or replaced while the daemon ran; "
                "restart autoloadd to begin anew there"
            )
            # A mark is lost too: a successor might not wait for the end of a lease.
            self._sharing.end()
            self._metrics.health.report(self._catalog.lost)
            _logger.error("%s; until then it serves what it has", self._catalog.lost)

    def _lock_again(self, lock: DirectoryLock) -> None:
        try:
            self._locks.append(DirectoryLock.take(self._files, lock.path))
        except AlreadyServedError as exc:
            _logger.error("stopping: %s", exc)  # noqa: TRY400
            self._stop_requested.set()
        except StartError as exc:
            _logger.error("the socket's directory is gone: %s", exc)  # noqa: TRY400
        else:
            self._locks.remove(lock)
            lock.release()

    def _check_socket(self) -> None:
        if self._listener.is_in_place() or not all(lock.is_in_place() for lock in self._locks[1:]):
            return
        self._metrics.count("socket_lost")
        if self._listener.is_inherited:
            _logger.error("%s is gone; restart autoloadd.socket", self._listener.path)
            return
        try:
            listener = bind(self._listener.path)
        except StartError as exc:
            _logger.error("the socket's file is gone: %s", exc)  # noqa: TRY400
            return
        _logger.warning("%s was gone and is bound again", listener.path)
        self._server.listen_on(listener.socket)
        self._listener.socket.close()
        self._listener = listener

    def _try_to_heal(self) -> None:
        self._builder.heal()
        self._sync_thread.submit(self._catalog.probe, self._probed)

    def _probed(self, error: StorageError | None) -> None:
        if error is not None:
            self._metrics.health.report(error)
            return
        if self._catalog.unwritable is not None:
            # Nothing was written meanwhile: what the files hold is what is served.
            try:
                self._catalog.recover()
            except StartError as exc:
                self._metrics.health.report(exc)
                return
            self._note_unwritable()
        if self._catalog.failure is None and self._metrics.health.heal():
            _logger.warning("storage takes writes again")

    def _note_unwritable(self) -> None:
        error = self._catalog.unwritable
        if error is not None and self._metrics.health.report(error):
            _logger.error("%s; what there is is served, and it is tried again", error)

    async def _sync_regularly(self) -> None:
        while True:
            await trio.sleep(self._settings.sync_interval)
            self._writer.sync_in_background()

    async def _beat(self) -> None:
        """Vouch for what clients have mapped."""
        while True:
            self._sharing.beat(time.monotonic_ns())
            await trio.sleep(HEARTBEAT_NS / 1e9)

    async def _begin_to_write(self) -> None:
        """Carry out the writes that waited for the end of a predecessor's lease."""
        wait_ns = self._writer.not_before_ns - time.monotonic_ns()
        if wait_ns > 0:
            _logger.info(
                "writes wait for %.0f ms: clients may trust the last daemon", wait_ns / 1e6
            )
            await trio.sleep(wait_ns / 1e9)
            self._writer.resume()

    # The end

    async def _stop(self) -> None:
        """Answer what was taken, flush, answer `shutdown`. Within 5 s, whatever the disk does."""
        notify("STOPPING=1", os.environ)
        self._background.cancel()
        self._check_cache_directory()
        self._server.stop_listening()
        self._listener.close()
        self._writer.leases.close()
        self._server.settle()
        with trio.move_on_after(_DRAIN_SECONDS):
            while not self._is_drained():
                self._writer.resume()
                await trio.sleep(_POLL_SECONDS)
        self._loading.cancel()
        self._writer.close()
        if self._writer.is_idle:
            with trio.move_on_after(_BUILD_SECONDS):
                await self._builder.build_all()
        self._writer.sync_in_background()
        in_time = await trio.to_thread.run_sync(self._sync_thread.stop, _SYNC_SECONDS)
        if not in_time:
            _logger.error("the disk did not answer; what it has not taken may be lost")
        self._not_stored = what_is_not_stored(self._catalog, in_time=in_time)
        self._sharing.end()
        if in_time and self._catalog.lost is None:
            self._sharing.take_marks_away()
        outcome = None
        if self._not_stored is not None:
            outcome = RequestError(NOT_DURABLE, f"not everything is stored: {self._not_stored}")
        for answer in self._shutdown_answers:
            answer(outcome)
        self._server.settle()
        with trio.move_on_after(_SEND_SECONDS):
            while self._server.owes_answers:  # noqa: ASYNC110  # a rare end, not worth an event
                await trio.sleep(_POLL_SECONDS)
        _logger.info("stopped")

    def _is_drained(self) -> bool:
        if self._start_failure is not None:
            return True
        # Most daemons that are stopped so soon have nothing to build an image of.
        has_journals = any(files.journal_bytes for _, files in self._catalog)
        return self._writer.is_idle and not (self._catalog.is_loading and has_journals)
