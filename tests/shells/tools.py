"""Real programs whose start-up text and completion the tests compare, in a place of their own."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("flask", "black", "awscli", "uvicorn", "typer")
INSTALL_SECONDS = 500.0

_HOME = Path(__file__).parents[2] / ".venvs" / "tools"


def tool_home() -> Path:
    """Return a virtual environment with PACKAGES in it. It is made once, and kept between runs.

    Raises CalledProcessError, with what pip said, where it cannot be made.
    """
    _HOME.parent.mkdir(exist_ok=True)
    wanted = f"{sys.version}\n{PACKAGES}\n"
    mark = _HOME / "installed"
    with _HOME.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            shutil.rmtree(_HOME, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(_HOME))
            _run(str(_HOME / "bin" / "pip"), "install", "--quiet", *PACKAGES)
            mark.write_text(wanted)
    return _HOME


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
