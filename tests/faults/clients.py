"""Clients that do random things at once and note what they saw, also while the daemon dies."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from autoloadd_client.errors import BusyError, CacheError, RefusedError

from .linearizability import Operation
from .written import blob_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from autoloadd_client import Cache

    Effect = Callable[[Hashable], Hashable | None]

NAMES = [f"f{number}" for number in range(5)]
SIZES = (60, 60, 60, 3_000, 40_000)
"""Bytes of a value; the last so that images are built while the daemon is killed."""

RETRY_SECONDS = 0.002


@dataclass(frozen=True)
class Shard:
    """A state: the number of each name's value, 0 for none, and the last generation answered."""

    values: tuple[int, ...] = (0,) * len(NAMES)
    generation: int = 0


@dataclass
class Values:
    """Every value that anyone stores: each is stored once, so its bytes tell which one it is."""

    wrong: list[str] = field(default_factory=list)
    _numbers: dict[tuple[str, bytes], int] = field(default_factory=dict)
    _next: Iterator[int] = field(default_factory=lambda: count(1))

    def make(self, name: str, size: int) -> bytes:
        """Return a new value."""
        number = next(self._next)
        blob = blob_of(name, number, size)
        self._numbers[name, blob] = number
        return blob

    def number_of(self, name: str, blob: bytes | None) -> int:
        """Return a value's number, 0 for none; -1, noted in `wrong`, for what nobody stored."""
        if blob is None:
            return 0
        number = self._numbers.get((name, blob), -1)
        if number < 0:
            self.wrong.append(name)
        return number

    def numbers_of(self, entries: Mapping[str, bytes]) -> dict[str, int]:
        """Return the number of each value."""
        return {name: self.number_of(name, blob) for name, blob in entries.items()}


def stored(entries: Mapping[str, int], generation: int | None, state: Hashable) -> Shard | None:
    """Store values. Every generation that is answered is greater than those before."""
    assert isinstance(state, Shard)
    if generation is not None and generation <= state.generation:
        return None
    pairs = zip(NAMES, state.values, strict=True)
    values = tuple(entries.get(name, value) for name, value in pairs)
    return Shard(values, generation or state.generation)


def replaced(entries: Mapping[str, int], generation: int | None, state: Hashable) -> Shard | None:
    """Store values in the place of all."""
    return stored(dict.fromkeys(NAMES, 0) | dict(entries), generation, state)


def deleted(names: Sequence[str], found: int | None, state: Hashable) -> Shard | None:
    """Delete values; the answer is how many there were."""
    assert isinstance(state, Shard)
    pairs = list(zip(NAMES, state.values, strict=True))
    if found is not None and found != sum(value != 0 for name, value in pairs if name in names):
        return None
    return replace(state, values=tuple(0 if name in names else value for name, value in pairs))


def seen(entries: Mapping[str, int], state: Hashable) -> Shard | None:
    """Read values, all at one moment."""
    assert isinstance(state, Shard)
    held = dict(zip(NAMES, state.values, strict=True))
    return state if all(held[name] == value for name, value in entries.items()) else None


class Client(threading.Thread):
    """One client; the caller starts it, tells it to end, and joins it.

    `error` is what ended it before it was told to.
    """

    def __init__(self, cache: Cache, values: Values, chance: random.Random) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.is_told_to_end = threading.Event()
        self.answered = 0
        self._cache = cache
        self._values = values
        self._chance = chance
        # With each operation, what it may have done if nobody knows the answer.
        self._notes: list[tuple[Operation, Effect]] = []

    def run(self) -> None:
        """Do random things until told to end; wait while there is no daemon."""
        acts = [self._put, self._get, self.get_all, self._put_many, self._delete, self._clear]
        acts.append(self._replace)
        weights = [40, 35, 8, 8, 6, 2, 1]
        try:
            while not self.is_told_to_end.is_set():
                (act,) = self._chance.choices(acts, weights)
                act()
        except (AssertionError, CacheError) as exc:
            self.error = exc

    def history(self, deaths: Sequence[int]) -> Iterator[Operation]:
        """Yield what was noted; `deaths` are times (ns) at which a daemon was dead.

        A call under which one died was sent again to the next: it may have happened twice.
        """
        for operation, unanswered in self._notes:
            yield operation
            for death in deaths:
                if operation.began < death < operation.ended and not operation.read:
                    yield replace(operation, ended=death, effect=unanswered, certain=False)

    def _new_values(self, number: int) -> dict[str, bytes]:
        names = self._chance.sample(NAMES, number)
        return {name: self._values.make(name, self._chance.choice(SIZES)) for name in names}

    def _sync(self) -> str:
        return self._chance.choice(("write", "write", "write", "fsync"))

    def _put(self) -> None:
        entries, sync = self._new_values(1), self._sync()
        ((name, blob),) = entries.items()
        self._write("put", entries, lambda: self._cache.put(name, blob, sync=sync))

    def _put_many(self) -> None:
        entries, sync = self._new_values(self._chance.randint(2, 4)), self._sync()
        self._write("put_many", entries, lambda: self._cache.put_many(entries, sync=sync))

    def _replace(self) -> None:
        entries = self._new_values(3)
        self._write("replace", entries, lambda: self._cache.replace(entries), replaced)

    def _write(
        self,
        what: str,
        entries: Mapping[str, bytes],
        call: Callable[[], object],
        change: Callable[..., Shard | None] = stored,
    ) -> None:
        numbers = self._values.numbers_of(entries)
        self._note(f"{what} {numbers}", call, partial(partial, change, numbers))

    def _delete(self) -> None:
        names, sync = self._chance.sample(NAMES, self._chance.randint(1, 2)), self._sync()
        call = partial(self._cache.delete, names, sync=sync)
        self._note(f"delete {names}", call, partial(partial, deleted, names))

    def _clear(self) -> None:
        self._note("clear", self._cache.clear, partial(partial, deleted, NAMES))

    def _get(self) -> None:
        name = self._chance.choice(NAMES)
        self._read(name, lambda: {name: self._cache.get(name)})

    def get_all(self) -> None:
        """Read all names, at one moment."""
        self._read("all", lambda: {**dict.fromkeys(NAMES), **self._cache.get_many(NAMES)})

    def _read(self, what: str, call: Callable[[], Mapping[str, bytes | None]]) -> None:
        def effect(found: Mapping[str, bytes | None] | None) -> Effect:
            numbers = {name: self._values.number_of(name, b) for name, b in (found or {}).items()}
            return partial(seen, numbers)

        self._note(f"get {what}", call, effect, read=True)

    def _note(
        self,
        what: str,
        call: Callable[[], Any],
        effect: Callable[[Any], Effect],
        *,
        read: bool = False,
    ) -> None:
        began = time.monotonic_ns()
        try:
            result = call()
        except BusyError:
            return
        except RefusedError:
            raise
        except CacheError:
            known, certain = effect(None), False
        else:
            known, certain = effect(result), True
        ended = time.monotonic_ns()
        if certain or not read:
            noted = Operation(what, began, ended, known, certain=certain, read=read)
            self._notes.append((noted, effect(None)))
        self.answered += certain
        if not certain:
            self._wait_for_daemon()

    def _wait_for_daemon(self) -> None:
        while not self.is_told_to_end.is_set():
            try:
                self._cache.ping()
            except CacheError:
                self.is_told_to_end.wait(RETRY_SECONDS)
            else:
                return
