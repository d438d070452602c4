"""The real command line, in a process of its own, beside the real daemon."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ..running import Daemon, own_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Ctl = Callable[..., subprocess.CompletedProcess[bytes]]

__all__ = ["Daemon"]

RUN_SECONDS = 60.0


@pytest.fixture
def run_directory(home: Path) -> Path:
    """The directory of the socket of `daemon`, whether it runs or not: ours, mode 0700."""
    return home


@pytest.fixture
def ctl(run_directory: Path) -> Ctl:
    """Run autoloadctl against the test's own socket, whether anyone is there or not."""

    def run(
        *arguments: str | bytes | Path,
        given: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "autoloadd_client.cli", *arguments],
            input=given,
            capture_output=True,
            check=False,
            timeout=RUN_SECONDS,
            env=ctl_environment(run_directory, environment or {}),
        )

    return run


def ctl_environment(run_directory: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which only the test decides what autoloadctl does."""
    return own_environment({"AUTOLOADD_SOCKET": str(run_directory / "socket"), **more})
