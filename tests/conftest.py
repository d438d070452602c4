"""What tests of several folders share: a real daemon in a private directory."""

from __future__ import annotations

import os
import signal
from itertools import count
from typing import TYPE_CHECKING

import pytest

from .running import (
    OUR_VARIABLES,
    PRODUCER,
    Daemon,
    RawClient,
    private_directory,
    producer_map,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from autoloadd_client import Cache


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `scripts/faults`."""
    group = parser.getgroup("faults")
    group.addoption("--effort", type=int, default=1, help="explore this many times as much")
    group.addoption("--fault-report", help="append one line of JSON for each fault case here")


def pytest_configure() -> None:
    """Let signals end what tests start, also in a script's background and under nohup."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # What is handled is not inherited, and the tests themselves go on.
        signal.signal(signal.SIGHUP, lambda *_: None)


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


_numbers = count(1)


@pytest.fixture(scope="module", params=["epoll", "tasks"])
def served(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon that the tests of a module share, each with a producer of its own.

    They run twice: where one task serves all clients, and where each client has a task (the
    server of systems without epoll).
    """
    with private_directory() as directory:
        daemon = Daemon(directory, environment={"AUTOLOADD_SERVING": request.param})
        try:
            yield daemon.start()
        finally:
            daemon.end()


@pytest.fixture
def producer() -> str:
    """NAME/VERSION/WIDTH that no other test has."""
    return f"test/{next(_numbers)}/8"


@pytest.fixture
def client(served: Daemon, producer: str) -> Iterator[RawClient]:
    """A bare connection to `served` that has said hello."""
    with served.connect() as connection:
        assert connection.hello(producer_map(producer)).error is None
        yield connection


@pytest.fixture
def shard_cache(served: Daemon, producer: str) -> Iterator[Cache]:
    """A client of `served` for the same shard as `client`."""
    with served.cache(producer) as library:
        yield library


@pytest.fixture
def cache(daemon: Daemon) -> Iterator[Cache]:
    """A client of `daemon`."""
    with daemon.cache() as client:
        yield client
