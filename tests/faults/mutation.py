"""One bug to plant: texts that occur exactly once in a file, and what stands there instead."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


_SHELLS = (".bash", ".fish")


class MutationError(Exception):
    """A bug cannot be planted, or its tests cannot be run: the message says what to mend."""


class Change(NamedTuple):
    """In `file`, `old` becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file`, `old` becomes `new`; one of `tests` (paths or node ids) should notice.

    `also` are further changes, where two places guard against the same.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    also: tuple[Change, ...] = ()

    def plant(self, root: Path) -> dict[str, str]:
        """Return the texts of files below `root` with the bug in them; nothing is written.

        Raises MutationError where it does not apply.
        """
        texts: dict[str, str] = {}
        for change in (Change(self.file, self.old, self.new), *self.also):
            text = texts.get(change.file) or (root / change.file).read_text()
            texts[change.file] = self._make(change, text)
        return texts

    def _make(self, change: Change, text: str) -> str:
        count = text.count(change.old)
        if count != 1:
            raise MutationError(
                f"{self.name}: its text occurs {count} times in {change.file}, not once; write the "
                f"bug anew in the list that tests/faults/mutations.py has:\n{change.old}"
            )
        changed = text.replace(change.old, change.new)
        if change.file.endswith(_SHELLS):
            self._check_shell(change.file, changed)
        else:
            self._check_python(change.file, changed)
        return changed

    def _check_python(self, file: str, text: str) -> None:
        try:
            compile(text, file, "exec")
        except SyntaxError as exc:
            raise MutationError(f"{self.name}: {file} is no Python then: {exc}") from exc

    def _check_shell(self, file: str, text: str) -> None:
        shell = file.rpartition(".")[2]
        read = subprocess.run(
            [shell, "-n"], input=text, capture_output=True, text=True, check=False
        )
        if read.returncode != 0:
            raise MutationError(f"{self.name}: {file} is no {shell} then: {read.stderr}")
