"""What methods work on: the parts of the daemon, handed in once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from autoloadd_daemon.room import Room
from autoloadd_protocol.errors import NO_PRODUCER, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoloadd_daemon.catalog import Catalog
    from autoloadd_daemon.metrics import Metrics
    from autoloadd_daemon.session import Session
    from autoloadd_daemon.shard import Shard
    from autoloadd_daemon.sharing import Sharing
    from autoloadd_daemon.storage.bulks import StagedBulk
    from autoloadd_daemon.writer import Writer
    from autoloadd_protocol.producer import Producer

_logger = logging.getLogger(__name__)


class NotYetError(Exception):
    """This request waits until the images are in memory. It has done nothing so far."""


class OpenBulk(NamedTuple):
    """A connection's bulk, of the producer that it had when the bulk began.

    `binary_mtime_ns` is for entries that bring no time of their own.
    """

    token: int
    producer: Producer
    staged: StagedBulk
    binary_mtime_ns: int | None


class Context:
    """The daemon as a request sees it. `now_ns` (CLOCK_MONOTONIC) is set once a turn."""

    def __init__(
        self,
        catalog: Catalog,
        writer: Writer,
        metrics: Metrics,
        *,
        instance: str,
        socket_path: str,
        stop: Callable[[Callable[[object], None]], None],
        connections: Callable[[], int],
        sharing: Sharing,
        want_image: Callable[[Shard], None],
    ) -> None:
        self.catalog = catalog
        self.writer = writer
        self.metrics = metrics
        self.instance = instance
        self.socket_path = socket_path
        self.stop = stop
        self.connections = connections
        self.sharing = sharing
        self.want_image = want_image
        self.room = Room()
        self.now_ns = 0
        self.next_token = 1

    def producer_of(self, session: Session) -> Producer:
        """Return the producer that the connection named. Raises RequestError."""
        if session.producer is None:
            raise RequestError(NO_PRODUCER, "say hello with a producer first")
        return session.producer

    def shard_of(self, session: Session) -> Shard | None:
        """Return the shard of the connection's producer, or None where there is none yet."""
        if session.shard_id is None:
            raise RequestError(NO_PRODUCER, "say hello with a producer first")
        shard = self.catalog.find(session.shard_id)
        if shard is not None:
            shard.last_used_ns = self.now_ns
        return shard

    def wait_for_images(self) -> None:
        """Raise NotYetError while some image is still in its file, after a start."""
        if self.catalog.is_loading:
            raise NotYetError

    def forget_bulk(self, bulk: OpenBulk) -> None:
        """Take a bulk out of the books: its entries are the shard's now, or nobody's."""
        del self.catalog.open_bulks[bulk.token]
        self.catalog.staged_bytes -= bulk.staged.stored_bytes

    def discard_bulk(self, session: Session) -> None:
        """Give a connection's bulk up: nothing of it becomes visible."""
        assert session.bulk is not None
        bulk, session.bulk = session.bulk, None
        self.forget_bulk(bulk)
        try:
            bulk.staged.discard()
        except OSError as exc:
            _logger.warning("a staged file stays until the next start: %s", exc)
