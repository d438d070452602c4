"""The task that ends leases and waits in time, by trio's own clock and the table's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio

from autoloadd_daemon.lease_timer import end_leases_in_time
from autoloadd_daemon.leases import Leases, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MS = 1_000_000
SECONDS = 20.0


class Watched:
    """Leases with their clock, and when each wait was over."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.over: list[str] = []
        self.settled = trio.Event()

    def ask(self, owner: str, *, wait_ms: int = 0, hold_ms: int = 60_000) -> None:
        """Ask for the one entry that there is."""
        now = time.monotonic_ns()
        request = Request(
            owner,
            "shard",
            b"a",
            hold_ms * MS,
            now + wait_ms * MS,
            lambda _is_held: None,
            lambda _parts: self.over.append(owner),
        )
        self.leases.ask(request, now)

    def settle(self) -> None:
        """What brings the answers out."""
        self.settled.set()

    async def wait_for(self, *owners: str) -> None:
        """Return when these were answered, in this order."""
        with trio.fail_after(SECONDS):
            while len(self.over) < len(owners):
                await self.settled.wait()
                self.settled = trio.Event()
        assert self.over == list(owners)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_leases_in_time, watched.leases, watched.settle)
        yield watched
        nursery.cancel_scope.cancel()


async def test_waits_end_in_the_order_of_their_times(watched: Watched) -> None:
    await trio.testing.wait_all_tasks_blocked()
    watched.ask("holder")
    began = time.monotonic()
    for owner, wait_ms in (("late", 120), ("early", 40), ("later", 160)):
        watched.ask(owner, wait_ms=wait_ms)
    await watched.wait_for("early", "late", "later")
    assert time.monotonic() - began >= 0.16


async def test_one_that_is_nearer_is_not_slept_through(watched: Watched) -> None:
    """The task sleeps towards a minute from now when somebody comes who waits for 10 ms."""
    watched.ask("holder")
    await trio.testing.wait_all_tasks_blocked()
    watched.ask("hasty", wait_ms=10)
    await watched.wait_for("hasty")


async def test_an_heir_is_asked_when_a_hold_is_over(watched: Watched) -> None:
    watched.ask("holder", hold_ms=20)
    watched.ask("heir", wait_ms=10_000)
    await watched.wait_for("heir")
    assert watched.leases.is_held_by("heir")


async def test_nothing_is_settled_where_nothing_is_over(watched: Watched) -> None:
    watched.ask("holder", hold_ms=60_000)
    watched.leases.forget("holder", time.monotonic_ns())
    watched.ask("next", hold_ms=50_000)
    await trio.testing.wait_all_tasks_blocked()
    assert not watched.settled.is_set()
