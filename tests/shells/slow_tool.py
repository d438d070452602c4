"""A tool that counts its runs, and a place where shells find it and autoloadctl."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..running import own_environment

if TYPE_CHECKING:
    from pathlib import Path

    from ..running import Daemon

PATIENT = "20000"
"""AUTOLOADD_WAIT_MS: a busy machine must not count as a daemon that hangs."""

UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}
"""For autoloadctl where other tests measure it: as quick as for users, and not five times slower
under coverage."""


@dataclass(frozen=True)
class Tool:
    """A program `slow` in a directory of PATH."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "slow"

    @property
    def runs(self) -> int:
        """How often it has been run."""
        try:
            return len((self.directory / "runs").read_text())
        except FileNotFoundError:
            return 0

    def write(self, text: str) -> None:
        """Make it run these lines of sh, after it was counted."""
        self.path.write_text(f"#!/bin/sh\nprintf x >> {self.directory}/runs\n{text}\n")
        self.path.chmod(0o755)


def shell_environment(home: Path, tool: Tool, daemon: Daemon, **more: str) -> dict[str, str]:
    """Return the environment of a shell whose home is a test's own."""
    path = [str(tool.directory), os.path.dirname(sys.executable), os.environ["PATH"]]
    return own_environment(
        {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "PATH": ":".join(path),
            "AUTOLOADD_SOCKET": daemon.socket_path,
            "AUTOLOADD_WAIT_MS": PATIENT,
            "LC_ALL": "C.UTF-8",
            **more,
        }
    )
