"""Signals from the first moment on: one that comes while the daemon starts must not end it halfway.

By then it may have bound its socket; ended by the signal itself it would leave the file behind, and
a service manager would see a failure. The same holds for one that comes when all is over.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def keep_signals() -> list[int]:
    """Return a list that takes the signals that come while nobody receives them."""
    kept: list[int] = []

    def keep(number: int, _frame: FrameType | None) -> None:
        kept.append(number)

    for number in SIGNALS:
        signal.signal(number, keep)
    return kept
