"""One marked line in a shell's start-up file: put in, and taken out again to the byte.

Bytes in, bytes out. What the file was like is in the mark itself, so that no other record is needed
to undo it:

    # autoloadd                       a line like any other
    # autoloadd (+newline)            the file's last line had no end: it was given one
    # autoloadd (+file)               there was no file
"""

from __future__ import annotations

import re

_MARK = b"# autoloadd"
_ADDED_NEWLINE = b" (+newline)"
_ADDED_FILE = b" (+file)"

_OURS = re.compile(
    rb"(?m)^(?:\[ ! -r .* \] \|\| \. .*|test ! -r .*; or source .*"
    # As they were at first: with status 1 where the file is gone.
    rb"|\[ -r .* \] && \. .*|test -r .*; and source .*)  # autoloadd"
    rb"(?P<added>| \(\+newline\)| \(\+file\))(?P<end>\r?\n|\Z)"
)


def find_line(content: bytes) -> bytes | None:
    """Return the line that is there, without its mark and end; None: there is none."""
    found = _OURS.search(content)
    return None if found is None else found[0].partition(b"  " + _MARK)[0]


def ends_in_continuation(content: bytes) -> bool:
    """Tell whether what is written behind everything belongs to the last line: `x \\`."""
    last = content.removesuffix(b"\n").rpartition(b"\n")[2]
    backslashes = len(last) - len(last.rstrip(b"\\"))
    return backslashes % 2 == 1 and not last.lstrip().startswith(b"#")


def add_line(content: bytes | None, command: bytes) -> bytes:
    """Return a file with the line: in the place of the one that is there, or behind everything.

    `content` is None where there is no file. Lines end as the last one does.
    """
    found = _OURS.search(content or b"")
    if content is not None and found is not None:
        line = command + b"  " + _MARK + found["added"] + found["end"]
        return content[: found.start()] + line + content[found.end() :]
    if content is None:
        return command + b"  " + _MARK + _ADDED_FILE + b"\n"
    end = b"\r\n" if content.endswith(b"\r\n") else b"\n"
    if content and not content.endswith(b"\n"):
        end = b"\r\n" if b"\r\n" in content else b"\n"
        return content + end + command + b"  " + _MARK + _ADDED_NEWLINE + end
    return content + command + b"  " + _MARK + end


def remove_line(content: bytes) -> bytes | None:
    """Return a file without the line; None: nothing is left of a file that came with it.

    What was written behind the line since then keeps the line before apart from it.
    """
    found = _OURS.search(content)
    if found is None:
        return content
    before, after = content[: found.start()], content[found.end() :]
    if found["added"] == _ADDED_NEWLINE and not after:
        before = before.removesuffix(found["end"])
    rest = before + after
    return None if found["added"] == _ADDED_FILE and not rest else rest
