"""What a terminal shows on its last line, of the bytes that a shell has sent."""

from __future__ import annotations

import re

_PARTS = re.compile(
    r"\x1b\[(?P<number>[0-9;?<>=]*)[ -/]*(?P<move>[@-~])"
    r"|\x1b\][^\x07\x1b]*(\x07|\x1b\\)"
    r"|\x1b[()*+][0-9A-Z]"
    r"|\x1b[^\[\]]"
    r"|(?P<character>.)",
    re.DOTALL,
)


def last_line(sent: bytes) -> str:
    """Return the text of the line that the cursor is in, without blanks at its end.

    For shells' own editing of one line: moves up or down are not followed.
    """
    cells: list[str] = []
    column = 0
    for part in _PARTS.finditer(sent.decode(errors="replace")):
        character, move = part["character"], part["move"]
        if character is None and move is None:
            continue
        if move is not None:
            column = _moved(cells, column, move, part["number"])
        elif character == "\n":
            cells, column = [], 0
        elif character == "\r":
            column = 0
        elif character == "\b":
            column = max(column - 1, 0)
        elif character >= " ":
            _write(cells, column, character)
            column += 1
    return "".join(cells).rstrip()


def _moved(cells: list[str], column: int, move: str, number: str) -> int:
    """Obey a control sequence; return the column after it."""
    count = int(number) if number.isdigit() else 0
    match move:
        case "C":
            return column + max(count, 1)
        case "D":
            return max(column - max(count, 1), 0)
        case "G":
            return max(count, 1) - 1
        case "P":
            del cells[column : column + max(count, 1)]
        case "J" | "K" if count == 0:
            del cells[column:]
        case "K" if count == 2:
            cells.clear()
        case _:
            pass
    return column


def _write(cells: list[str], column: int, character: str) -> None:
    cells.extend(" " * (column + 1 - len(cells)))
    cells[column] = character
