"""The daemon's parts, and where the tests of its package keep their files."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .engine import Engine
from .harness import Clock, Life, RecordingFiles

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


@pytest.fixture
def files() -> RecordingFiles:
    return RecordingFiles()


@pytest.fixture
def engine(cache_dir: Path, files: RecordingFiles) -> Iterator[Engine]:
    with Engine(cache_dir, files) as engine:
        yield engine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", clock)
    return clock
