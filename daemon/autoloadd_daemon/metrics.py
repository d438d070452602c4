"""What the daemon counts, and the health of its storage, for `status`."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from .errors import FullError

if TYPE_CHECKING:
    from .storage.set_aside import SetAside

_FIRST_PAUSE_NS = 250_000_000
_LONGEST_PAUSE_NS = 30_000_000_000
_LONGEST_PAUSE_WHEN_FULL_NS = 1_000_000_000
"""Room comes back without notice: within 2 s of it writes work again."""
_KEPT_REPORTS = 100


class Health:
    """Whether storage takes writes; since when not, and when the next attempt to heal is due.

    Times are CLOCK_MONOTONIC in ns: no decision uses wall time.
    """

    def __init__(self) -> None:
        self.error: str | None = None
        self.since_ns = 0
        self.next_try_ns = 0
        self._pause_ns = _FIRST_PAUSE_NS
        self._is_full = False

    @property
    def is_degraded(self) -> bool:
        """Tell whether writes are refused."""
        return self.error is not None

    def report(self, error: str | Exception) -> bool:
        """Note a failure; tell whether it is the first since storage was healthy."""
        self._is_full = isinstance(error, FullError)
        now = time.monotonic_ns()
        first = self.error is None
        if first:
            self.since_ns = now
            self._pause_ns = _FIRST_PAUSE_NS
            self.next_try_ns = now + self._pause_ns
        if self._is_full:
            self._pause_ns = min(self._pause_ns, _LONGEST_PAUSE_WHEN_FULL_NS)
            self.next_try_ns = min(self.next_try_ns, now + self._pause_ns)
        self.error = str(error)
        return first

    def heal(self) -> bool:
        """Note a success; tell whether storage was degraded before."""
        was_degraded = self.error is not None
        self.error = None
        return was_degraded

    def is_due(self) -> bool:
        """Tell whether to try again now; if so, the next time is twice as far away.

        No further than 30 s, where a disk was full than 1 s.
        """
        now = time.monotonic_ns()
        if self.error is None or now < self.next_try_ns:
            return False
        longest = _LONGEST_PAUSE_WHEN_FULL_NS if self._is_full else _LONGEST_PAUSE_NS
        self._pause_ns = min(self._pause_ns * 2, longest)
        self.next_try_ns = now + self._pause_ns
        return True

    def as_map(self) -> dict[str, object]:
        """Return what `status` says."""
        now = time.monotonic_ns()
        return {
            "state": "degraded" if self.is_degraded else "healthy",
            "error": self.error,
            "since_ns_ago": now - self.since_ns if self.is_degraded else None,
            "next_try_ns": max(self.next_try_ns - now, 0) if self.is_degraded else None,
        }


class Metrics:
    """Counters since the start, and files that were set aside."""

    def __init__(self) -> None:
        self.started_ns = time.monotonic_ns()
        self.counters: Counter[str] = Counter()
        self.health = Health()
        self.set_aside: deque[SetAside] = deque(maxlen=_KEPT_REPORTS)

    def forget_recovery(self) -> None:
        """Forget what a recovery found: it is done once more, and finds it again."""
        self.set_aside.clear()
        for name in ("torn_bytes", "journals_missing"):
            self.counters.pop(name, None)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.counters[name] += amount
