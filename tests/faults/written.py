"""What clients wrote and what was acknowledged, to be held against what a daemon gives back.

Each name has a history of versions, whose bytes follow from name and number. So any value that
comes back tells which write it was, or that nobody wrote it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

from autoloadd_client.errors import CacheError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from autoloadd_client import Cache

    from .report import FaultCase

_NAMES_PER_REQUEST = 500


def blob_of(name: str, number: int, size: int) -> bytes:
    """Return about `size` bytes that nobody stores under another name or number."""
    head = f"{name} {number} ".encode()
    body = head * (size // len(head) + 1)
    return body + zlib.crc32(body).to_bytes(4, "big")


@dataclass(slots=True)
class Version:
    """One write of one name; `blob` is None for a delete.

    `acknowledged_at` is CLOCK_MONOTONIC in seconds, None where no answer came, or a refusal.
    `is_synced`: acknowledged at fsync, or before a flush began that was answered.
    """

    blob: bytes | None
    acknowledged_at: float | None = None
    is_synced: bool = False
    is_refused: bool = False

    @property
    def is_acknowledged(self) -> bool:
        return self.acknowledged_at is not None


@dataclass
class Written:
    """The writes of one client, one at a time; another one needs another `prefix`."""

    prefix: str = ""
    versions: dict[str, list[Version]] = field(default_factory=dict)
    acknowledged: int = 0
    refused: int = 0
    _numbers: Iterator[int] = field(default_factory=count)

    def put(self, cache: Cache, *keys: str, size: int = 200, sync: str = "write") -> bool:
        """Store new versions of names, all at once; tell whether that was acknowledged."""
        number = next(self._numbers)
        begun = {self.prefix + key: blob_of(self.prefix + key, number, size) for key in keys}
        if len(keys) == 1:
            ((name, blob),) = begun.items()
            return self._carry_out(begun, sync, lambda: cache.put(name, blob, sync=sync))
        return self._carry_out(begun, sync, lambda: cache.put_many(begun, sync=sync))

    def merge(self, cache: Cache, keys: Iterable[str], *, size: int, sync: str = "write") -> bool:
        """Store new versions of names by a bulk; tell whether that was acknowledged."""
        number = next(self._numbers)
        begun = {self.prefix + key: blob_of(self.prefix + key, number, size) for key in keys}
        return self._carry_out(begun, sync, lambda: cache.merge(begun, sync=sync))

    def delete(self, cache: Cache, *keys: str, sync: str = "write") -> bool:
        """Remove names; tell whether that was acknowledged."""
        names = [self.prefix + key for key in keys]
        begun = dict.fromkeys(names)
        return self._carry_out(begun, sync, lambda: cache.delete(names, sync=sync))

    def flush(self, cache: Cache) -> bool:
        """Flush; tell whether that was answered."""
        before = [version for history in self.versions.values() for version in history]
        written = [version for version in before if version.is_acknowledged]
        try:
            cache.flush()
        except CacheError:
            return False
        for version in written:
            version.is_synced = True
        return True

    def check(self, cache: Cache, case: FaultCase, *, crashed: bool = True) -> None:
        """Count in `case` what is lost or wrong. Without a crash no refused write may be seen."""
        for name, blob in self._read(cache):
            history = self.versions[name]
            self._judge(history, blob, case, lambda v: v.is_acknowledged, crashed=crashed)

    def check_after_power_loss(self, cache: Cache, case: FaultCase, lost_at: float) -> float:
        """Count what was synced and is lost; return how old the oldest other lost write was.

        `lost_at` is CLOCK_MONOTONIC in seconds, the age too; 0.0 where no other write is lost.
        """
        oldest = 0.0
        for name, blob in self._read(cache):
            history = self.versions[name]
            self._judge(history, blob, case, lambda v: v.is_synced, crashed=True)
            for version in history[_last(history, partial(_has_blob, blob)) + 1 :]:
                if version.acknowledged_at is not None and not version.is_synced:
                    oldest = max(oldest, lost_at - version.acknowledged_at)
        return oldest

    def _carry_out(
        self, begun: dict[str, bytes] | dict[str, None], sync: str, call: Callable[[], object]
    ) -> bool:
        versions = [Version(blob) for blob in begun.values()]
        for name, version in zip(begun, versions, strict=True):
            self.versions.setdefault(name, []).append(version)
        try:
            call()
        except CacheError as exc:
            for version in versions:
                version.is_refused = isinstance(exc, RefusedError)
            self.refused += isinstance(exc, RefusedError)
            return False
        for version in versions:
            version.acknowledged_at = monotonic()
            version.is_synced = sync == "fsync"
        self.acknowledged += 1
        return True

    def _read(self, cache: Cache) -> Iterator[tuple[str, bytes | None]]:
        names = list(self.versions)
        for start in range(0, len(names), _NAMES_PER_REQUEST):
            some = names[start : start + _NAMES_PER_REQUEST]
            found = cache.get_many(some)
            yield from ((name, found.get(name)) for name in some)

    @staticmethod
    def _judge(
        history: Sequence[Version],
        blob: bytes | None,
        case: FaultCase,
        must_be_there: Callable[[Version], bool],
        *,
        crashed: bool,
    ) -> None:
        since = _last(history, must_be_there)
        later = [v.blob for v in history[since + 1 :] if crashed or not v.is_refused]
        if blob in ([history[since].blob if since >= 0 else None, *later]):
            return
        stored = {version.blob for version in history if not version.is_refused}
        if blob is None or blob in stored:
            case.lost += 1
        else:
            case.wrong += 1


def _last(history: Sequence[Version], holds: Callable[[Version], bool]) -> int:
    """Return the index of the last version for which it holds, or -1."""
    return max((index for index, v in enumerate(history) if holds(v)), default=-1)


def _has_blob(blob: bytes | None, version: Version) -> bool:
    return version.blob == blob
