"""Real programs whose start-up text and completion the tests compare, in a place of their own."""

from __future__ import annotations

from pathlib import Path

from tool_home import keep_tools

PACKAGES = ("flask", "black", "awscli", "uvicorn", "typer")

_HOME = Path(__file__).parents[2] / ".venvs" / "tools"


def tool_home() -> Path:
    """Return a virtual environment with PACKAGES in it. It is made once, and kept between runs.

    Raises CalledProcessError, with what pip said, where it cannot be made.
    """
    return keep_tools(_HOME, PACKAGES)
