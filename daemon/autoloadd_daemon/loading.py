"""Bringing into memory what a start left in its files: after it is ready, not before."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from .errors import DamageError, StartError, StorageError
from .storage.image_file import ImageFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .catalog import Catalog
    from .storage.images import SealedImage

    RunInThread = Callable[[Callable[[], SealedImage]], Awaitable[SealedImage]]

_logger = logging.getLogger(__name__)

LATER_BYTES = 256 * 1024
"""Images up to this size are read before the daemon is ready: 0.3 ms."""


async def load_images(catalog: Catalog, run_in_thread: RunInThread) -> None:
    """Return when every image is in memory and checked.

    Raises DamageError where one is not as it was written: nothing wrong was served, since each
    answer had a checksum of its own, and `Catalog.recover_again` puts it right. Raises StartError
    where memory is short, say: that is no damage, and the start would have failed just so.
    """
    began = time.monotonic()
    shards = list(catalog.unchecked)
    for shard in shards:
        file = shard.image
        assert isinstance(file, ImageFile), "it is in memory already"
        try:
            catalog.take_loaded(shard, await run_in_thread(file.load))
        except DamageError:
            raise
        except StorageError as exc:
            raise StartError(f"cannot read {catalog.cache_dir}: {exc}") from exc
    if shards:
        took = (time.monotonic() - began) * 1e3
        _logger.info("%d images are in memory and checked, after %.0f ms", len(shards), took)
