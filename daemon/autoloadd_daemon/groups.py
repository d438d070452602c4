"""The part of a batch that goes to one shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .catalog import SHARD_BYTES

if TYPE_CHECKING:
    from autoloadd_protocol.page import Page

    from .shard import Shard
    from .storage.shard_files import ShardFiles
    from .writes import Write


class Group:
    """The writes of one batch that go to one shard, with their generations.

    `end_before` is where its journal ended before them, `grown_bytes` what shard and files take
    more since they were made.
    """

    __slots__ = (
        "changes", "end_before", "files", "grown_bytes", "shard", "wants_sync", "writes"
    )  # fmt: skip

    def __init__(self, shard: Shard, files: ShardFiles) -> None:
        self.shard = shard
        self.files = files
        self.writes: list[tuple[Write, int]] = []
        self.end_before = 0
        self.wants_sync = self.changes = False
        self.grown_bytes = 0

    def add(self, write: Write) -> None:
        """Take a write in; it gets its generation."""
        if write.changes:
            self.changes = True
            self.shard.generation += 1
        if write.sync == "fsync":
            self.wants_sync = True
        self.writes.append((write, self.shard.generation))

    def apply(self) -> None:
        """Make the changes. A new journal counts with all that a shard takes."""
        shard = self.shard
        shard.end_changes()
        before = shard.stored_bytes
        for write, generation in self.writes:
            write.outcome = write.apply(shard, generation)
        new = 0 if self.end_before else SHARD_BYTES
        grown = max(shard.stored_bytes - before, 0)
        self.grown_bytes = grown + new + self.files.end - self.end_before

    def announce(self, page: Page) -> None:
        """Note on the shard's page what the frames will change."""
        for write, generation in self.writes:
            write.announce(page, generation)
