from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Tool:
    """A program that prints what its script prints, and writes down that it ran."""

    path: Path

    @property
    def runs(self) -> int:
        """How often it ran."""
        record = self.path.with_suffix(".ran")
        return len(record.read_text().splitlines()) if record.exists() else 0

    def write(self, script: str) -> None:
        """Make it another program, in another file."""
        self.path.unlink(missing_ok=True)
        self.path.write_text(f"#!/bin/sh\necho ran >> {self.path.with_suffix('.ran')}\n{script}\n")
        self.path.chmod(0o755)


@pytest.fixture
def tool(home: Path) -> Tool:
    """A program of the test's own."""
    made = Tool(home / "tool")
    made.write("echo 'GREETING=hello'")
    return made
