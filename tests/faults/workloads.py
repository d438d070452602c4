"""What the daemon's storage is made to do while disks fail and power is lost.

Those in PLAIN ask nothing of the outcome, so that faults can be put anywhere in them. The others
have a fault of their own and say how it must end, or evict at moments of their own.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from .engine import OTHER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .engine import Engine

    Workload = Callable[[Engine], Awaitable[None]]

LARGE = 3000


def many(count: int, size: int = LARGE) -> dict[str, bytes]:
    """Return entries `n0` to `n{count - 1}`."""
    return {f"n{i}": bytes([i]) * size for i in range(count)}


async def puts_and_deletes(engine: Engine) -> None:
    await engine.put({"a": b"a1", "b": b"b1" * LARGE})
    await engine.put({"a": b"a2"}, "fsync")
    await engine.delete("b")
    await engine.put(many(20, 50), "fsync")
    await engine.delete("n3", "n4", sync="fsync")
    await engine.put({"a": b"a3"})


async def a_build_under_way(engine: Engine) -> None:
    await engine.put(many(8), "fsync")
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
    await engine.put(many(8))
    engine.begin_build()
    await engine.put({"n0": b"newer"}, "fsync")
    await engine.finish_build()
    await engine.put({"n1": b"last"})


async def a_sync_in_the_background(engine: Engine) -> None:
    await engine.put(many(3))
    engine.sync_in_background()
    await engine.put({"n0": b"while it runs"})
    await engine.delete("n1")
    await engine.put({"n2": b"forced"}, "fsync")
    engine.sync_in_background()
    engine.begin_build()
    await engine.put({"n0": b"newer"})
    engine.sync_in_background()
    await engine.finish_build()
    await engine.flush()
    await engine.put({"n1": b"last"})


async def clear_during_a_build(engine: Engine) -> None:
    await engine.put(many(8), "fsync")
    engine.begin_build()
    await engine.clear("fsync")
    await engine.put({"only": b"this"}, "fsync")
    await engine.finish_build()
    await engine.put({"and": b"that"})


async def replace_during_a_build(engine: Engine) -> None:
    await engine.put(many(8), "fsync")
    engine.begin_build()
    await engine.bulk("replace", {"x": b"x1" * LARGE, "n1": b"n1"}, "fsync")
    await engine.delete("x")
    await engine.finish_build()
    await engine.put({"y": b"y1"}, "fsync")


async def builds_over_one_another(engine: Engine) -> None:
    for turn in range(3):
        await engine.put({f"n{turn}": bytes([turn]) * LARGE, "same": bytes([turn])})
        engine.begin_build()
        await engine.delete(f"n{turn - 1}")
        await engine.put({"during": bytes([turn])}, "fsync" if turn == 1 else "write")
        await engine.finish_build()
    await engine.put({"last": b"last"}, "fsync")


async def bulks(engine: Engine) -> None:
    await engine.put({"a": b"a1", "b": b"b1"}, "fsync")
    await engine.bulk("merge", {"b": b"b2" * LARGE, "c": b"c1"})
    await engine.bulk("merge", {"d": b"d1"}, "fsync")
    engine.begin_build()
    await engine.bulk("replace", {"x": b"x1" * LARGE, "y": b"y1"}, "fsync")
    await engine.finish_build()
    await engine.put({"z": b"z1"}, "fsync")
    await engine.bulk("replace", {"w": b"w1"})


async def a_bulk_whose_journal_ended(engine: Engine) -> None:
    await engine.bulk("merge", many(2))
    engine.begin_build()
    await engine.put({"during": b"during"})
    await engine.bulk("merge", {"n1": b"newer", "m": b"m" * LARGE})
    await engine.flush()
    await engine.finish_build()
    await engine.bulk("merge", {"n0": b"newest"})
    engine.begin_build()
    await engine.put({"forced": b"forced"}, "fsync")
    await engine.finish_build()


async def drop_and_begin_again(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    engine.begin_build()
    await engine.drop()
    await engine.put({"b": b"b1"}, "fsync")
    await engine.drop()
    await engine.put({"c": b"c1"}, "fsync")


async def drop_during_a_build(engine: Engine) -> None:
    await engine.put(many(4))
    await engine.bulk("merge", {"bulk": b"b" * LARGE})
    engine.begin_build()
    await engine.put({"n0": b"newer"}, "fsync")
    await engine.drop()
    await engine.put({"new": b"life"})
    engine.begin_build()
    await engine.put({"new": b"newer"}, "fsync")
    await engine.finish_build()


async def two_shards_in_a_batch(engine: Engine) -> None:
    for turn in range(3):
        await engine.carry_out(
            engine.asked_to_put({"a": bytes([turn]) * LARGE}),
            engine.asked_to_put({"a": bytes([turn])}, "fsync" if turn else "write", OTHER),
        )
    engine.begin_build()
    await engine.carry_out(
        engine.asked_to_put({"b": b"b1"}, "fsync"),
        engine.asked_to_put({"b": b"b2"}, producer=OTHER),
    )
    await engine.finish_build()
    await engine.carry_out(
        engine.asked_to_put({"c": b"c1"}, producer=OTHER), engine.asked_to_put({"c": b"c2"})
    )


async def writes_that_wait_for_a_sync(engine: Engine) -> None:
    await engine.put({"a": b"a0"})
    for turn in range(2):
        first = engine.asked_to_put({"a": b"a1", "b": bytes([turn]) * LARGE}, "fsync")
        second = engine.asked_to_put({"a": bytes([turn])})
        third = engine.asked_to_put({"c": bytes([turn])}, "fsync")
        await engine.submit(first)
        engine.sync_in_background()
        await engine.submit(second)
        await engine.submit(third)
        await engine.answer(first, second, third)
        engine.begin_build()
    await engine.delete("a")


async def eviction(engine: Engine) -> None:
    for name in "abcd":
        await engine.put({name: name.encode() * (10 * LARGE)})
    await engine.evict(35 * LARGE)
    await engine.put({"after": b"after"}, "fsync")
    await engine.put({"a": b"again"})


async def a_covered_journal_that_stays(engine: Engine) -> None:
    await engine.put(many(8))
    engine.begin_build()
    await engine.put({"during": b"during"})
    engine.files.fail("remove", until_healed=True)
    await engine.finish_build()
    # The image holds what the first journal held: from now on nobody syncs that one.
    assert await engine.put({"n0": b"newer"}, "fsync")
    assert await engine.put({"n1": b"last"})


async def a_full_disk(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    engine.files.fail("append", errno.ENOSPC)
    assert not await engine.put({"b": b"refused" * LARGE})
    assert await engine.put({"c": b"c1"}, "fsync")
    engine.files.fail("append", errno.ENOSPC, until_healed=True)
    assert not await engine.put({"a": b"refused" * LARGE}, "fsync")
    assert not await engine.delete("c")
    engine.begin_build()
    await engine.finish_build()
    engine.files.heal()
    await engine.try_to_heal()
    assert await engine.put({"d": b"d1"}, "fsync")


async def a_full_disk_that_cannot_be_cut_back(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    await engine.put({"b": b"b1"})
    engine.files.fail("append", errno.ENOSPC)
    engine.files.fail("truncate")
    assert not await engine.put({"b": b"refused" * LARGE})
    assert not await engine.put({"c": b"refused"})
    await engine.try_to_heal()
    assert await engine.put({"d": b"d1"}, "fsync")


async def a_failed_sync(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    await engine.put({"b": b"b1" * LARGE})
    engine.files.fail("sync_data", on="journal")
    assert not await engine.put({"c": b"refused"}, "fsync")
    assert not await engine.flush()
    await engine.try_to_heal()
    assert await engine.put({"d": b"d1"}, "fsync")


async def a_failed_sync_in_the_background(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    await engine.put({"b": b"b1" * LARGE})
    engine.files.fail("sync_data", on="journal")
    engine.sync_in_background()
    await engine.put({"perhaps": b"taken"})
    assert not await engine.flush()
    await engine.try_to_heal()
    assert await engine.put({"d": b"d1"}, "fsync")


async def a_lack_of_descriptors(engine: Engine) -> None:
    for turn in (b"1", b"2"):
        refused = engine.asked_to_put({"a": b"refused" + turn}, "fsync")
        engine.files.fail("sync_directory", errno.EMFILE, on="zsh")
        await engine.submit(refused)
        # It waits behind the sync that fails, and must not take in what is refused there.
        engine.sync_in_background()
        assert not await engine.answer(refused)
        engine.files.fail("reopen", errno.EMFILE, on="bulk", until_healed=True)
        assert not await engine.bulk("merge", {"b": b"refused" + turn}, "fsync")
        engine.files.heal()
        await engine.try_to_heal()
        assert await engine.put({"a": b"stored." + turn}, "fsync")
        engine.begin_build()
        await engine.finish_build()


async def a_failed_sync_of_a_bulk(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    engine.files.fail("sync_data", on="bulk")
    assert not await engine.bulk("replace", {"b": b"refused" * LARGE}, "fsync")
    await engine.try_to_heal()
    assert await engine.bulk("merge", {"c": b"c1" * LARGE}, "fsync")


async def a_failed_sync_of_the_directory(engine: Engine) -> None:
    engine.files.fail("sync_directory")
    assert not await engine.put({"a": b"refused"}, "fsync")
    await engine.try_to_heal()
    assert await engine.put({"b": b"b1"}, "fsync")
    engine.begin_build()
    engine.files.fail("sync_directory")
    await engine.finish_build()
    assert await engine.put({"c": b"c1"}, "fsync")


async def a_drop_that_does_not_last(engine: Engine) -> None:
    await engine.put({"a": b"a1"}, "fsync")
    engine.files.fail("sync_directory")
    assert not await engine.drop()
    # Whether it is taken or not: the directory's name is not on stable storage.
    await engine.put({"b": b"b1"}, "fsync")
    await engine.try_to_heal()
    assert await engine.put({"c": b"c1"}, "fsync")
    assert await engine.drop()
    assert await engine.put({"d": b"d1"}, "fsync")


async def images_that_fail(engine: Engine) -> None:
    await engine.put(many(4))
    for method in ("create_for_image", "append", "sync", "rename", "sync_directory"):
        on = "" if method == "sync_directory" else "image"
        engine.files.fail(method, errno.ENOSPC, on=on)
        engine.begin_build()
        await engine.finish_build()
        assert await engine.put({method: b"stored"}, "fsync")
    engine.begin_build()
    await engine.delete("n1")
    await engine.finish_build()
    assert await engine.put({"last": b"last"}, "fsync")


PLAIN: list[Workload] = [
    puts_and_deletes,
    a_build_under_way,
    a_sync_while_older_writes_are_unsynced,
    a_sync_in_the_background,
    clear_during_a_build,
    replace_during_a_build,
    builds_over_one_another,
    bulks,
    a_bulk_whose_journal_ended,
    drop_and_begin_again,
    drop_during_a_build,
    two_shards_in_a_batch,
]

OTHERS: list[Workload] = [
    a_covered_journal_that_stays,
    a_full_disk,
    a_full_disk_that_cannot_be_cut_back,
    a_failed_sync,
    a_failed_sync_in_the_background,
    a_lack_of_descriptors,
    a_failed_sync_of_a_bulk,
    a_failed_sync_of_the_directory,
    a_drop_that_does_not_last,
    images_that_fail,
    writes_that_wait_for_a_sync,
    eviction,
]
