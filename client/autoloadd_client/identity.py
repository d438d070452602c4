"""Who asks: the producer, and the time of the binary that compiles."""

from __future__ import annotations

import os

from autoloadd_protocol.errors import RequestError
from autoloadd_protocol.producer import Producer, parse_producer, producer_from_map

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from os import PathLike


def read_producer(producer: Producer | str | None) -> Producer | None:
    """Return a producer that may be given as NAME/VERSION/WIDTH[/BUILD].

    Raises ValueError that says what was expected.
    """
    if producer is None:
        return None
    given = parse_producer(producer) if isinstance(producer, str) else producer
    if not isinstance(given, Producer):
        raise ValueError(f"{given!r:.80} is no Producer")  # noqa: TRY004 - all it raises
    try:
        # By way of the wire form: the daemon's rules, before anything is sent.
        return producer_from_map(given.as_map())
    except RequestError as exc:
        raise ValueError(exc.message) from exc


def read_binary_time(binary: str | PathLike[str] | None, binary_mtime_ns: int | None) -> int | None:
    """Return the time (ns) that entries are compared with: given, or that of the file at a path.

    The caller says which binary it is: what runs a process cannot be told reliably from outside.
    Symbolic links are followed. Raises ValueError when both are given, OSError for a path that
    cannot be looked at.
    """
    if binary is None:
        return binary_mtime_ns
    if binary_mtime_ns is not None:
        raise ValueError("give either binary or binary_mtime_ns, not both")
    return os.stat(binary).st_mtime_ns
