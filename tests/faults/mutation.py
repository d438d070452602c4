"""One bug to plant: a text that occurs exactly once in a file, and what stands there instead."""

from __future__ import annotations

from dataclasses import dataclass


class MutationError(Exception):
    """A bug cannot be planted, or its tests cannot be run: the message says what to mend."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file`, `old` becomes `new`; one of `tests` (paths or node ids) should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def plant(self, text: str) -> str:
        """Return the file's text with the bug in it. Raises MutationError if it does not apply."""
        count = text.count(self.old)
        if count != 1:
            raise MutationError(
                f"{self.name}: its text occurs {count} times in {self.file}, not once; write the "
                f"bug anew in the list that tests/faults/mutations.py has:\n{self.old}"
            )
        changed = text.replace(self.old, self.new)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as exc:
            raise MutationError(f"{self.name}: {self.file} is no Python then: {exc}") from exc
        return changed
