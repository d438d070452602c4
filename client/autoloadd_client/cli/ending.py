"""Ending by a signal as by an exception: what was half done is removed on the way out."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from .statuses import TERMINATED


def end_cleanly_on_signals() -> None:
    """Raise SystemExit on SIGTERM and SIGHUP: Python's own answer would leave files behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # `nohup` has it ignored, and then that is meant.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(_number: int, _frame: object) -> NoReturn:
    sys.exit(TERMINATED)
