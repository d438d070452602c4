"""Where the tests of the daemon's package keep their files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .harness import Life

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def cache_dir() -> Iterator[Path]:
    """A directory for shards: in memory where there is such a place, since tests make thousands."""
    memory = Path("/dev/shm")
    directory = tempfile.mkdtemp(prefix="ald-", dir=memory if memory.is_dir() else None)
    yield Path(directory)
    for life in list(Life.alive):
        life.crash()
    shutil.rmtree(directory)
