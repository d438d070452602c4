"""Killed again and again under clients at work, the daemon takes nothing back.

What six clients saw over all lives of the daemon must fit one order (linearizability): a write
that was acknowledged before a kill is there after it, one without an answer happened or did not,
and nobody sees half of a write.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.errors import ConnectionLostError, UnreachableError

from ..running import wait_until
from .clients import Client, Shard, Values
from .linearizability import first_misfit
from .written import blob_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autoloadd_client import Cache

    from ..running import Daemon
    from .report import FaultCase

CLIENTS = 6
KILLS = 5
WORK_SECONDS = 60.0
MOST_BETWEEN_KILLS = 600
MOST_IN_MEMORY = 50


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_killed_under_clients_at_work(
    serving: str, idle_daemon: Daemon, case: FaultCase, effort: int
) -> None:
    case.unit = "kills"
    idle_daemon.environment = {"AUTOLOADD_SERVING": serving}
    daemon, values, chance = idle_daemon.start(), Values(), random.Random(serving)
    deaths: list[int] = []
    with at_work(daemon, values, chance) as clients:
        for _ in range(KILLS * effort):
            wait_for_work(clients, chance.randint(1, MOST_BETWEEN_KILLS))
            kill_and_restart(daemon, case, deaths)
        wait_for_work(clients, MOST_BETWEEN_KILLS)
    with daemon.cache() as cache:
        reader = Client(cache, values, chance)
        reader.get_all()
    history = [op for each in (*clients, reader) for op in each.history(deaths)]
    case.measured("operations", sum(operation.certain for operation in history))
    case.wrong += len(values.wrong)
    misfit = first_misfit(history, Shard())
    case.lost += misfit is not None
    assert (case.lost, case.wrong) == (0, 0), misfit


@contextmanager
def at_work(daemon: Daemon, values: Values, chance: random.Random) -> Iterator[list[Client]]:
    """Let clients do random things until the block ends."""
    with ExitStack() as stack:
        caches = [stack.enter_context(daemon.cache()) for _ in range(CLIENTS)]
        clients = [Client(cache, values, random.Random(chance.random())) for cache in caches]
        for client in clients:
            client.start()
        try:
            yield clients
        finally:
            for client in clients:
                client.is_told_to_end.set()
            for client in clients:
                client.join()
    assert [client.error for client in clients] == [None] * CLIENTS


def wait_for_work(clients: Sequence[Client], number: int) -> None:
    """Wait until so many more operations were answered."""
    goal = sum(client.answered for client in clients) + number

    def is_done() -> bool:
        answered = sum(client.answered for client in clients)
        return answered >= goal or any(client.error for client in clients)

    wait_until(is_done, WORK_SECONDS, f"{number} operations")


def kill_and_restart(daemon: Daemon, case: FaultCase, deaths: list[int]) -> None:
    """Kill the daemon and start it again; a kill is not taken for damage."""
    daemon.kill()
    deaths.append(time.monotonic_ns())
    daemon.start()
    case.recovered((time.monotonic_ns() - deaths[-1]) / 1e9)
    case.explored += 1
    storage = daemon.status()["storage"]
    assert (storage["state"], list(storage["set_aside"])) == ("healthy", [])


class Forgetful(threading.Thread):
    """Stores three names at once at `memory`, again and again, until the daemon dies under it."""

    def __init__(self, cache: Cache, prefix: str) -> None:
        super().__init__()
        self.names = [f"{prefix}-{part}" for part in range(3)]
        self.submitted: list[dict[str, bytes]] = [{}]
        self.acknowledged = 0
        self.misread: list[dict[str, bytes]] = []
        self._cache = cache

    def run(self) -> None:
        """Store and read back until there is no answer."""
        try:
            while True:
                number = len(self.submitted)
                entries = {name: blob_of(name, number, 20_000) for name in self.names}
                self.submitted.append(entries)
                self._cache.put_many(entries, sync="memory")
                self.acknowledged += 1
                found = self._cache.get_many(self.names)
                if found != entries:
                    self.misread.append(found)
        except (ConnectionLostError, UnreachableError):
            return


def test_killed_while_writes_are_only_in_memory(
    idle_daemon: Daemon, case: FaultCase, effort: int
) -> None:
    """They may be lost, but what comes back is whole."""
    case.unit = "kills"
    daemon, chance = idle_daemon.start(), random.Random(0)
    for number in range(KILLS * effort):
        clients = killed_while_storing(daemon, number, chance.randint(1, MOST_IN_MEMORY))
        daemon.start()
        case.explored += 1
        with daemon.cache() as cache:
            for client in clients:
                found = cache.get_many(client.names)
                case.wrong += len(client.misread) + (found not in client.submitted)
                assert found in client.submitted
                lost = client.acknowledged - client.submitted.index(found)
                case.measured("writes at memory lost to a kill", max(lost, 0))
    assert case.wrong == 0


def killed_while_storing(daemon: Daemon, number: int, goal: int) -> list[Forgetful]:
    """Return clients that stored, at least one of them `goal` times, until the daemon was dead."""
    with ExitStack() as stack:
        caches = [stack.enter_context(daemon.cache()) for _ in range(CLIENTS)]
        clients = [Forgetful(cache, f"{number}-{n}") for n, cache in enumerate(caches)]
        for client in clients:
            client.start()
        wait_until(lambda: clients[0].acknowledged >= goal, WORK_SECONDS, "writes")
        daemon.kill()
        for client in clients:
            client.join()
    return clients
