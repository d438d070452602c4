"""Ending by a signal as by an exception: what is in `with` or `finally` is cleaned up."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from .statuses import TERMINATED

if TYPE_CHECKING:
    from types import FrameType


def end_cleanly_on(*numbers: signal.Signals) -> None:
    """Have these signals raise SystemExit: Python's own answer leaves temporary files behind."""
    for number in numbers:
        signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)
