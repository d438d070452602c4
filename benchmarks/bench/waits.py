"""What one connection waited for, from when each request was sent and answered."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from .verdicts import PeerFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def longest_gap(samples: Sequence[tuple[int, int]], begin: int, end: int) -> int:
    """Return the longest time between two answers, of which any lies within [begin, end], ns.

    A gap that began before or ends after counts whole: it is what the client waited.
    """
    answered = [sample[1] for sample in samples]
    gaps = [b - a for a, b in pairwise(answered) if b >= begin and a <= end]
    if not gaps:
        raise PeerFailedError("no answer was measured in the time that was looked at")
    return max(gaps)


def p99(samples: Iterable[tuple[int, int]]) -> int:
    """Return the time that 99 of 100 answers took at most, ns."""
    times = sorted(answered - sent for sent, answered in samples)
    if not times:
        raise PeerFailedError("no answer was measured in the time that was looked at")
    return times[len(times) * 99 // 100]
