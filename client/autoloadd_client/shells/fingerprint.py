"""The canonical fingerprint of a file: what changes when the file does."""

from __future__ import annotations

import os


def fingerprint_file(path: str) -> bytes:
    """Return `realpath NUL size NUL inode NUL mtime_ns NUL` of a file (bytes, ns).

    Symbolic links are followed. The text is not hashed: a shell computes the same without a fork,
    see docs/protocol.md. Raises OSError where the file cannot be found.
    """
    real = os.path.realpath(path, strict=True)
    return describe(real, os.stat(real))


def describe(real: str, found: os.stat_result) -> bytes:
    """Return the same for a file that was looked at already; `real` is its real path."""
    numbers = b"\0%d\0%d\0%d\0" % (found.st_size, found.st_ino, found.st_mtime_ns)
    return os.fsencode(real) + numbers
