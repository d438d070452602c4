"""Processes like shells: each opens its own cache, reads and writes, and checks all answers."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field
from multiprocessing import get_context
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from autoloadd_client import Cache
from locked_file import LockedFileCache
from values import WrongAnswerError, make_value, read_counter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

SHELLS = 8
OWN_NAMES = 32
READS_PER_WRITE = 8
"""A shell looks up far more than it compiles."""

JOIN_SECONDS = 30.0


class ShellDiedError(Exception):
    """A shell ended without a result: the cache refused, or was not there."""


class Store(Protocol):
    """What both caches can do."""

    def get(self, name: str) -> bytes | None:
        """Return the blob, or None for a miss."""

    def put(self, name: str, blob: bytes) -> object:
        """Store one entry; it is as safe as was asked when this returns."""

    def close(self) -> None:
        """Let go of what was opened."""


@dataclass(frozen=True)
class Load:
    """What all shells of one phase do. Sizes are in bytes.

    `warmed` maps the functions that are there to (size, crc32), `written` the names that an earlier
    phase wrote to (counter, size).
    """

    open_store: Callable[[], Store]
    seconds: float
    reads_per_write: int
    sizes: Sequence[int]
    warmed: Mapping[str, tuple[int, int]]
    written: Mapping[str, tuple[int, int]]


@dataclass
class Outcome:
    """What one shell did. Times are ns per call; `written` maps own names to (counter, size)."""

    gets: list[int] = field(default_factory=list)
    puts: list[int] = field(default_factory=list)
    written: dict[str, tuple[int, int]] = field(default_factory=dict)
    wrong: str | None = None


class DaemonStore:
    """The daemon, at one level of durability."""

    def __init__(self, socket_path: str, producer: str, sync: str) -> None:
        self._cache = Cache(producer, socket_path=socket_path, timeout=10.0)
        self._sync = sync
        self.get = self._cache.get
        self.close = self._cache.close

    def put(self, name: str, blob: bytes) -> int | None:
        """Store one entry and wait for the acknowledgement."""
        return self._cache.put(name, blob, sync=self._sync)


@dataclass(frozen=True)
class OpenDaemon:
    """Opens a DaemonStore in the process that calls it."""

    socket_path: str
    producer: str
    sync: str

    def __call__(self) -> Store:
        """Return a store with a connection of its own."""
        return DaemonStore(self.socket_path, self.producer, self.sync)


@dataclass(frozen=True)
class OpenLockedFile:
    """Opens a LockedFileCache in the process that calls it."""

    path: str

    def __call__(self) -> Store:
        """Return a store with a lock descriptor of its own."""
        return LockedFileCache(self.path)


def fingerprint_of(blob: bytes) -> tuple[int, int]:
    """Return (size, crc32): what a warmed entry's bytes are compared with."""
    return len(blob), zlib.crc32(blob)


def own_names(shell: int) -> list[str]:
    """Return the names that only this shell writes."""
    return [f"_shell_{shell}_{number}" for number in range(OWN_NAMES)]


class Shell:
    """One shell: what it wrote, what it saw of others, and how long each call took."""

    def __init__(self, number: int, load: Load, store: Store) -> None:
        self._load = load
        self._store = store
        self._random = Random(f"shell {number}")
        self._mine = own_names(number)
        self._others = [
            name for other in range(SHELLS) if other != number for name in own_names(other)
        ]
        self._functions = list(load.warmed)
        self._seen: dict[str, int] = {}
        self.outcome = Outcome(
            written={n: load.written[n] for n in self._mine if n in load.written}
        )

    def run(self) -> None:
        """Read and write until the time is over. Raises WrongAnswerError at a wrong byte."""
        end = time.perf_counter() + self._load.seconds
        while time.perf_counter() < end:
            self._write()
            for _ in range(self._load.reads_per_write):
                self._read()

    def _write(self) -> None:
        name = self._random.choice(self._mine)
        counter = self.outcome.written.get(name, (0, 0))[0] + 1
        size = self._random.choice(self._load.sizes)
        value = make_value(name, counter, size)
        started = time.perf_counter_ns()
        self._store.put(name, value)
        self.outcome.puts.append(time.perf_counter_ns() - started)
        self.outcome.written[name] = counter, size

    def _read(self) -> None:
        kind = self._random.random()
        if kind < 0.7:
            self._read_function(self._random.choice(self._functions))
        elif kind < 0.85:
            self._read_own(self._random.choice(self._mine))
        else:
            self._read_other(self._random.choice(self._others))

    def _timed_get(self, name: str) -> bytes | None:
        started = time.perf_counter_ns()
        value = self._store.get(name)
        self.outcome.gets.append(time.perf_counter_ns() - started)
        return value

    def _read_function(self, name: str) -> None:
        value = self._timed_get(name)
        if value is None:
            raise WrongAnswerError(f"{name}: a miss, and it was stored before")
        if fingerprint_of(value) != self._load.warmed[name]:
            raise WrongAnswerError(f"{name}: {len(value):,} bytes that differ from those stored")

    def _read_own(self, name: str) -> None:
        value = self._timed_get(name)
        written = self.outcome.written.get(name)
        expected = None if written is None else make_value(name, *written)
        if value != expected:
            raise WrongAnswerError(f"{name}: not the value that this shell stored last: {written}")

    def _read_other(self, name: str) -> None:
        value = self._timed_get(name)
        counter = 0 if value is None else read_counter(name, value)
        oldest = max(self._seen.get(name, 0), self._load.written.get(name, (0, 0))[0])
        if counter < oldest:
            raise WrongAnswerError(f"{name}: write {counter}, after write {oldest} was seen")
        self._seen[name] = counter


def run_shells(load: Load) -> list[Outcome]:
    """Run 8 shells at once and return what each did.

    Raises WrongAnswerError for a wrong byte, ShellDiedError for a shell that had no answer at all.
    """
    context = get_context("spawn")
    start = context.Barrier(SHELLS)
    pipes = [context.Pipe(duplex=False) for _ in range(SHELLS)]
    processes = [
        context.Process(target=_run_shell, args=(number, load, start, sender))
        for number, (_, sender) in enumerate(pipes)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()
    try:
        outcomes = [_receive(receiver, load.seconds) for receiver, _ in pipes]
    finally:
        for process in processes:
            process.join(1.0)
            process.kill()
    for outcome in outcomes:
        if outcome.wrong is not None:
            raise WrongAnswerError(outcome.wrong)
    return outcomes


def _receive(receiver: Connection[Any, Any], seconds: float) -> Outcome:
    if not receiver.poll(seconds + JOIN_SECONDS):
        raise ShellDiedError(f"a shell did not finish within {seconds + JOIN_SECONDS:.0f} s")
    try:
        outcome: Outcome = receiver.recv()
    except EOFError as exc:
        raise ShellDiedError("a shell ended with the error above") from exc
    return outcome


def _run_shell(number: int, load: Load, start: Barrier, sender: Connection[Any, Any]) -> None:
    store = load.open_store()
    shell = Shell(number, load, store)
    # The first call connects: outside of what is measured, for both caches.
    store.get("_shell_opens")
    start.wait(JOIN_SECONDS)
    try:
        shell.run()
    except WrongAnswerError as error:
        shell.outcome.wrong = f"shell {number}: {error}"
    store.close()
    sender.send(shell.outcome)
