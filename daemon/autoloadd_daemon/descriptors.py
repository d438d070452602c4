"""Descriptors: as many as the system lets a process have, and some kept back for files.

A client too many must never cost an acknowledged write its journal: clients wait to be accepted
while fewer than the reserve are left.
"""

from __future__ import annotations

import os
import resource

_RESERVED = 64
_RESERVED_FRACTION = 4
_PLENTY = 4096
_JOURNALS = 256


def raise_limit() -> None:
    """Allow as many open descriptors as may be had: usual soft limits are below 1,024 clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            # macOS names no limit where there is one; the reserve does without more.
            return


def journals_allowed() -> int:
    """Return how many journals may hold a descriptor at once, each shard's its own.

    Half of what is kept back for files, so that clients never take a journal's place.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _PLENTY:
        return _JOURNALS
    return max(min(_RESERVED, soft // _RESERVED_FRACTION) // 2, 1)


def are_short(any_open: int) -> bool:
    """Tell whether only the reserve is left; `any_open` is a descriptor that is open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return False
    try:
        # The lowest free number, so no higher than the number of those that are open.
        lowest_free = os.dup(any_open)
    except OSError:
        return True
    os.close(lowest_free)
    return lowest_free >= soft - min(_RESERVED, soft // _RESERVED_FRACTION)
