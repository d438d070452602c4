"""`autoloadctl cached` beside a daemon, and a tool that counts its runs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ..slow_tool import Tool, shell_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...running import Daemon

    Cached = Callable[..., subprocess.CompletedProcess[bytes]]

COMMAND = [sys.executable, "-m", "autoloadd_client.cli", "cached"]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    made = Tool(tmp_path / "bin")
    made.directory.mkdir()
    made.write("echo slow $*")
    return made


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    """A daemon that serves, with nothing in it."""
    return shared_daemon


@pytest.fixture
def cached(tool: Tool, asked_daemon: Daemon, tmp_path: Path) -> Cached:
    """Run `autoloadctl cached`, whether the daemon runs or not."""

    def run(*arguments: str, command: list[str] = COMMAND, **more: Any) -> Any:
        environment = shell_environment(tmp_path, tool, asked_daemon, **more)
        return subprocess.run(
            [*command, *arguments],
            capture_output=True, check=False, timeout=60, env=environment, cwd=tmp_path,
        )  # fmt: skip

    return run
