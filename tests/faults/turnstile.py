"""One thread at a time: the interleaving of loop, sync thread and build thread, made on purpose.

Each of the three goes on only while it holds the turn. Before every operation on a file it gives
the turn up, and the schedule says who of those that can go on has it next. So a schedule is a
dimension of a test, and the same schedule gives the same log on any machine.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Protocol

import trio
import trio.testing

from autoloadd_daemon import builder as builder_module
from autoloadd_daemon.storage.syncing import SyncThread

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from autoloadd_daemon.builder import Builder
    from autoloadd_daemon.errors import StorageError

LOOP, SYNC, BUILD = "loop", "sync", "build"

_DEADLOCK_SECONDS = 60.0


class Schedule(Protocol):
    """Chooses who has the turn next."""

    def __call__(self, ready: list[str]) -> str:
        """Return one of those that can go on."""


@dataclass(frozen=True)
class Order:
    """The first of these that can go on has the turn."""

    order: tuple[str, ...]

    def __call__(self, ready: list[str]) -> str:
        return min(ready, key=self.order.index)

    def __str__(self) -> str:
        return ", then ".join(self.order)


@dataclass(frozen=True)
class Chance:
    """Any of them, by a generator with a seed."""

    generator: random.Random
    name: str

    def __call__(self, ready: list[str]) -> str:
        return self.generator.choice(ready)

    def __str__(self) -> str:
        return self.name


ORDERS = [Order(order) for order in permutations((LOOP, SYNC, BUILD))]


class Turnstile(trio.abc.Instrument):
    """Hands the turn around. Made on the loop, which has it first."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._loop_thread = threading.get_ident()
        self._changed = threading.Condition()
        self._holder: str | None = LOOP
        self._ready: set[str] = set()
        self._jobs = 0
        self._on_the_way = 0
        self._build_begun = False

    def role(self) -> str:
        """Return which of the three the calling thread is."""
        if threading.get_ident() == self._loop_thread:
            return LOOP
        return SYNC if threading.current_thread().name == "sync" else BUILD

    def step(self) -> None:
        """Let others go first, if the schedule says so; return with the turn."""
        role = self.role()
        with self._changed:
            self._ready.add(role)
            self._pass_on()
            self._wait_for_turn(role)

    def _arrive(self, role: str) -> None:
        """Take the turn where it is given already, or wait for it."""
        with self._changed:
            self._ready.add(role)
            if self._holder is None:
                self._pass_on()
            self._wait_for_turn(role)

    def _wait_for_turn(self, role: str) -> None:
        while self._holder != role:
            if not self._changed.wait(_DEADLOCK_SECONDS):
                raise AssertionError(f"{role} waits for {self._holder}; ready: {self._ready}")
        self._ready.discard(role)

    def _pass_on(self) -> None:
        self._holder = self._schedule(sorted(self._ready)) if self._ready else None
        self._changed.notify_all()

    # The loop

    async def step_of_loop(self) -> None:
        """As `step`, after everything that the loop itself can do."""
        await self.receive()
        await trio.testing.wait_all_tasks_blocked()
        self._note_build()
        self.step()

    async def receive(self) -> None:
        """Return when the loop has seen everything that was sent to it."""
        while self._on_the_way:
            await trio.lowlevel.checkpoint()

    def before_io_wait(self, timeout: float) -> None:
        """Give the turn up while the loop waits for the other two."""
        if timeout <= 0:
            return
        self._note_build()
        with self._changed:
            if self._holder == LOOP and not self._on_the_way:
                self._pass_on()

    def after_io_wait(self, timeout: float) -> None:
        """Take the turn again; not where nothing was sent: a wake-up may come late."""
        with self._changed:
            is_wanted = self._on_the_way or self._holder in (LOOP, None)
        if is_wanted:
            self._arrive(LOOP)

    def _note_build(self) -> None:
        """A thread for the build has been asked for by now: it will come."""
        with self._changed:
            if self._build_begun:
                self._build_begun = False
                self._ready.add(BUILD)

    def _send_to_loop(self) -> None:
        """The loop will wake up and has something to do."""
        with self._changed:
            self._on_the_way += 1
            self._ready.add(LOOP)

    def _received_by_loop(self) -> None:
        self._arrive(LOOP)
        with self._changed:
            self._on_the_way -= 1

    # The sync thread

    def deliver(self, to_loop: Callable[[Callable[[], None]], None]) -> Callable[..., None]:
        """Return what the sync thread is to call at the end of a job."""

        def deliver(callback: Callable[[], None]) -> None:
            def received() -> None:
                self._received_by_loop()
                callback()

            self._send_to_loop()
            to_loop(received)
            with self._changed:
                self._jobs -= 1
                if self._jobs:
                    self._ready.add(SYNC)
                self._pass_on()

        return deliver

    def begin_job(self) -> None:
        """Wait for the turn, in the sync thread."""
        self._arrive(SYNC)

    def job_submitted(self) -> None:
        """Count a job: the sync thread can go on."""
        with self._changed:
            self._jobs += 1
            if self._holder != SYNC:
                self._ready.add(SYNC)

    # The build thread

    @contextmanager
    def around_builds(self, builder: Builder) -> Iterator[None]:
        """Let the build thread take part from the begin of a build to its end."""
        module: Any = builder_module
        watched: Any = builder
        build, install, fail = watched._carry_out, watched._install, watched._fail
        build_image = module.build_image

        async def begun(*arguments: Any) -> None:
            self._build_begun = True
            await build(*arguments)

        def built(*arguments: Any) -> object:
            self._arrive(BUILD)
            try:
                return build_image(*arguments)
            finally:
                self._send_to_loop()
                with self._changed:
                    self._pass_on()

        def seen(then: Callable[..., None]) -> Callable[..., None]:
            def on_loop(*arguments: object) -> None:
                self._received_by_loop()
                then(*arguments)

            return on_loop

        watched._carry_out = begun
        watched._install = seen(install)
        watched._fail = seen(fail)
        module.build_image = built
        try:
            yield
        finally:
            module.build_image = build_image


class TurnSyncThread(SyncThread):
    """The sync thread, which begins a job when it has the turn."""

    def __init__(self, turnstile: Turnstile, deliver: Callable[[Callable[[], None]], None]) -> None:
        self._turnstile = turnstile
        super().__init__(turnstile.deliver(deliver))

    def submit(self, job: Callable[[], None], done: Callable[[StorageError | None], None]) -> None:
        """Run `job` in the thread when its turn has come."""

        def in_turn() -> None:
            self._turnstile.begin_job()
            job()

        self._turnstile.job_submitted()
        super().submit(in_turn, done)
