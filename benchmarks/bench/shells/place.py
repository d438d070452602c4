"""A home with a daemon and tools, in which shells are started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import autoloadd_client.shells
from bench.daemons import start_daemon, stop_daemon
from bench.verdicts import CannotMeasureError, PeerFailedError
from shell_tools import ToolsMissingError, tool_home

if TYPE_CHECKING:
    from bench.setting import Setting

SHELLS = Path(autoloadd_client.shells.__file__).parent

_SYSTEM = "/usr/local/bin:/usr/bin:/bin"
_APP = "from flask import Flask\napp = Flask(__name__)\n"


class Place:
    """One daemon, and shells' home with an application for flask in it."""

    def __init__(self, setting: Setting, name: str) -> None:
        """Raise BenchError where the tools cannot be installed, or the daemon does not start."""
        try:
            tools = tool_home()
        except ToolsMissingError as exc:
            raise CannotMeasureError(str(exc)) from exc
        self.directory = setting.servers.directory(name)
        self.home = self.directory / "home"
        self.home.mkdir()
        (self.home / "app.py").write_text(_APP)
        self._daemon = start_daemon(self.directory)
        path = [str(tools / "bin"), os.path.dirname(sys.executable), _SYSTEM]
        self.environment = {
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "PATH": ":".join(path),
            "AUTOLOADD_SOCKET": self._daemon.socket_path,
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
        }

    def close(self) -> None:
        """Stop the daemon."""
        stop_daemon(self._daemon)

    @property
    def compinit(self) -> str:
        """Return the line of .zshrc that starts zsh's completion, with the dump that all share."""
        return f"autoload -Uz compinit; compinit -u -d {self.directory}/dump"

    @cached_property
    def plugin(self) -> str:
        """Return the line of .zshrc that reads the plugin; it is compiled, as managers do it."""
        copy = self._copy_plugin("compiled")
        self.zsh(f"zcompile {copy}")
        return f"source {copy}"

    @cached_property
    def plain_plugin(self) -> str:
        """Return the same line for a plugin that nobody compiled."""
        return f"source {self._copy_plugin('plain')}"

    def publish(self, *fpath: str) -> Path:
        """Publish zsh's compiled functions; return the directory to put first in fpath."""
        directories = fpath or self.zsh("print -rl -- $fpath").split()
        self._autoloadctl("publish", "zsh", "--fpath", *directories)
        printed = self._autoloadctl("publish", "zsh", "--print-dir", "--fpath", *directories)
        return Path(printed.splitlines()[0])

    def copy_functions(self) -> list[str]:
        """Return an fpath like zsh's own, but without the compiled files that Debian puts there."""
        copies = []
        for number, directory in enumerate(self.zsh("print -rl -- $^fpath(N/)").split()):
            copy = self.directory / "fpath" / str(number)
            # With their times: functions that are of this very second are not published.
            shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.zwc"))
            copies.append(str(copy))
        return copies

    def zsh(self, script: str) -> str:
        """Return what a script prints, in a zsh without start-up files."""
        return _output(["zsh", "-f", "-c", script], self.environment)

    def check_daemon(self) -> None:
        """Raise PeerFailedError where shells have left the daemon alone: they ran the tools."""
        if (self.directory / "zsh-away").exists():
            raise PeerFailedError("the daemon did not answer in time, and shells left it alone")

    def _copy_plugin(self, place: str) -> Path:
        copy = self.directory / place / "autoloadd.plugin.zsh"
        copy.parent.mkdir()
        shutil.copy2(SHELLS / copy.name, copy)
        return copy

    def _autoloadctl(self, *arguments: str) -> str:
        return _output([sys.executable, "-m", "autoloadd_client.cli", *arguments], self.environment)


class InPlace(ABC):
    """An experiment with a place of its own, which is not left behind where it cannot start."""

    NAME: ClassVar[str]
    TIMES: ClassVar[int]
    """How often each kind is measured in a round of a full run."""

    def __init__(self, setting: Setting) -> None:
        """Raise BenchError where it cannot be measured."""
        self.times = setting.times(self.TIMES)
        self.place = Place(setting, self.NAME)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def start(self) -> None:
        """Do what comes before the first round."""

    def close(self) -> None:
        """Stop the daemon."""
        self.place.close()


def _output(command: list[str], environment: dict[str, str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode != 0 or ran.stderr:
        raise PeerFailedError(f"{command[:4]}: status {ran.returncode}: {ran.stderr.strip()}")
    return ran.stdout.strip()
