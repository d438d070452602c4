from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ...running import Daemon, own_environment, private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = Path(__file__).parents[3] / "completions"
NAMES = ("_git", "_gitk", "_ls", "a b", "x:y", "$(touch pwned)", "-dash", "it's")
TOOLS = ("flask", "black")


@dataclass(frozen=True)
class Place:
    """A daemon with entries, and an environment whose `autoloadctl` writes down how it is run."""

    directory: Path
    daemon: Daemon
    environment: dict[str, str]

    @property
    def work(self) -> Path:
        """Where the shells are."""
        return self.directory / "work"

    def asked(self) -> list[str]:
        """Return the command lines since the last time."""
        record = self.directory / "asked"
        lines = record.read_text().splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        return lines


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with private_directory() as directory:
        daemon = Daemon(directory)
        try:
            yield _prepare(directory, daemon.start())
        finally:
            daemon.end()


def _prepare(directory: Path, daemon: Daemon) -> Place:
    for producer, names in (("zsh/5.9/8", NAMES), ("tool-output/1/8", TOOLS)):
        with daemon.cache(producer) as cache:
            cache.put_many(dict.fromkeys(names, b"x"))
    (directory / "work").mkdir()
    (directory / "work" / "file").touch()
    tools = directory / "tools"
    tools.mkdir()
    real = Path(sys.executable).with_name("autoloadctl")
    (tools / "autoloadctl").write_text(
        f'#!/bin/sh\necho "$@" >> {directory}/asked\nexec {real} "$@"\n'
    )
    (tools / "autoloadctl").chmod(0o755)
    # fish completes no command that is not there.
    (tools / "autoloadd").symlink_to(real.with_name("autoloadd"))
    environment = {
        "HOME": str(directory),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(directory / "config"),
        "XDG_DATA_HOME": str(directory / "data"),
        "AUTOLOADD_SOCKET": daemon.socket_path,
        "AUTOLOADD_PRODUCER": "zsh/5.9/8",
        "LC_ALL": "C.UTF-8",
        "HISTFILE": "",
    }
    return Place(directory, daemon, own_environment(environment))
