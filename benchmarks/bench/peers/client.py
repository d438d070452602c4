"""What is measured of a peer: a client that is open, and how to open one in any process."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.verdicts import PeerFailedError
from bench.workload import MTIME_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MTIME = struct.Struct("<Q")
MTIME_BYTES = _MTIME.size
PREFIX = _MTIME.pack(MTIME_NS)
"""A store that knows no mtimes keeps it in front of the blob."""

read_mtime = _MTIME.unpack_from


@dataclass(frozen=True)
class Client:
    """An open client. `get` returns the newest fresh bytes, or None.

    They are plain attributes: what is timed is the library's own call, with as little around it as
    its semantics need.
    """

    get: Callable[[str], bytes | None]
    close: Callable[[], object]
    get_many: Callable[[Sequence[str]], dict[str, bytes]] | None = None
    put: Callable[[str, bytes], object] | None = None


@dataclass(frozen=True)
class Peer:
    """A kind of client. `open` can be sent to another process; `errors` is what it may raise."""

    key: str
    open: Callable[[], Client]
    errors: tuple[type[Exception], ...] = (OSError,)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what the library raises within into PeerFailedError: the run is invalid."""
        try:
            yield
        except self.errors as exc:
            raise PeerFailedError(f"{self.key}: {str(exc) or type(exc).__name__}") from exc


def fresh_bytes(value: bytes | None) -> bytes | None:
    """Return the blob of a stored mtime and blob; None when it is absent or stale."""
    if value is None or read_mtime(value)[0] < MTIME_NS:
        return None
    return value[MTIME_BYTES:]
