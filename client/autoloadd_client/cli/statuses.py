"""Exit codes, which the README promises."""

from __future__ import annotations

FOUND = 0
MISS = 1
USAGE = 2
UNREACHABLE = 3
REFUSED = 4
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143
