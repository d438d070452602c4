"""What becomes of a try to heal, where nothing else says whether the disk takes writes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.app import App
from autoloadd_daemon.catalog import Catalog
from autoloadd_daemon.config import Settings
from autoloadd_daemon.errors import FullError, StorageError

from .harness import PRODUCER, RecordingFiles, no_descriptor_left

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def app(cache_dir: Path) -> App:
    """One whose storage is degraded."""
    settings = Settings("/none", str(cache_dir), 1 << 24, 1.0, "info", {})
    app = App(settings, reload=lambda: settings)
    app._catalog = Catalog(RecordingFiles(), str(cache_dir), app._metrics, max_bytes=1 << 24)
    app._metrics.health.report("the first failure")
    return app


def test_a_probe_that_fails_says_what_is_wrong_now(app: App) -> None:
    health = app._metrics.health
    app._probed(StorageError("the disk is gone"))
    assert health.error == "the disk is gone"
    app._probed(FullError("the disk is full"))
    assert health.error == "the disk is full"
    assert health._is_full, "so that it is tried every second"


def test_a_probe_that_works_heals_once(app: App, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        app._probed(None)
        assert not app._metrics.health.is_degraded
        assert caplog.text.count("storage takes writes again") == 1


def test_a_probe_that_works_heals_no_journal(
    app: App, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, disk = app._catalog.open(PRODUCER)
    disk.append([b"frame"], last_generation=1, built_at_ns=0)
    disk.fail(f"{cache_dir}: sync failed")
    app._probed(None)
    assert app._metrics.health.error == "the first failure"
    assert "takes writes again" not in caplog.text
    disk.close()


def test_what_could_not_be_written_at_the_start_is_recovered_when_it_can(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    health = app._metrics.health
    app._catalog.unwritable = FullError("nothing can be written: the disk is full")
    health.heal()
    app._note_unwritable()
    assert "what there is is served, and it is tried again" in caplog.text
    assert health._is_full
    with no_descriptor_left():
        app._probed(None)
    assert "cannot recover" in str(health.error)
    assert app._catalog.unwritable is not None
    app._probed(None)
    assert app._catalog.unwritable is None
    assert not health.is_degraded
