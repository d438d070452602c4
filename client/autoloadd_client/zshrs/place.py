"""Where zshrs keeps its cache file: `$ZSHRS_HOME`, or `~/.zshrs`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "autoloads.rkyv"


def default_path(environment: Mapping[str, str]) -> str:
    """Return the path of the file that zshrs reads and writes in this environment."""
    home = environment.get("ZSHRS_HOME") or os.path.expanduser("~/.zshrs")
    return os.path.join(home, FILE_NAME)
