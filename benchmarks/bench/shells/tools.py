"""The tools that shells complete, from PyPI, in a virtual environment of their own.

npm, zsh, bash, fish and git are the system's: scripts/bench installs them.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from bench.verdicts import CannotMeasureError

PACKAGES = ("argcomplete", "awscli", "black", "flask", "hatch", "typer", "uvicorn")
INSTALL_SECONDS = 500.0

_HOME = Path(__file__).parents[3] / ".bench" / "tools"


def keep_tools() -> Path:
    """Return the environment. It is made once, and kept between runs.

    Raises CannotMeasureError where it cannot be made; what pip said of it is on stderr.
    """
    wanted = f"{sys.version}\n{PACKAGES}\n"
    mark = _HOME / "installed"
    with _HOME.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            try:
                _install()
            except subprocess.SubprocessError as exc:
                names = ", ".join(PACKAGES)
                raise CannotMeasureError(f"{names} cannot be installed: {exc}") from exc
            mark.write_text(wanted)
    return _HOME


def _install() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(_HOME))
    _run(str(_HOME / "bin" / "pip"), "install", "-qq", *PACKAGES)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
