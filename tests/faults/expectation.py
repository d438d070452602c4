"""What a shard may hold after writes of which some were refused, or never answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoloadd_client.errors import BusyError, CacheError, NotDurableError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from autoloadd_client import Cache

    from .report import FaultCase

    Contents = dict[str, bytes]
    State = frozenset[tuple[str, bytes]]
    Change = Callable[[Contents], Contents]


class DiedError(Exception):
    """The daemon is gone, and with it the answer."""


def read_contents(cache: Cache) -> Contents:
    """Return everything that a shard shows; what is listed must be what can be had."""
    names = [name for name, _ in cache.names()]
    contents = cache.get_many(names)
    assert sorted(contents) == sorted(names)
    assert cache.count() == len(names)
    return contents


@dataclass
class Expectation:
    """Writes to one shard, and keeps what a reader must see now and may see after a crash.

    A refused write is not visible; until storage has healed a crash may still bring it back, as it
    may a write that got no answer. Raises DiedError when the daemon dies under a write.
    """

    cache: Cache
    visible: Contents = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    _possible: set[State] = field(default_factory=lambda: {frozenset()})
    _submitted: set[tuple[str, bytes]] = field(default_factory=set)

    def put(self, entries: Mapping[str, bytes], sync: str = "write") -> bool:
        """Store entries at once; tell whether that was acknowledged."""
        return self._write(
            lambda: self.cache.put_many(entries, sync=sync), lambda old: {**old, **entries}, entries
        )

    def delete(self, *names: str, sync: str = "write") -> bool:
        """Delete entries."""
        return self._write(
            lambda: self.cache.delete(names, sync=sync),
            lambda old: {name: blob for name, blob in old.items() if name not in names},
        )

    def clear(self, sync: str = "write") -> bool:
        """Delete everything."""
        return self._write(lambda: self.cache.clear(sync=sync), lambda _: {})

    def replace(self, entries: Mapping[str, bytes], sync: str = "write") -> bool:
        """Put entries in the place of everything, as a staged bulk."""
        return self._write(
            lambda: self.cache.replace(entries, sync=sync), lambda _: dict(entries), entries
        )

    def flush(self) -> bool:
        """Bring everything to stable storage."""
        return self._write(self.cache.flush, dict)

    def _write(
        self, call: Callable[[], object], change: Change, entries: Mapping[str, bytes] | None = None
    ) -> bool:
        self._submitted.update((entries or {}).items())
        changed = {frozenset(change(dict(state)).items()) for state in self._possible}
        try:
            call()
        except (NotDurableError, BusyError) as exc:
            self._possible |= changed
            self.refusals.append(exc.message)
            return False
        except RefusedError:
            raise
        except CacheError as exc:
            self._possible |= changed
            raise DiedError from exc
        self._possible = changed
        self.visible = change(self.visible)
        return True

    def settle(self) -> None:
        """Storage has healed: what was refused before must not come back."""
        self._possible = {frozenset(self.visible.items())}

    def check_visible(self, case: FaultCase) -> None:
        """See that a reader finds what was acknowledged, and nothing that was refused."""
        self._judge(case, {frozenset(self.visible.items())})

    def check_after_crash(self, case: FaultCase) -> None:
        """See that what a new daemon found is allowed; from now on it is what there is."""
        self.visible = self._judge(case, self._possible)
        self.settle()

    def _judge(self, case: FaultCase, allowed: set[State]) -> Contents:
        found = read_contents(self.cache)
        foreign = [item[0] for item in found.items() if item not in self._submitted]
        case.wrong += len(foreign)
        assert not foreign, f"bytes that nobody stored: {foreign}"
        is_allowed = frozenset(found.items()) in allowed
        case.lost += not is_allowed
        wanted = [sorted(dict(state)) for state in allowed]
        assert is_allowed, f"found {sorted(found)}, not one of {wanted}"
        return found
