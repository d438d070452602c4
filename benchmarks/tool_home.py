"""Programs from PyPI in a virtual environment of their own: the tools that shells complete."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INSTALL_SECONDS = 500.0


def keep_tools(home: Path, packages: Sequence[str]) -> Path:
    """Return a virtual environment with these packages. It is made once, and kept between runs.

    Raises CalledProcessError, with what pip said, where it cannot be made.
    """
    home.parent.mkdir(exist_ok=True)
    wanted = f"{sys.version}\n{tuple(packages)}\n"
    mark = home / "installed"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(home))
            _run(str(home / "bin" / "pip"), "install", "-qq", *packages)
            mark.write_text(wanted)
    return home


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
