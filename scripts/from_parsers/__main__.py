"""Write the files, or with --check say which of them are not what the parsers say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import bash, fish, man, zsh
from .commands import Program, both_programs

ROOT = Path(__file__).parents[2]


def make_files(program: Program) -> dict[str, str]:
    """Return the text of each file about a program, by its path in the checkout."""
    return {
        f"docs/man/{program.name}.1": man.page(program),
        f"completions/_{program.name}": zsh.script(program),
        f"completions/{program.name}.bash": bash.script(program),
        f"completions/{program.name}.fish": fish.script(program),
    }


def main() -> int:
    """Run; return the exit code: 1 where --check found a difference."""
    parser = argparse.ArgumentParser(prog="scripts/manual", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where one differs")
    check = parser.parse_args().check
    different = 0
    for program in both_programs():
        for path, text in make_files(program).items():
            different += _settle(path, text, check=check)
    return 1 if check and different else 0


def _settle(path: str, text: str, *, check: bool) -> bool:
    """Write one file, or just say that it is another one. Tell whether it was."""
    file = ROOT / path
    if file.exists() and file.read_text() == text:
        return False
    if not check:
        file.write_text(text)
    print(f"{path}: {'is not what the parser says; run scripts/manual' if check else 'written'}")
    return True


if __name__ == "__main__":
    sys.exit(main())
