"""Processes that use a cache at once. They are started once, and work when they are told to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing import get_context
from random import Random
from typing import TYPE_CHECKING, Any, Self
from zlib import crc32

from .verdicts import BenchError, PeerFailedError, WrongBytesError
from .workload import make_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from .peers.client import Client, Peer
    from .workload import Workload

AT_ONCE = 64
START_SECONDS = 60.0
LEAD_SECONDS = 0.05
"""All begin this long after the word was given: each has had it by then."""


@dataclass(frozen=True)
class Member:
    """One of `size` processes: which cache, and what it does with it ("get" or "put")."""

    peer: Peer
    job: str
    index: int
    size: int


@dataclass(frozen=True)
class Done:
    """How often a member called, and the seconds that it took."""

    calls: int
    seconds: float


class Crew:
    """`size` processes of one job. Use it as a context."""

    def __init__(self, peer: Peer, job: str, size: int) -> None:
        """Start them. Raises PeerFailedError when one cannot open its cache."""
        context = get_context("spawn")
        self._rate = {"get": get_rate, "put": put_rate}[job]
        self._what = f"{size} processes of {peer.key}"
        self._pipes: list[Connection[Any, Any]] = []
        self._processes = []
        self._round = 0
        for index in range(size):
            ours, theirs = context.Pipe()
            member = Member(peer, job, index, size)
            process = context.Process(target=_work, args=(member, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._collect(START_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """End the processes."""
        self.close()

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5.0)
            process.kill()

    def measure(self, seconds: float) -> float:
        """Return the calls per second of all together: see `get_rate` and `put_rate`.

        Raises PeerFailedError or WrongBytesError: the crew is of no more use then.
        """
        self._round += 1
        begin = time.monotonic() + LEAD_SECONDS
        for pipe in self._pipes:
            pipe.send((self._round, begin, begin + seconds))
        return self._rate(self._collect(seconds + START_SECONDS))

    def _collect(self, seconds: float) -> list[Done]:
        deadline = time.monotonic() + seconds
        return [self._receive(pipe, deadline) for pipe in self._pipes]

    def _receive(self, pipe: Connection[Any, Any], deadline: float) -> Done:
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            raise PeerFailedError(f"one of {self._what} did not finish")
        try:
            found = pipe.recv()
        except EOFError as exc:
            raise PeerFailedError(f"one of {self._what} ended with an error") from exc
        if isinstance(found, BenchError):
            raise found
        done: Done = found
        return done


def get_rate(done: Sequence[Done]) -> float:
    """Return the sum of the members' own rates: each has a clock that stands while it checks."""
    return sum(each.calls / each.seconds for each in done)


def put_rate(done: Sequence[Done]) -> float:
    """Return all calls over the time until the last one was back.

    Not the sum of rates: of eight that wait in a line for a lock, the first to come out would count
    as if it could have gone on at that rate.
    """
    return sum(each.calls for each in done) / max(each.seconds for each in done)


def _work(member: Member, pipe: Connection[Any, Any]) -> None:
    """Answer each (round, begin, end) with what was done, or with what went wrong."""
    client = member.peer.open()
    job: Callable[..., Done] = {"get": get_many_times, "put": put_many_times}[member.job]
    workload = make_workload()
    crcs = [crc32(blob) for _, blob in workload.entries()] if member.job == "get" else []
    try:
        # Connects, and lets a client that warms up do so.
        for number in range(3):
            client.get(workload.names[number])
        pipe.send(Done(0, 0.0))
        while True:
            number, begin, end = pipe.recv()
            random = Random(number * member.size + member.index)
            time.sleep(max(0.0, begin - time.monotonic()))
            pipe.send(job(member, client, workload, crcs, random, end))
    except EOFError:
        client.close()
    except BenchError as exc:
        pipe.send(exc)
    except member.peer.errors as exc:
        pipe.send(PeerFailedError(f"{member.peer.key}: {exc}"))


def get_many_times(
    member: Member, client: Client, workload: Workload, crcs: list[int], random: Random, end: float
) -> Done:
    """Get until the time is over; the clock stands while answers are checked."""
    count, taken, get = 0, 0.0, client.get
    everything = range(len(workload))
    while time.monotonic() < end:
        numbers = random.choices(everything, k=AT_ONCE)
        names = [workload.names[number] for number in numbers]
        started = time.perf_counter()
        blobs = [get(name) for name in names]
        taken += time.perf_counter() - started
        count += AT_ONCE
        for number, blob in zip(numbers, blobs, strict=True):
            if blob is None or crc32(blob) != crcs[number]:
                raise WrongBytesError(
                    f"{member.peer.key}: wrong bytes for {workload.names[number]}"
                )
    return Done(count, taken)


def put_many_times(
    member: Member, client: Client, workload: Workload, _crcs: object, random: Random, end: float
) -> Done:
    """Put until the time is over, to names of this process only; read the last one back."""
    put = client.put
    assert put is not None, "only caches that can be written are asked to"
    mine = range(member.index, len(workload), member.size)
    count, started, number, blob = 0, time.perf_counter(), 0, None
    while time.monotonic() < end:
        number = random.choice(mine)
        blob = workload.blob(number, random.getrandbits(32))
        put(workload.names[number], blob)
        count += 1
    taken = time.perf_counter() - started
    if blob is not None and client.get(workload.names[number]) != blob:
        raise WrongBytesError(f"{member.peer.key}: {workload.names[number]} is not as it was put")
    return Done(count, taken)
