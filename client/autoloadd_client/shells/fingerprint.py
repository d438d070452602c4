"""The canonical fingerprint of a file: what changes when the file does."""

from __future__ import annotations

import os


def fingerprint_file(path: str) -> bytes:
    """Return `realpath NUL size NUL inode NUL mtime_ns NUL` of a file (bytes, ns).

    Symbolic links are followed. The text is not hashed: a shell computes the same without a fork,
    see docs/protocol.md. Raises OSError where the file cannot be found.
    """
    real = os.path.realpath(path, strict=True)
    found = os.stat(real)
    numbers = f"\0{found.st_size}\0{found.st_ino}\0{found.st_mtime_ns}\0"
    return os.fsencode(real) + numbers.encode("ascii")
