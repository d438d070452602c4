"""A shard with its files against a dict: thousands of steps, since no process is started for them.

Builds are split into their begin, what is written meanwhile, and their end or failure; at any point
the process may be killed. The real daemon is held against a dict in `test_state_machine.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from autoloadd_daemon.storage.images import build_image

from ..daemon.harness import Item, Life

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoloadd_daemon.storage.images import Snapshot
    from autoloadd_daemon.storage.journal import Journal

    from ..daemon.harness import Contents
    from .report import FaultCase

EXAMPLES = 200
STEPS = 40
NAMES = st.sampled_from([b"a", b"b", b"c", b"x" * 40])
ITEMS = st.builds(
    Item,
    st.binary(max_size=8),
    st.sampled_from([None, b"f", b"g" * 300]),
    st.sampled_from([0, 1, -(2**63), 2**63 - 1]),
)
ENTRIES = st.dictionaries(NAMES, ITEMS, min_size=1, max_size=4)


class Machine(RuleBasedStateMachine):
    """Every rule does the same to the shard and to `model`."""

    root: Path
    case: FaultCase

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir=self.root)) / "shard"
        self.life = Life(self.directory)
        self.model: Contents = {}
        self.build: tuple[Snapshot, list[Journal]] | None = None
        self.case.explored += 1

    @rule(entries=ENTRIES, sync=st.booleans())
    def put(self, entries: Contents, sync: bool) -> None:
        self.life.put(entries, sync=sync)
        self.model |= entries

    @rule(names=st.lists(NAMES, min_size=1, max_size=3, unique=True))
    def delete(self, names: list[bytes]) -> None:
        self.life.delete(names)
        self.model = {name: item for name, item in self.model.items() if name not in names}

    # Of an empty shard nothing can be lost.
    @precondition(lambda self: len(self.model) > 2)
    @rule()
    def clear(self) -> None:
        self.life.clear()
        self.model = {}

    @rule(first=ENTRIES, second=ENTRIES, mode=st.sampled_from(["merge", "merge", "replace"]))
    def bulk(self, first: Contents, second: Contents, mode: str) -> None:
        self.life.bulk(mode, [first, second])
        self.model = {**(self.model if mode == "merge" else {}), **first, **second}

    @precondition(lambda self: self.build is None)
    @rule()
    def build_while_nothing_is_written(self) -> None:
        self.life.build()

    @precondition(lambda self: self.build is None)
    @rule()
    def begin_a_build(self) -> None:
        covered = self.life.disk.rotate()
        self.build = self.life.shard.begin_build(None), covered

    @precondition(lambda self: self.build is not None)
    @rule()
    def end_the_build(self) -> None:
        assert self.build is not None
        snapshot, covered = self.build
        self.build = None
        image, _ = build_image(self.life.files, str(self.directory), snapshot)
        self.life.shard.finish_build(image, 0)
        self.life.disk.forget(covered)
        for journal in covered:
            journal.remove()

    @precondition(lambda self: self.build is not None)
    @rule()
    def kill_between_the_image_and_the_removal_of_what_it_covers(self) -> None:
        assert self.build is not None
        build_image(self.life.files, str(self.directory), self.build[0])
        self.kill()

    @precondition(lambda self: self.build is not None)
    @rule()
    def give_the_build_up(self) -> None:
        self.build = None
        self.life.shard.abandon_build()

    @rule()
    def kill(self) -> None:
        self.build = None
        generation = self.life.shard.generation
        self.life.crash()
        self.life = Life(self.directory)
        assert self.life.set_aside == []
        assert self.life.torn_bytes == 0
        assert self.life.shard.generation <= generation

    @invariant()
    def it_holds_what_the_dict_holds(self) -> None:
        found = self.life.contents
        self.case.lost += len(self.model.keys() - found.keys())
        self.case.wrong += sum(item != self.model.get(name) for name, item in found.items())
        assert found == self.model

    def teardown(self) -> None:
        """End the life."""
        self.life.crash()
        shutil.rmtree(self.directory.parent)


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory in memory where there is such a place."""
    place = Path("/dev/shm")
    root = tempfile.mkdtemp(prefix="ald-", dir=place if place.is_dir() else None)
    try:
        yield Path(root)
    finally:
        shutil.rmtree(root)


def test_a_shard_does_what_a_dict_does(case: FaultCase, effort: int) -> None:
    case.unit = "runs"
    chosen = settings(
        max_examples=EXAMPLES * effort,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        # To shrink a failure takes longer than a test may.
        phases=[Phase.generate] if effort == 1 else [Phase.generate, Phase.shrink],
    )
    with in_memory() as root:
        machine = type("Machine", (Machine,), {"root": root, "case": case})
        run_state_machine_as_test(machine, settings=chosen)
