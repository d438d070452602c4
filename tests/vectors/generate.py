"""Writes the test vectors. They are frozen: run it only to add some, and look at the difference.

It stands on the msgpack package and on nothing of autoloadd, so that the project's own encoders are
checked against bytes they had no part in. `python -m tests.vectors.generate [DIRECTORY]`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .boundaries import boundaries
from .dialogue import dialogues
from .messages import answers, requests
from .refused import refused


def write_all(directory: Path) -> None:
    """Write every file into a directory."""
    files = {
        "requests": requests(),
        "answers": answers(),
        "boundaries": boundaries(),
        "refused": refused(),
        "dialogue": dialogues(),
    }
    for name, cases in files.items():
        lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
        (directory / f"{name}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
