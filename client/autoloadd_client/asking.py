"""Single entries, asked for over the socket: what every shared read falls back to."""

from __future__ import annotations

import os
from time import monotonic

from autoloadd_protocol.encoding import encode_str
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.rendezvous import is_switched_off
from autoloadd_protocol.requests import (
    encode_freshness,
    find_blob,
    join_get_request,
    parse_get_times,
)

from .checks import check_fingerprint, check_name
from .entry import Entry
from .errors import ForgedError, SwitchedOffError

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from .connection import Connection
    from .process import ProcessConnections

# What os.environ keeps its variables in. Asked itself, it raises and catches an exception for each
# that is not set: 2.4 us of every get.
_VARIABLES: Container[bytes] = vars(os.environ).get("_data") or os.environb


class Asker:
    """Asks the daemon for one entry at a time; `on_answer` is told of each answer.

    Its methods raise CacheError. It holds no Cache, and what a Cache reads by holds it: so a Cache
    that nobody has any more goes at once, with its socket and what it has mapped.
    """

    def __init__(
        self,
        connections: ProcessConnections,
        *,
        binary_mtime_ns: int | None,
        timeout: float,
        on_answer: Callable[[Connection, float], None] | None = None,
    ) -> None:
        self.timeout = timeout
        self._connections = connections
        self._on_answer = on_answer
        self._binary_mtime_ns = binary_mtime_ns
        self._freshness = encode_freshness(binary_mtime_ns)

    def get(self, name: str, fingerprint: bytes | None = None) -> bytes | None:
        """Return an entry's blob; None when it is absent or stale."""
        answer, span = self._ask(name, fingerprint)
        return None if span is None else answer[span[0] : span[1]]

    def get_view(self, name: str, fingerprint: bytes | None = None) -> memoryview | None:
        """Return an entry's blob as it lies in the answer; None when it is absent or stale."""
        answer, span = self._ask(name, fingerprint)
        return None if span is None else memoryview(answer)[span[0] : span[1]]

    def get_entry(self, name: str, *, fingerprint: bytes | None = None) -> Entry | None:
        """Return a blob with its fingerprint and times; None when it is absent or stale."""
        answer, span = self._ask(name, fingerprint)
        if span is None:
            return None
        try:
            return Entry(answer[span[0] : span[1]], *parse_get_times(answer, span[1]))
        except FrameError as exc:
            self._connections.own().close(monotonic() + self.timeout)
            raise ForgedError(str(exc)) from exc

    def _ask(self, name: str, fingerprint: bytes | None) -> tuple[bytes, tuple[int, int] | None]:
        """Return the answer's frame, and where the blob lies in it; None: a miss."""
        deadline = monotonic() + self.timeout
        refuse_switched_off()
        connection = self._connections.own()
        wanted = encode_str(check_name(name))
        freshness = self._freshness
        if fingerprint is not None:
            freshness = encode_freshness(self._binary_mtime_ns, check_fingerprint(fingerprint))
        request = join_get_request(connection.next_id(), wanted, freshness)
        answer = connection.exchange(request, deadline)
        try:
            span = find_blob(answer, wanted)
        except FrameError as exc:
            connection.close(deadline)
            raise ForgedError(str(exc)) from exc
        if self._on_answer is not None:
            self._on_answer(connection, deadline)
        return answer, span


def refuse_switched_off() -> None:
    """Raise SwitchedOffError while the user wants no cache."""
    is_set = b"AUTOLOADD_CACHE" in _VARIABLES or b"ZSHRS_CACHE" in _VARIABLES
    if is_set and is_switched_off(os.environ):
        raise SwitchedOffError("AUTOLOADD_CACHE or ZSHRS_CACHE switches the cache off")
