"""Plain log lines on stderr, with journald's priorities when journald reads them."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("debug", "info", "warning", "error")

_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class _JournalFormatter(logging.Formatter):
    """`<6>message`: sd-daemon(3) reads the level from the line; journald adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback's lines get the priority too."""
        mark = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


def set_up_logging(level: str, environment: Mapping[str, str]) -> None:
    """Log to stderr from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    if _is_journal(environment.get("JOURNAL_STREAM", "")):
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s autoloadd: %(levelname)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on."""
    logging.getLogger().setLevel(level.upper())


def _is_journal(stream: str) -> bool:
    """Tell whether stderr is the stream that systemd connected to journald: DEVICE:INODE."""
    found = os.fstat(sys.stderr.fileno())
    return stream == f"{found.st_dev}:{found.st_ino}"
