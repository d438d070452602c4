"""An entry, as a caller gives and gets it."""

from __future__ import annotations

from autoloadd_protocol.values import FrozenValue


class Entry(FrozenValue):
    """A blob with what decides whether it is fresh. Times are ns since the epoch.

    In a put None stands for the cache's own time (`binary_mtime_ns`) and for now (`cached_at_ns`);
    in an answer only a fingerprint can be None: the entry was stored without one.
    """

    __slots__ = ("binary_mtime_ns", "blob", "cached_at_ns", "fingerprint")
    __match_args__ = ("blob", "fingerprint", "binary_mtime_ns", "cached_at_ns")

    blob: bytes
    fingerprint: bytes | None
    binary_mtime_ns: int | None
    cached_at_ns: int | None

    def __init__(
        self,
        blob: bytes,
        fingerprint: bytes | None = None,
        binary_mtime_ns: int | None = None,
        cached_at_ns: int | None = None,
    ) -> None:
        freeze = object.__setattr__
        freeze(self, "blob", blob)
        freeze(self, "fingerprint", fingerprint)
        freeze(self, "binary_mtime_ns", binary_mtime_ns)
        freeze(self, "cached_at_ns", cached_at_ns)
