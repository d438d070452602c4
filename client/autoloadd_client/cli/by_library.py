"""One get by way of the client library: with deadlines, and words for whatever goes wrong."""

from __future__ import annotations

from autoloadd_client.cache import Cache
from autoloadd_client.errors import CacheError

from .conventions import READ_SECONDS, describe_failure

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from autoloadd_protocol.producer import Producer


def get_by_library(
    producer: Producer, name: str, socket: str | None, binary_mtime_ns: int | None
) -> tuple[bytes | None, tuple[int, str] | None]:
    """Return an entry's blob, None when it is absent or stale; and what failed, or None.

    A failure is an exit code, and what the user reads. Raises ValueError for such a producer as
    cannot be.
    """
    cache = Cache(
        producer, socket_path=socket, binary_mtime_ns=binary_mtime_ns, timeout=READ_SECONDS
    )
    try:
        return cache.get(name), None
    except CacheError as exc:
        return None, describe_failure(exc)
