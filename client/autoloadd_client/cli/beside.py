"""Writing a file so that its name stands for the old bytes or for all of the new ones."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .conventions import UsageError
from .descriptors import write_all
from .ending import end_cleanly_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BATCH_BYTES = 1024 * 1024

_MODE = 0o600


def write_beside(path: str, parts: Iterable[bytes]) -> int:
    """Write a file beside `path`, sync it, give it the name; return its bytes.

    A link stays, and what it points to is replaced. Until the end nothing is changed, and what is
    left half-way is removed, also on SIGTERM and SIGHUP. Raises UsageError for what the system
    refuses, and whatever `parts` raise.
    """
    end_cleanly_on_signals()
    target = os.path.realpath(path)
    temporary = f"{target}.tmp-{os.urandom(6).hex()}"
    try:
        _check_replaceable(path)
        with _opened(os.path.dirname(target)) as directory:
            written = _write_synced(temporary, parts)
            os.rename(temporary, target)
            _sync_name(directory, path)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}; nothing was written") from exc
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    return written


def write_batches(descriptor: int, parts: Iterable[bytes]) -> int:
    """Write parts, some at a time; return how many bytes there were. Raises OSError."""
    batch: list[bytes] = []
    waiting = written = 0
    for part in parts:
        batch.append(part)
        waiting += len(part)
        if waiting >= BATCH_BYTES:
            write_all(descriptor, b"".join(batch))
            written += waiting
            batch, waiting = [], 0
    write_all(descriptor, b"".join(batch))
    return written + waiting


def _check_replaceable(path: str) -> None:
    """Refuse what is no regular file: a rename would put one in the place of a device."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UsageError(f"{path} is there and is no regular file; - writes to stdout")


def _write_synced(temporary: str, parts: Iterable[bytes]) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, _MODE)
    try:
        written = write_batches(descriptor, parts)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return written


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    """A directory's descriptor: one that cannot be had is told before anything is replaced."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_name(directory: int, path: str) -> None:
    try:
        os.fsync(directory)
    except OSError as exc:
        reason = f"its directory could not be synced: {exc.strerror}"
        raise UsageError(f"{path} is written, and a power loss may take it: {reason}") from exc
