"""What is said of the cache as a whole: after recovery, and at the end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .catalog import Catalog
    from .metrics import Metrics

_logger = logging.getLogger(__name__)


def report_recovery(catalog: Catalog, metrics: Metrics, seconds: float) -> None:
    """Log what there is, and each file that is not served from."""
    entries = sum(shard.entries for shard, _ in catalog)
    _logger.info("%d shards with %d entries, read in %.0f ms", len(catalog), entries, seconds * 1e3)
    for file, reason in metrics.set_aside:
        _logger.error("set aside: %s: %s", file, reason)


def what_is_not_stored(catalog: Catalog, *, in_time: bool) -> str | None:
    """Return why a new start may not find everything, or None. `in_time`: the disk answered."""
    if not in_time:
        return "the disk did not answer"
    if catalog.lost is not None:
        return catalog.lost
    unsynced = [files.directory for _, files in catalog if files.has_unsynced]
    return catalog.failure or next(iter(unsynced), None)
