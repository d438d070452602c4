"""The cache for a shell: functions that never raise, and never take long.

    facade.configure("zsh/5.9/8", binary="/bin/zsh")
    blob = facade.try_load("compinit")        # None: compile it yourself

Each failure of the cache, or of what it is given, is a miss, or False; only what an iterable of
entries raises itself comes through. One look costs at most 50 ms, one write 250 ms, a
bulk 30 s; a daemon that could not be reached is not asked again for a second. Before `configure`,
and while the user has the cache switched off (AUTOLOADD_CACHE or ZSHRS_CACHE is 0, false or no;
looked at in each call), everything is a miss.
"""

from __future__ import annotations

import atexit
from time import monotonic

from .cache import Cache
from .errors import CacheError, RefusedError, SwitchedOffError

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import Any, TypeVar

    from autoloadd_protocol.producer import Producer

    from .cache import Blob, Entries

    Result = TypeVar("Result")

READ_SECONDS = 0.05
WRITE_SECONDS = 0.25
BULK_SECONDS = 30.0

AVOID_SECONDS = 1.0
"""A daemon that could not be reached, or did not answer, is left alone for this long."""


class _Face:
    """The configured producer's caches: reads do not wait behind another thread's bulk."""

    def __init__(self, producer: Producer | str, **options: Any) -> None:
        self.reads = Cache(producer, timeout=READ_SECONDS, bulk_timeout=BULK_SECONDS, **options)
        self.writes = Cache(producer, timeout=WRITE_SECONDS, bulk_timeout=BULK_SECONDS, **options)
        self.avoid_until = 0.0


_face: _Face | None = None


def configure(
    producer: Producer | str,
    *,
    binary: str | PathLike[str] | None = None,
    binary_mtime_ns: int | None = None,
    socket_path: str | None = None,
) -> bool:
    """Say who compiles; see `Cache`. False: it cannot be read, and everything stays a miss."""
    global _face  # noqa: PLW0603 - these functions stand for one cache of the whole process
    close()
    try:
        _face = _Face(
            producer, binary=binary, binary_mtime_ns=binary_mtime_ns, socket_path=socket_path
        )
    except (CacheError, OSError, TypeError, ValueError):
        return False
    return True


def close() -> None:
    """Let go of the daemon, and of what `configure` said."""
    global _face
    face, _face = _face, None
    if face is not None:
        face.reads.close()
        face.writes.close()


def try_load(name: str, *, fingerprint: bytes | None = None) -> bytes | None:
    """Return an entry's blob; None: absent, stale, or no cache."""
    return _attempt(lambda face: face.reads.get(name, fingerprint=fingerprint), None)


def try_save_one(name: str, blob: Blob, *, fingerprint: bytes | None = None) -> bool:
    """Store one entry; tell whether it is there."""
    return _attempt(lambda face: _done(face.writes.put(name, blob, fingerprint=fingerprint)), False)


def try_replace_all(entries: Entries) -> bool:
    """Put entries in the place of all there are; tell whether they are there: all, or none."""
    return _attempt(lambda face: _done(face.writes.replace(entries)), False)


def try_merge_in(entries: Entries) -> bool:
    """Store entries beside those there are; tell whether they are there: all, or none."""
    return _attempt(lambda face: _done(face.writes.merge(entries)), False)


def cached_names() -> set[str]:
    """Return the names that `try_load` would find: those of stale entries are left out."""
    return _attempt(
        lambda face: {name for name, fresh in face.reads.names() if fresh is not False}, set()
    )


def entry_count() -> int:
    """Return the number of entries, stale ones included."""
    return _attempt(lambda face: face.reads.count(), 0)


def stats() -> dict[str, Any]:
    """Return the figures of `Cache.stats`; an empty map when there are none."""
    return _attempt(lambda face: face.reads.stats(), {})


def clear() -> bool:
    """Delete all entries; tell whether they are gone."""
    return _attempt(lambda face: _done(face.writes.clear()), False)


def _attempt(call: Callable[[_Face], Result], otherwise: Result) -> Result:
    face = _face
    if face is None or monotonic() < face.avoid_until:
        return otherwise
    try:
        return call(face)
    except (RefusedError, SwitchedOffError, TypeError, ValueError):
        # The two last: entries that are no pairs.
        return otherwise
    except CacheError:
        # Missing, hung or not ours: the next call would pay for it again.
        face.avoid_until = monotonic() + AVOID_SECONDS
        return otherwise


def _done(_generation: int | None) -> bool:
    return True


atexit.register(close)
