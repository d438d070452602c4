"""One bug to plant: texts that occur exactly once in a file, and what stands there instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


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
        try:
            compile(changed, change.file, "exec")
        except SyntaxError as exc:
            raise MutationError(f"{self.name}: {change.file} is no Python then: {exc}") from exc
        return changed
