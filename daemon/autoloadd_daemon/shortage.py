"""A time in which there are no descriptors for new clients."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .metrics import Metrics

_logger = logging.getLogger(__name__)


class Shortage:
    """A time in which no clients are accepted: logged when it begins, and when it is over."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._is_on = False

    def begin(self, reason: str) -> None:
        """Note that a client cannot be accepted."""
        if not self._is_on:
            self._is_on = True
            self._metrics.count("accept_pauses")
            _logger.warning("no new clients for now: %s", reason)

    def end(self) -> None:
        """Note that a client was accepted, or that none waits."""
        if self._is_on:
            self._is_on = False
            _logger.warning("new clients are accepted again")
