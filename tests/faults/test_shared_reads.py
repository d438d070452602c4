"""Shared reads are linearizable, through builds, restarts and kills: what a page is for."""

from __future__ import annotations

import os
import random
import sys
import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.errors import CacheError

from ..running import get_locally
from .shared_history import ABSENT, Board, Read, Writes, blob_of, number_of, reads_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from autoloadd_client import Cache

    from ..running import Daemon
    from .report import FaultCase

NAMES = 64
READERS = 8
FILLER = {f"filler-{number}": bytes(50_000) for number in range(30)}


def name_of(name: int) -> str:
    return f"name-{name}"


def read_until_over(daemon: Daemon, board: Board, target: Path, seed: int) -> None:
    """Read random names, and note what came back."""
    generator = random.Random(seed)
    with daemon.cache(timeout=2.0) as cache, target.open("wb") as file:
        while not board.is_over:
            name = generator.randrange(NAMES)
            before = board.acknowledged(name)
            began = time.monotonic_ns()
            try:
                is_local, blob = get_locally(cache, name_of(name))
            except CacheError:
                # No daemon at the moment; nothing was read.
                continue
            ended = time.monotonic_ns()
            after = board.begun(name)
            number = number_of(blob)
            file.write(Read(name, before, after, number, is_local, began, ended).pack())
            # Readers of which each takes a whole processor would leave none for the daemon.
            time.sleep(0.0002)


def fork(run: Callable[[], None]) -> int:
    """Run something in a child; it ends with 0 if nothing was raised."""
    child = os.fork()
    if child:
        return child
    try:
        run()
        os._exit(0)
    except BaseException as exc:  # noqa: BLE001  # the child's last words
        sys.stderr.write(f"reader: {exc!r}\n")
        os._exit(1)


class Writer:
    """Writes one thing after another until each is acknowledged, whatever the daemon does."""

    def __init__(self, cache: Cache, board: Board) -> None:
        self.writes = Writes(NAMES)
        self.number = 0
        self._cache = cache
        self._board = board

    def write(self, generator: random.Random) -> None:
        self.number += 1
        chosen = generator.random()
        some = [generator.randrange(NAMES) for _ in range(4)]
        if chosen < 0.80:
            self._store(some[:1], lambda e: self._cache.put(*e.popitem()))
        elif chosen < 0.88:
            self._store(some, self._cache.put_many)
        elif chosen < 0.95:
            self._remove(some, lambda: self._cache.delete([name_of(name) for name in some]))
        elif chosen < 0.97:
            self._remove(range(NAMES), self._cache.clear)
        else:
            self._store(range(NAMES), self._cache.replace)

    def _store(self, names: Iterator[int] | list[int] | range, put: Callable[..., object]) -> None:
        entries = {name_of(name): blob_of(self.number) for name in names}
        self._carry_out(dict.fromkeys(names, self.number), lambda: put(dict(entries)))

    def _remove(self, names: list[int] | range, remove: Callable[[], object]) -> None:
        self._carry_out(dict.fromkeys(names, ABSENT), remove)

    def _carry_out(self, states: dict[int, int], write: Callable[[], object]) -> None:
        self.writes.note(self.number, states)
        self._board.begin(states, self.number)
        while True:
            try:
                write()
                break
            except CacheError:
                # Nobody else writes: to write it again is to write it once.
                continue
        self._board.acknowledge(states, self.number)


@pytest.mark.parametrize("end", ["kill", "restart"])
def test_eight_readers_see_every_acknowledged_write(
    daemon: Daemon, cache: Cache, case: FaultCase, effort: int, tmp_path: Path, end: str
) -> None:
    case.unit = "shared reads"
    board = Board(NAMES)
    files = [tmp_path / f"reads-{number}" for number in range(READERS)]
    readers = [
        fork(lambda seed=seed, file=file: read_until_over(daemon, board, file, seed))  # type: ignore[misc]
        for seed, file in enumerate(files)
    ]
    writer, generator = Writer(cache, board), random.Random(end)
    for life in range(3 * effort):
        if life:
            daemon.kill() if end == "kill" else daemon.stop()
            started = time.monotonic()
            daemon.start()
            case.recovered(time.monotonic() - started)
        write_through_builds(daemon, cache, writer, generator)
    board.end()
    ends = [os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) for reader in readers]
    assert ends == [0] * READERS, "a reader saw torn bytes, or broke"
    reads = [read for file in files for read in reads_in(file)]
    wrong = [read for read in reads if not writer.writes.explains(read)]
    case.explored = sum(read.local for read in reads)
    case.wrong = len(wrong)
    assert not wrong, wrong[:5]
    inversion = writer.writes.first_inversion(reads)
    assert inversion is None, "a reader saw what was before something that another had seen"
    assert case.explored > 500, "too few reads came from shared memory to tell anything"


def write_through_builds(
    daemon: Daemon, cache: Cache, writer: Writer, generator: random.Random
) -> None:
    """Write until two images were built, which readers then map."""
    for wanted in (1, 2):
        while daemon.status()["counters"].get("builds", 0) < wanted:
            for _ in range(25):
                writer.write(generator)
            cache.merge(FILLER)
        for _ in range(100):
            writer.write(generator)
            time.sleep(0.004)


def test_the_history_tells_old_from_new() -> None:
    writes = Writes(1)
    writes.note(1, {0: 1})
    writes.note(2, {0: ABSENT})
    writes.note(3, {0: 3})
    assert writes.explains(Read(0, 0, 0, ABSENT, 1))
    assert writes.explains(Read(0, 1, 1, 1, 1))
    assert writes.explains(Read(0, 1, 2, 1, 1))
    assert writes.explains(Read(0, 1, 2, ABSENT, 1))
    assert not writes.explains(Read(0, 2, 2, 1, 1)), "an old value after an acknowledged delete"
    assert not writes.explains(Read(0, 1, 2, 3, 1)), "a value from the future"
    assert not writes.explains(Read(0, 1, 1, ABSENT, 1)), "a miss of what was acknowledged"


def test_the_history_tells_what_was_seen_before() -> None:
    writes = Writes(1)
    for number in (1, 3):
        writes.note(number, {0: number})
        writes.note(number + 1, {0: ABSENT})
    old, new = Read(0, 0, 4, 1, 1, 5, 9), Read(0, 0, 4, 3, 1, 1, 3)
    assert writes.first_inversion([new, old]) == old
    assert writes.first_inversion([new._replace(ended_ns=6), old]) is None, "at the same time"
    assert writes.first_inversion([old._replace(began_ns=0, ended_ns=0), new]) is None
    # A miss may be the second one's.
    assert writes.first_inversion([new, old._replace(found=ABSENT)]) is None
    late = old._replace(began_ns=10, ended_ns=11)
    assert writes.first_inversion([new, old._replace(found=ABSENT), late]) == late
