"""What tests of several folders share: a real daemon in a private directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .running import (
    OUR_VARIABLES,
    PRODUCER,
    Daemon,
    RawClient,
    private_directory,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from autoloadd_client import Cache

__all__ = ["PRODUCER", "Daemon", "RawClient", "wait_until"]


@pytest.fixture(autouse=True)
def _no_settings_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees that this user switched the cache off, or wants another socket."""
    for variable in [name for name in os.environ if name.startswith(OUR_VARIABLES)]:
        monkeypatch.delenv(variable)


@pytest.fixture
def home() -> Iterator[Path]:
    """A private directory whose path is short enough for a socket."""
    with private_directory() as directory:
        yield directory


@pytest.fixture
def idle_daemon(home: Path) -> Iterator[Daemon]:
    """A daemon that is not started yet; what is left of it is ended after the test."""
    daemon = Daemon(home)
    yield daemon
    daemon.end()


@pytest.fixture
def daemon(idle_daemon: Daemon) -> Daemon:
    """A daemon that serves."""
    return idle_daemon.start()


@pytest.fixture
def cache(daemon: Daemon) -> Iterator[Cache]:
    """A client of `daemon`."""
    with daemon.cache() as client:
        yield client
