"""A real daemon against a dict: whatever is done in whatever order, restarts and kills included.

One daemon serves all examples, each with a producer of its own, so what earlier examples left is
there when it is killed. Thousands of steps more are in `test_state_machine_of_a_shard.py`.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from autoloadd_client import Cache, Entry

from ..running import Daemon, private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .report import FaultCase

EXAMPLES = 6
STEPS = 40
TIMES = (None, 5, 10)
"""Each has a client: one whose binary is not dated, one of an older and one of a newer binary."""

# Long texts are made of a character and a length: what fails is printed in a few lines.
NAMES = st.one_of(
    st.sampled_from(["a", "b", "ab", "é", "n\0n"]),
    st.sampled_from([39, 40, 1024]).map(lambda size: "x" * size),
)
FINGERPRINTS = st.sampled_from([None, 1, 2, 1024]).map(lambda size: size and b"f" * size)
BLOBS = st.one_of(
    st.binary(max_size=40), st.sampled_from([255, 256, 70_000]).map(lambda size: b"z" * size)
)
CLIENTS = st.sampled_from(TIMES)
SYNC = st.sampled_from(["write", "write", "fsync"])
LARGE = {f"large {number}": number for number in range(4)}


class Stored(NamedTuple):
    """An entry as the model has it; times in ns."""

    blob: bytes
    fingerprint: bytes | None
    mtime: int

    def is_fresh(self, mtime: int | None, fingerprint: bytes | None) -> bool:
        """Tell whether it answers a `get` with these."""
        in_time = mtime is None or self.mtime >= mtime
        return in_time and fingerprint in (None, self.fingerprint)


ENTRIES = st.dictionaries(
    NAMES,
    st.builds(Stored, BLOBS, FINGERPRINTS, st.sampled_from([0, 4, 5, 9, 10, 2**63 - 1, -(2**63)])),
    max_size=6,
)
WANTED = st.tuples(NAMES, FINGERPRINTS, st.sampled_from(TIMES))
producers = count(1)


def entries_of(stored: dict[str, Stored]) -> dict[str, Entry]:
    """Return what `put_many` takes for entries of the model."""
    return {
        name: Entry(each.blob, each.fingerprint, each.mtime, cached_at_ns=7)
        for name, each in stored.items()
    }


class Machine(RuleBasedStateMachine):
    """Every rule does the same to the daemon and to `model`, and compares what comes back."""

    daemon: Daemon
    case: FaultCase

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Stored] = {}
        self.producer = f"machine/{next(producers)}/8"
        self.caches = {
            time: self.daemon.cache(self.producer, binary_mtime_ns=time) for time in TIMES
        }
        self.generation = 0
        self.case.explored += 1

    @property
    def any_client(self) -> Cache:
        return self.caches[None]

    def changed(self, generation: int | None) -> None:
        """Note an acknowledged change: generations only grow."""
        assert generation is not None
        assert generation > self.generation
        self.generation = generation

    # Writing

    @rule(time=CLIENTS, name=NAMES, blob=BLOBS, fingerprint=FINGERPRINTS, sync=SYNC)
    def put(
        self, time: int | None, name: str, blob: bytes, fingerprint: bytes | None, sync: str
    ) -> None:
        self.changed(self.caches[time].put(name, blob, fingerprint=fingerprint, sync=sync))
        self.model[name] = Stored(blob, fingerprint, time or 0)

    @rule(time=CLIENTS, name=NAMES, blob=BLOBS)
    def put_and_go(self, time: int | None, name: str, blob: bytes) -> None:
        cache = self.caches[time]
        assert cache.put(name, blob, wait=False) is None
        self.model[name] = Stored(blob, None, time or 0)
        self.settle(cache)

    def settle(self, cache: Cache) -> None:
        """Wait for notifications: only their own connection sees them for sure."""
        flushed = cache.flush()
        assert flushed[1:] == (0, None, 0)
        self.generation = flushed.generation

    @rule(time=CLIENTS, entries=ENTRIES, sync=SYNC)
    def put_many(self, time: int | None, entries: dict[str, Stored], sync: str) -> None:
        self.changed(self.caches[time].put_many(entries_of(entries), sync=sync))
        self.model |= entries

    @rule(time=CLIENTS, entries=ENTRIES)
    def merge(self, time: int | None, entries: dict[str, Stored]) -> None:
        self.changed(self.caches[time].merge(entries_of(entries).items()))
        self.model |= entries

    @rule(time=CLIENTS, entries=ENTRIES, built_at=st.sampled_from([None, 1, 2**62]), sync=SYNC)
    def replace(
        self, time: int | None, entries: dict[str, Stored], built_at: int | None, sync: str
    ) -> None:
        cache = self.caches[time]
        self.changed(cache.replace(entries_of(entries), built_at_ns=built_at, sync=sync))
        self.model = dict(entries)

    @rule(fill=st.binary(min_size=1, max_size=1))
    def put_so_much_that_an_image_is_built(self, fill: bytes) -> None:
        stored = {name: Stored(fill * 300_000, None, 0) for name in LARGE}
        self.changed(self.any_client.merge({name: each.blob for name, each in stored.items()}))
        self.model |= stored

    @rule(names=st.lists(NAMES, max_size=3), sync=SYNC)
    def delete(self, names: list[str], sync: str) -> None:
        assert self.any_client.delete(names, sync=sync) == len(self.model.keys() & set(names))
        self.model = {name: each for name, each in self.model.items() if name not in names}

    @rule(time=CLIENTS, name=NAMES)
    def delete_and_go(self, time: int | None, name: str) -> None:
        self.caches[time].delete(name, wait=False)
        self.model.pop(name, None)
        self.settle(self.caches[time])

    @rule(sync=SYNC)
    def clear(self, sync: str) -> None:
        assert self.any_client.clear(sync=sync) == len(self.model)
        self.model = {}

    @rule()
    def drop(self) -> None:
        for shard in self.any_client.shards():
            if shard["producer"]["version"] == self.producer.split("/")[1]:
                self.any_client.drop_shard(shard["id"])
        self.model = {}
        self.generation = 0

    @rule(entries=ENTRIES)
    def give_a_replace_up(self, entries: dict[str, Stored]) -> None:
        """What is staged and not committed is never seen."""
        with self.daemon.connect() as client:
            name, version, _ = self.producer.split("/")
            client.hello({"name": name, "version": version, "pointer_width": 8})
            token = client.ok("bulk_begin", "replace")
            client.ok("bulk_add", token, {name: [each.blob] for name, each in entries.items()})

    # Reading

    @rule(time=CLIENTS, name=NAMES, fingerprint=FINGERPRINTS)
    def get(self, time: int | None, name: str, fingerprint: bytes | None) -> None:
        found = self.caches[time].get_entry(name, fingerprint=fingerprint)
        stored = self.model.get(name)
        if stored is None or not stored.is_fresh(time, fingerprint):
            assert found is None
        else:
            assert found is not None
            assert (found.blob, found.fingerprint, found.binary_mtime_ns) == stored

    @rule(time=CLIENTS, wanted=st.lists(WANTED, max_size=5))
    def missing(self, time: int | None, wanted: list[tuple[str, bytes | None, int | None]]) -> None:
        absent = [
            name
            for name, fingerprint, mtime in wanted
            if name not in self.model
            or not self.model[name].is_fresh(time if mtime is None else mtime, fingerprint)
        ]
        assert self.caches[time].missing(wanted) == absent

    @rule(time=CLIENTS, prefix=st.sampled_from(["", "a", "x", "xx", "é", "none"]))
    def names(self, time: int | None, prefix: str) -> None:
        expected = [
            (name, None if time is None else self.model[name].is_fresh(time, None))
            for name in sorted(self.model, key=str.encode)
            if name.startswith(prefix)
        ]
        assert list(self.caches[time].names(prefix)) == expected

    @rule(time=CLIENTS)
    def stats(self, time: int | None) -> None:
        found = self.caches[time].stats()
        fresh = sum(each.is_fresh(time, None) for each in self.model.values())
        assert found["entries"] == len(self.model)
        assert found["blob_bytes"] == sum(len(each.blob) for each in self.model.values())
        assert found["fresh"] == (None if time is None else fresh)
        assert found["stale"] == (None if time is None else len(self.model) - fresh)
        assert found["generation"] >= self.generation

    # The daemon's lives

    @rule()
    def flush(self) -> None:
        assert self.any_client.flush().generation >= self.generation

    @rule()
    def stop_and_start(self) -> None:
        """A clean stop leaves an image and no journal."""
        self.daemon.restart()
        self.everything()

    @rule()
    def kill_and_start(self) -> None:
        self.daemon.kill()
        started = monotonic()
        self.daemon.start()
        self.case.recovered(monotonic() - started)
        self.everything()

    def everything(self) -> None:
        """Compare all entries."""
        found = self.any_client.get_many(self.model)
        self.case.lost += len(self.model.keys() - found.keys())
        self.case.wrong += sum(found[name] != self.model[name].blob for name in found)
        assert found == {name: each.blob for name, each in self.model.items()}
        assert [name for name, _ in self.any_client.names()] == sorted(self.model, key=str.encode)

    @invariant()
    def the_count_is_right(self) -> None:
        assert self.any_client.count() == len(self.model)

    def teardown(self) -> None:
        """Compare everything once more; leave no connections."""
        self.everything()
        for cache in self.caches.values():
            cache.close()


@contextmanager
def machine_of(serving: str, case: FaultCase) -> Iterator[type[Machine]]:
    """Return a machine for a daemon of its own."""
    with private_directory() as directory:
        daemon = Daemon(directory, environment={"AUTOLOADD_SERVING": serving})
        try:
            daemon.start()
            yield type("Machine", (Machine,), {"daemon": daemon, "case": case})
            assert daemon.status()["storage"]["set_aside"] == ()
            assert "ERROR" not in daemon.log
        finally:
            daemon.end()


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_a_daemon_does_what_a_dict_does(serving: str, case: FaultCase, effort: int) -> None:
    case.unit = "runs"
    chosen = settings(
        max_examples=(EXAMPLES if serving == "epoll" else EXAMPLES // 3) * effort,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        # To shrink a failure takes hundreds of restarts: minutes.
        phases=[Phase.generate] if effort == 1 else [Phase.generate, Phase.shrink],
    )
    with machine_of(serving, case) as machine:
        run_state_machine_as_test(machine, settings=chosen)
