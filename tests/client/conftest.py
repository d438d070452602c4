"""Sockets of their own for the tests of the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .scripted import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .scripted import Script


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test finds this user's daemon, or sees that this user switched the cache off."""
    for variable in ("AUTOLOADD_CACHE", "ZSHRS_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AUTOLOADD_SOCKET", str(tmp_path / "nobody" / "socket"))


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """A directory that may hold a socket: ours, mode 0700."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def serve(run_directory: Path) -> Iterator[Callable[..., str]]:
    """Start a server that follows scripts, one for each connection; return its socket's path."""
    servers: list[ScriptedServer] = []

    def start(*scripts: Script) -> str:
        servers.append(ScriptedServer(run_directory / f"socket{len(servers)}", scripts))
        return servers[-1].path

    yield start
    for server in servers:
        server.stop()
