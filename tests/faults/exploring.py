"""From a log of operations to verdicts: every crash state is recovered, and must be allowed.

What recovery finds must be each shard after some number of its writes: at least all that were
acknowledged as strongly as the crash demands, at most all that were submitted. A prefix, so that
order is kept too.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoloadd_daemon.storage.files import Files

from .disk_model import Acknowledged, Disk, Submitted
from .engine import read_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .disk_model import Operation, State
    from .engine import Contents, Histories
    from .report import FaultCase


@dataclass
class Bounds:
    """How many of a shard's writes must be there: `synced` after power loss, `written` after a
    kill; and at most how many can.
    """

    synced: int = 0
    written: int = 0
    submitted: int = 0


@dataclass
class Promises:
    """What of each shard was promised at one moment of a log."""

    histories: Histories
    bounds: dict[str, Bounds] = field(default_factory=dict)

    def apply(self, operation: Operation) -> None:
        """Take the next operation of the log."""
        if not isinstance(operation, Submitted | Acknowledged):
            return
        bounds = self.bounds.setdefault(operation.shard, Bounds())
        if isinstance(operation, Submitted):
            bounds.submitted = operation.number
        elif operation.level is not None:
            if operation.level != "memory":
                bounds.written = max(bounds.written, operation.number)
            if operation.level == "fsync":
                bounds.synced = max(bounds.synced, operation.number)

    def allowed(self, shard: str, *, power_lost: bool) -> list[Contents]:
        """Return what the shard may hold after a crash now."""
        bounds = self.bounds.get(shard, Bounds())
        first = bounds.synced if power_lost else bounds.written
        return self.histories[shard][first : bounds.submitted + 1]

    def position(self, shard: str, contents: Contents, *, power_lost: bool) -> int:
        """Return the number of the write after which the shard holds this."""
        bounds = self.bounds.get(shard, Bounds())
        first = bounds.synced if power_lost else bounds.written
        return self.histories[shard].index(contents, first, bounds.submitted + 1)


class Explorer:
    """Recovers from states in a scratch directory, and counts in a case what it finds."""

    def __init__(self, case: FaultCase, cache_dir: Path, scratch: Path, seed: int = 0) -> None:
        case.unit = "states"
        self._case = case
        self._cache_dir = cache_dir
        self._scratch = scratch
        self._seen: set[object] = set()
        self.generator = random.Random(seed)
        self.disk = Disk(str(cache_dir), commits_in_order=bool(seed % 2 == 0))

    def explore(
        self,
        log: Sequence[Operation],
        promises: Promises,
        where: str,
        *,
        every: float = 1.0,
        states: int = 6,
        begin: int = 0,
    ) -> None:
        """Crash after operations of a log: after each, or a part of them by chance."""
        for step, operation in enumerate(log):
            self.disk.apply(operation)
            promises.apply(operation)
            if step >= begin and self.generator.random() < every:
                self.crash(promises, f"{where}, after operation {step} ({operation!r:.60})", states)

    def crash(self, promises: Promises, where: str, states: int = 6) -> None:
        """Crash now, in every way."""
        for state, power_lost in self.states(states):
            self.check(state, promises, where, power_lost=power_lost)

    def states(self, count: int) -> Iterator[tuple[State, bool]]:
        """Yield what a crash now can leave, and whether power was lost."""
        yield self.disk.after_kill(), False
        for state in self.disk.crash_states(self.generator, count):
            yield state, True

    def check(self, state: State, promises: Promises, where: str, *, power_lost: bool) -> None:
        """Recover from a state, and see that what is found is allowed; then once more."""
        bounds = [(s, b.synced, b.written, b.submitted) for s, b in promises.bounds.items()]
        key = (state, power_lost, tuple(bounds))
        if key in self._seen:
            return
        self._seen.add(key)
        self._case.explored += 1
        found = self.recover(state)
        for shard in {*promises.bounds, *found}:
            self._judge(shard, found.get(shard, {}), promises, where, power_lost=power_lost)
        assert self._read() == found, f"{where}: the second start differs"

    def recover(self, state: State) -> dict[str, Contents]:
        """Return what a start finds in a state."""
        lay_out(state, self._cache_dir, self._scratch)
        return self._read()

    def _read(self) -> dict[str, Contents]:
        return read_back(Files(), str(self._scratch))

    def _judge(
        self, shard: str, found: Contents, promises: Promises, where: str, *, power_lost: bool
    ) -> None:
        allowed = promises.allowed(shard, power_lost=power_lost)
        if found in allowed:
            return
        known = {item for contents in promises.histories[shard] for item in contents.items()}
        wrong = sum(item not in known for item in found.items())
        self._case.wrong += wrong
        self._case.lost += not wrong
        crash = "power lost" if power_lost else "killed"
        raise AssertionError(
            f"{where}, {crash}: {shard} holds {sorted(found)}, "
            f"allowed are {[sorted(contents) for contents in allowed]}"
        )


def lay_out(state: State, original_root: Path, root: Path) -> None:
    """Make a directory that holds just a state."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o700)
    state.write_to(root, str(original_root))
