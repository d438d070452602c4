"""A directory of functions, a daemon, and what zsh makes of both."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ...e2e.conftest import ctl
from ...running import own_environment

if TYPE_CHECKING:
    from pathlib import Path

    from ...e2e.conftest import Ctl
    from ...running import Daemon

__all__ = ["ctl"]

LONG_AGO = 1_600_000_000


def run_zsh(script: str, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a zsh without start-up files."""
    return subprocess.run(
        ["zsh", "-fc", script, "zsh", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60,
        env=own_environment({"HOME": str(home), "ZDOTDIR": str(home)}),
    )  # fmt: skip


@dataclass(frozen=True)
class Farm:
    """A test's own functions, and the farm that is published for them."""

    directory: Path
    run_directory: Path
    ctl: Ctl

    @property
    def place(self) -> Path:
        return next(self.run_directory.glob("zsh-*"))

    @property
    def parts(self) -> list[Path]:
        """What the plugin puts first in fpath."""
        return [self.place / "completions", self.place / "farm"]

    @property
    def farm(self) -> Path:
        return self.place / "farm"

    @property
    def digest(self) -> Path:
        return self.place / "farm.zwc"

    def digest_for(self, name: str) -> Path:
        """Return the digest that a function is in."""
        return self.place / ("completions.zwc" if name.startswith("_") else "farm.zwc")

    def write(self, name: str, text: str, *, at: int = LONG_AGO) -> Path:
        """Write a function, as it was at a time in seconds."""
        path = self.directory / name
        path.write_text(text)
        os.utime(path, (at, at))
        return path

    def publish(self, *fpath: Path, status: int = 0) -> dict[str, Any]:
        """Publish, and return what autoloadctl says of it."""
        directories = fpath or (self.directory,)
        ran = self.ctl("publish", "zsh", "--json", "--fpath", *directories)
        assert (ran.returncode, ran.stderr) == (status, b"")
        said: dict[str, Any] = json.loads(ran.stdout)
        return said

    def call(self, script: str, *, without: bool = False) -> tuple[str, str]:
        """Return what zsh prints, with the farm first in fpath, or without it."""
        fpath = [self.directory] if without else [*self.parts, self.directory]
        ran = run_zsh(f"fpath=($@)\n{script}", *fpath, home=self.run_directory)
        return ran.stdout, ran.stderr

    def is_served(self, name: str) -> bool:
        """Tell whether zsh takes a function from the farm, and not from its directory."""
        out, err = self.call(f"autoload +X -Uz {name} && print -r -- $functions_source[{name}]")
        assert err == ""
        return out in [f"{part}/{name}\n" for part in self.parts]


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    """A daemon that serves, with nothing in it or beside it."""
    return shared_daemon


@pytest.fixture
def run_directory(asked_daemon: Daemon) -> Path:
    """The directory of the socket, whether a daemon runs or not."""
    return asked_daemon.directory


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    directory = tmp_path / "functions"
    directory.mkdir()
    return directory


@pytest.fixture
def farm(functions: Path, run_directory: Path, ctl: Ctl, daemon: Daemon) -> Farm:
    """Functions that were written long ago, and a daemon."""
    assert daemon.process is not None
    made = Farm(functions, run_directory, ctl)
    made.write("hello", "print -r -- hello $1\n")
    made.write("_thing", "#compdef thing\nprint -r -- thing\n")
    return made


def this_second() -> int:
    """Return the current second, with most of it still to come."""
    while time.time() % 1 > 0.5:
        time.sleep(0.05)
    return int(time.time())
