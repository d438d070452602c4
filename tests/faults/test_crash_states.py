"""After a crash at any moment nothing acknowledged is lost, and nothing half-done is seen.

Every operation of a workload is a crash point; from each, the states that the disk may be in are
enumerated and given to the real recovery. What it finds must be the shard after some number of the
writes: at least all that were acknowledged as strongly as the crash demands, at most all that were
submitted. A prefix, so that order is kept too.
"""

from __future__ import annotations

import errno
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.storage.files import Files

from .disk_model import Acknowledged, Disk, State, Submitted
from .engine import Engine, read_back, running_engine
from .recording import RecordingFiles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from .disk_model import Operation
    from .engine import Contents

    Workload = Callable[[Engine], Awaitable[None]]

RANDOM_STATES = 6
LARGE = 3000


async def puts_and_deletes(engine: Engine) -> None:
    await engine.put({"a": b"a1", "b": b"b1" * LARGE})
    await engine.put({"a": b"a2"}, "fsync")
    await engine.delete("b")
    await engine.put({f"n{i}": bytes([i]) * 50 for i in range(20)}, "fsync")
    await engine.delete("n3", "n4", sync="fsync")
    await engine.put({"a": b"a3"})


async def a_build_under_way(engine: Engine) -> None:
    await engine.put({f"n{i}": bytes([i]) * LARGE for i in range(8)}, "fsync")
    engine.begin_build()
    await engine.put({"n0": b"newer"}, "fsync")
    await engine.delete("n1", sync="fsync")
    await engine.put({"late": b"late"})
    await engine.finish_build()
    await engine.put({"n2": b"after"}, "fsync")
    engine.begin_build()
    await engine.finish_build()
    await engine.put({"n3": b"last"})


async def a_sync_while_older_writes_are_unsynced(engine: Engine) -> None:
    await engine.put({f"n{i}": bytes([i]) * LARGE for i in range(8)})
    engine.begin_build()
    await engine.put({"n0": b"newer"}, "fsync")
    await engine.finish_build()
    await engine.put({"n1": b"last"})


async def a_covered_journal_that_stays(engine: Engine) -> None:
    await engine.put({f"n{i}": bytes([i]) * LARGE for i in range(8)})
    engine.begin_build()
    await engine.put({"during": b"during"})
    engine.files.fail("remove", until_healed=True)
    await engine.finish_build()
    # The image holds what the first journal held: from now on nobody syncs that one.
    await engine.put({"n0": b"newer"}, "fsync")
    await engine.put({"n1": b"last"})


async def clear_during_a_build(engine: Engine) -> None:
    await engine.put({f"n{i}": bytes([i]) * LARGE for i in range(8)}, "fsync")
    engine.begin_build()
    await engine.clear("fsync")
    await engine.put({"only": b"this"}, "fsync")
    await engine.finish_build()
    await engine.put({"and": b"that"})


async def bulks(engine: Engine) -> None:
    await engine.put({"a": b"a1", "b": b"b1"}, "fsync")
    await engine.bulk("merge", {"b": b"b2" * LARGE, "c": b"c1"})
    await engine.bulk("merge", {"d": b"d1"}, "fsync")
    engine.begin_build()
    await engine.bulk("replace", {"x": b"x1" * LARGE, "y": b"y1"}, "fsync")
    await engine.finish_build()
    await engine.put({"z": b"z1"}, "fsync")
    await engine.bulk("replace", {"w": b"w1"})


async def drop_and_begin_again(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    engine.begin_build()
    await engine.drop()
    await engine.put({"b": b"b1"}, "fsync")
    await engine.drop()
    await engine.put({"c": b"c1"}, "fsync")


async def a_full_disk(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    engine.files.fail("append", errno.ENOSPC)
    assert not await engine.put({"b": b"refused" * LARGE})
    assert await engine.put({"c": b"c1"}, "fsync")
    engine.files.fail("create_for_image", errno.ENOSPC)
    engine.begin_build()
    await engine.finish_build()
    assert await engine.put({"d": b"d1"}, "fsync")


async def a_failed_sync(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    await engine.put({"b": b"b1" * LARGE})
    engine.files.fail("sync_data")
    assert not await engine.put({"c": b"refused"}, "fsync")
    assert not await engine.flush()
    engine.builder.heal()
    engine.writer.turn()
    await engine.finish_build()
    assert await engine.put({"d": b"d1"}, "fsync")


WORKLOADS: list[Workload] = [
    puts_and_deletes,
    a_build_under_way,
    a_sync_while_older_writes_are_unsynced,
    a_covered_journal_that_stays,
    clear_during_a_build,
    bulks,
    drop_and_begin_again,
    a_full_disk,
    a_failed_sync,
]


async def record(workload: Workload, cache_dir: Path) -> tuple[list[Operation], list[Contents]]:
    """Run a workload; return its log, and the shard's contents after each write."""
    files = RecordingFiles()
    async with running_engine(files, str(cache_dir)) as engine:
        await workload(engine)
        assert engine.contents() == engine.states[-1]
    return files.log, engine.states


def check(
    state: State, allowed: Sequence[Contents], cache_dir: Path, scratch: Path, where: str
) -> None:
    """Recover from a state, and see that what is found is allowed; then once more."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    state.write_to(scratch, str(cache_dir))
    found = read_back(Files(), str(scratch))
    assert found in allowed, f"{where}: found {found.keys()}"
    assert read_back(Files(), str(scratch)) == found, f"{where}: the second start differs"


@pytest.mark.parametrize("workload", WORKLOADS)
async def test_no_crash_loses_what_was_acknowledged(workload: Workload, tmp_path: Path) -> None:
    cache_dir, scratch = tmp_path / "cache", tmp_path / "scratch"
    cache_dir.mkdir(mode=0o700)
    log, states = await record(workload, cache_dir)
    generator = random.Random(0)
    disk = Disk(str(cache_dir))
    submitted = written = synced = explored = 0
    for step, operation in enumerate(log):
        disk.apply(operation)
        if isinstance(operation, Submitted):
            submitted = operation.number
        elif isinstance(operation, Acknowledged) and operation.level is not None:
            written = operation.number
            synced = operation.number if operation.level == "fsync" else synced
        where = f"{workload.__name__}, after operation {step} ({operation!r:.60})"
        after_kill = states[written : submitted + 1]
        check(disk.after_kill(), after_kill, cache_dir, scratch, f"{where}, killed")
        for state in disk.crash_states(generator, RANDOM_STATES):
            after_power_loss = states[synced : submitted + 1]
            check(state, after_power_loss, cache_dir, scratch, f"{where}, power lost")
            explored += 1
    assert explored > 10 * len(log)
