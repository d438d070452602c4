"""A daemon with a small workload, and the compiled load generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.daemons import Server, fill_daemon
from bench.load import Load, build
from bench.workload import make_workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..running import Daemon

ENTRIES = 1_000
"""3 MB: enough for the daemon to build an image of them at once."""


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The load generator. It is an error, not a skip, where there is no compiler."""
    return build(tmp_path_factory.mktemp("load"))


@pytest.fixture
def workload_file(tmp_path: Path) -> Path:
    """The file of a workload of ENTRIES."""
    path = tmp_path / "workload"
    make_workload(ENTRIES).write(path)
    return path


@pytest.fixture
def filled(daemon: Daemon) -> Server:
    """A daemon that has it."""
    fill_daemon(daemon.socket_path, make_workload(ENTRIES))
    return Server(daemon.socket_path, daemon.pid, daemon.directory)


@pytest.fixture
def make_load(program: Path, workload_file: Path) -> Callable[..., Load]:
    """Make a load of a tenth of a second on a socket."""

    def make(socket_path: str, **options: object) -> Load:
        chosen = {"protocol": "autoloadd", "seconds": 0.1, **options}
        return Load(
            program=program, socket_path=socket_path, workload=workload_file,
            **chosen,  # type: ignore[arg-type]
        )  # fmt: skip

    return make
