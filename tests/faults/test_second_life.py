"""Crash, start again, write, crash again: what recovery leaves must bear another crash.

Also while recovery itself is at work, and where it finds damage: what it gives then must be the
same after however many crashes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from .engine import new_histories, running_engine
from .exploring import Bounds, Explorer, Promises, lay_out
from .recording import RecordingFiles
from .test_crash_states import record, schedules
from .workloads import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .disk_model import Operation, State
    from .engine import Contents, Engine
    from .report import FaultCase
    from .turnstile import Schedule
    from .workloads import Workload

CRASHES = 2
"""Of each workload, times the effort: half of them kills."""

EVERY = 0.1


async def go_on(engine: Engine) -> None:
    """Write as if nothing had happened."""
    await engine.put({"life": b"second"}, "fsync")
    await engine.delete("n0", "a")
    engine.begin_build()
    await engine.put({"during": b"second life"})
    await engine.finish_build()
    await engine.bulk("merge", {"bulk": b"second" * 900})
    await engine.flush()
    await engine.put({"last": b"second"})


@dataclass(frozen=True)
class Crash:
    """What a crash left: a log, up to it, with the files' inodes if it was a kill."""

    state: State
    log: Sequence[Operation]
    names: dict[str, int] | None


def crash_at(log: Sequence[Operation], step: int, explorer: Explorer, *, kill: bool) -> Crash:
    """Crash after an operation."""
    for operation in log[: step + 1]:
        explorer.disk.apply(operation)
    state, _ = explorer.generator.choice(list(explorer.states(6))[1:])
    if kill:
        names = explorer.disk.names_after_kill()
        return Crash(explorer.disk.after_kill(), log[: step + 1], names)
    return Crash(state, (), None)


def start_over(crash: Crash, found: dict[str, Contents], promises: Promises) -> Promises:
    """Return what is promised from now on: what was found, and what was synced before a kill."""
    histories = new_histories()
    bounds = {}
    for shard in {*promises.bounds, *found}:
        contents = found.get(shard, {})
        position = promises.position(shard, contents, power_lost=crash.names is None)
        histories[shard] = promises.histories[shard][: position + 1]
        synced = position if crash.names is None else promises.bounds[shard].synced
        bounds[shard] = Bounds(synced, position, position)
    return Promises(histories, bounds)


async def live_again(
    crash: Crash, promises: Promises, explorer: Explorer, cache_dir: Path, schedule: Schedule
) -> tuple[list[Operation], int]:
    """Run a second life on what a crash left; return the whole log, and where this life begins."""
    lay_out(crash.state, cache_dir, cache_dir)
    files = RecordingFiles()
    if crash.names is None:
        files.adopt(str(cache_dir))
    else:
        files.go_on(crash.log, crash.names)
    begin = len(files.log)
    async with running_engine(files, str(cache_dir), schedule, promises.histories) as engine:
        await go_on(engine)
        engine.check_contents()
    for operation in files.log[:begin]:
        explorer.disk.apply(operation)
    return files.log, begin


@pytest.mark.parametrize("workload", PLAIN)
async def test_a_second_life(
    workload: Workload, tmp_path: Path, case: FaultCase, effort: int
) -> None:
    case.name = "crash, recovery, writes, another crash"
    generator = random.Random(workload.__name__)
    for number in range(CRASHES * effort):
        schedule = generator.choice(schedules(effort=1))
        cache_dir, scratch = tmp_path / f"cache-{number}", tmp_path / "scratch"
        log, histories = await record(workload, cache_dir, schedule)
        first, second = (Explorer(case, cache_dir, scratch, seed) for seed in (number, number + 1))
        step = generator.randrange(len(log))
        crash = crash_at(log, step, first, kill=number % 2 == 0)
        before = Promises(histories)
        for operation in log[: step + 1]:
            before.apply(operation)
        promises = start_over(crash, first.recover(crash.state), before)
        log, begin = await live_again(crash, promises, second, cache_dir, schedule)
        where = f"{workload.__name__}, {schedule}, crash {number} after {step}, second life"
        second.explore(log[begin:], promises, where, every=EVERY, states=1)
        second.crash(promises, f"{where}, at its end")
    assert case.lost == case.wrong == 0


def damaged(state: State, generator: random.Random) -> State:
    """Return a state with a byte of one of its files changed, or the file's end cut off."""
    sizes = [i for i, (_, data) in enumerate(state.files) if data]
    chosen = generator.choice(sizes)
    path, data = state.files[chosen]
    at = generator.randrange(len(data))
    changed = data[:at] + bytes([data[at] ^ (1 << generator.randrange(8))]) + data[at + 1 :]
    files = list(state.files)
    files[chosen] = (path, data[:at] if generator.random() < 0.3 else changed)
    return replace(state, files=tuple(files))


@pytest.mark.parametrize("workload", PLAIN)
async def test_damage_and_then_a_crash(
    workload: Workload, tmp_path: Path, case: FaultCase, effort: int
) -> None:
    case.name = "damage, recovery, and a crash of it"
    generator = random.Random(workload.__name__)
    cache_dir, scratch = tmp_path / "cache", tmp_path / "scratch"
    schedule = schedules(effort=1)[0]
    log, histories = await record(workload, cache_dir, schedule)
    known = {item for states in histories.values() for s in states for item in s.items()}
    for number in range(CRASHES * effort):
        first, second = (Explorer(case, cache_dir, scratch, seed) for seed in (number, number + 1))
        crash = crash_at(log, generator.randrange(len(log) // 2, len(log)), first, kill=False)
        if not any(data for _, data in crash.state.files):
            continue
        crash = replace(crash, state=damaged(crash.state, generator))
        found = first.recover(crash.state)
        case.wrong += sum(item not in known for s in found.values() for item in s.items())
        kept = new_histories()
        kept.update({shard: [contents] for shard, contents in found.items()})
        promises = Promises(kept, {shard: Bounds() for shard in found})
        log_again, begin = await live_again(crash, promises, second, cache_dir, schedule)
        where = f"{workload.__name__}, damage {number}"
        second.explore(log_again[begin:], promises, where, every=EVERY, states=1)
    assert case.lost == case.wrong == 0
