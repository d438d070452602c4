"""Bulk writes: streamed in frames of about 1 MiB, visible at once at the commit, or never.

A bulk has a connection of its own: its life is the bulk's (closing it takes everything back), other
threads' calls do not wait for it, and the caller's iterator may itself ask the cache.
"""

from __future__ import annotations

import os
from time import monotonic

from autoloadd_protocol.encoding import (
    encode_optional_int,
    encode_str,
    encode_uint,
    map_header,
)
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.limits import FRAME_BYTES, NAMES
from autoloadd_protocol.requests import parse_uint_answer, request_frame

from .checks import encode_pair
from .errors import ConnectionLostError, ForgedError

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

    from .cache import Blob, Entries
    from .connection import Connection
    from .entry import Entry

CHUNK_BYTES = 1024 * 1024
"""A chunk is sent when it has reached this. With one more blob it stays well below a frame."""

_OTHER_BYTES = 64
"""What a `put_many` holds beside its entries is less."""


class Chunk:
    """Some entries of a bulk, encoded. Of two entries with one name the later stays."""

    def __init__(self) -> None:
        self.encoded_bytes = 0
        self._pairs: dict[str, bytes] = {}

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._pairs)

    def add(self, name: str, entry: Blob | Entry) -> None:
        """Take one more entry. Raises BadRequestError or TooLargeError."""
        pair = encode_pair(name, entry)
        self.encoded_bytes += len(pair) - len(self._pairs.get(name, b""))
        self._pairs[name] = pair

    def is_full(self) -> bool:
        """Tell whether it is time to send it."""
        return self.encoded_bytes >= CHUNK_BYTES or len(self._pairs) == NAMES

    def fits_frame(self) -> bool:
        """Tell whether one request can hold it, with what else stands in a `put_many`."""
        return self.encoded_bytes <= FRAME_BYTES - _OTHER_BYTES and len(self._pairs) <= NAMES

    def encode(self) -> bytes:
        """Return the map of entries."""
        return map_header(len(self._pairs)) + b"".join(self._pairs.values())


def chunks_of(entries: Iterable[tuple[str, Blob | Entry]]) -> Iterator[Chunk]:
    """Yield all entries in chunks; the last one may be small, and the only one empty."""
    chunk = Chunk()
    sent = False
    for name, entry in entries:
        chunk.add(name, entry)
        if chunk.is_full():
            yield chunk
            chunk, sent = Chunk(), True
    if chunk or not sent:
        yield chunk


def pairs_of(entries: Entries) -> Iterable[tuple[str, Blob | Entry]]:
    """Return the pairs of a mapping, or of what has pairs already."""
    from collections.abc import Mapping  # noqa: PLC0415

    return entries.items() if isinstance(entries, Mapping) else entries


class Bulk:
    """One bulk, as a context: what is not committed at its end is taken back.

    `seconds` bounds the time spent with the daemon, from begin to commit; the time that the
    caller takes to come up with entries is not counted.
    """

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds_left = seconds
        self._pid = os.getpid()
        self._token = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Close the connection: the daemon forgets a bulk that was not committed."""
        if self._pid == os.getpid():
            self._connection.close(monotonic())
        else:
            self._connection.abandon()

    def begin(self, mode: str, *, binary_mtime_ns: int | None, built_at_ns: int | None) -> None:
        """Open a bulk. `mode` is "merge" or "replace"."""
        times = encode_optional_int(binary_mtime_ns), encode_optional_int(built_at_ns)
        token = self._ask(b"bulk_begin", encode_str(mode.encode()), *times)
        self._token = encode_uint(token)

    def add(self, chunk: Chunk) -> None:
        """Send some entries. Raises ConnectionLostError: nothing of the bulk was applied."""
        try:
            self._ask(b"bulk_add", self._token, chunk.encode())
        except ConnectionLostError as exc:
            raise ConnectionLostError(f"nothing of the bulk was applied: {exc}") from exc

    def commit(self, sync: str) -> int:
        """Make all of it visible; return the generation.

        Raises ConnectionLostError: all of it or nothing was applied.
        """
        try:
            return self._ask(b"bulk_commit", self._token, encode_str(sync.encode()))
        except ConnectionLostError as exc:
            raise ConnectionLostError(f"all of the bulk was applied, or nothing: {exc}") from exc

    def _ask(self, method: bytes, *params: bytes) -> int:
        if self._pid != os.getpid():
            raise ConnectionLostError("a bulk cannot be continued in a forked process")
        request = request_frame(self._connection.next_id(), method, *params)
        started = monotonic()
        try:
            # A bulk lives and ends with its connection: there is nothing to try again on another.
            answer = self._connection.exchange(request, started + self._seconds_left, again=False)
            return parse_uint_answer(answer)
        except FrameError as exc:
            raise ForgedError(str(exc)) from exc
        finally:
            self._seconds_left -= monotonic() - started


def write(
    bulk: Bulk,
    chunks: Iterable[Chunk],
    *,
    sync: str,
    before_commit: Callable[[], None],
    on_progress: Callable[[int], None] | None,
) -> int:
    """Send all chunks and commit; return the generation. See `Cache.merge` for `on_progress`."""
    sent = 0
    for chunk in chunks:
        bulk.add(chunk)
        sent += len(chunk)
        if on_progress is not None:
            on_progress(sent)
    before_commit()
    return bulk.commit(sync)
