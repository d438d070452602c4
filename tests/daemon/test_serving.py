"""The serving task over its own set: what other threads bring to it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import trio
import trio.testing

from autoloadd_daemon.gathering import LONGEST_NS
from autoloadd_daemon.serving import EpollServer
from autoloadd_daemon.writes import Flush

from .engine import Engine
from .harness import PRODUCER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 20


async def test_callbacks_of_other_threads_are_run_in_their_order(cache_dir: Path) -> None:
    with Engine(cache_dir) as engine:
        server = EpollServer(engine.context)
        found: list[int] = []
        ended = trio.Event()

        def deliver_all() -> None:
            for number in range(1000):
                server.deliver(lambda number=number: found.append(number))  # type: ignore[misc]
            server.deliver(ended.set)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve)
            await trio.testing.wait_all_tasks_blocked()
            thread = threading.Thread(target=deliver_all)
            thread.start()
            with trio.fail_after(SECONDS):
                await ended.wait()
            nursery.cancel_scope.cancel()
        thread.join()
        assert found == list(range(1000))


async def test_one_that_comes_while_the_one_before_is_run_is_not_forgotten(
    cache_dir: Path,
) -> None:
    """Both count in the set as one event: reading it for the first one takes both away."""
    with Engine(cache_dir) as engine:
        server = EpollServer(engine.context)
        ended = trio.Event()
        answer = server._plain_requests.answer

        def answer_late(events: list[tuple[int, int]]) -> list[tuple[int, int]]:
            # Between the look at what was delivered, and the read of the event.
            if not ended.is_set():
                server.deliver(ended.set)
            return answer(events)

        server._plain_requests.answer = answer_late  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve)
            await trio.testing.wait_all_tasks_blocked()
            server.deliver(lambda: None)
            with trio.fail_after(SECONDS):
                await ended.wait()
            nursery.cancel_scope.cancel()


async def test_a_batch_that_gathers_while_the_task_sleeps_is_begun(cache_dir: Path) -> None:
    """Nothing else would wake it: the writer was turned by the end of a build, for instance."""
    servers: list[EpollServer] = []

    def deliver(callback: Callable[[], None]) -> None:
        servers[0].deliver(callback)

    with Engine(cache_dir, deliver=deliver) as engine:
        servers.append(EpollServer(engine.context))
        engine.writer.on_progress = servers[0].settle
        ended = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(servers[0].serve)
            await trio.testing.wait_all_tasks_blocked()
            longest_ago = time.monotonic_ns() - 2 * LONGEST_NS
            engine.writer._gathering.note_sync(synced=2, waiting=0, began_ns=longest_ago)
            engine.writer.submit(Flush(PRODUCER, "fsync", lambda _outcome: ended.set()))
            engine.writer.resume()
            assert engine.writer.is_gathering
            with trio.fail_after(SECONDS):
                await ended.wait()
            nursery.cancel_scope.cancel()


async def test_who_delivers_after_the_end_writes_nowhere(cache_dir: Path) -> None:
    """The number of the closed event may be a file's by then."""
    with Engine(cache_dir) as engine:
        server = EpollServer(engine.context)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        server.deliver(lambda: None)
