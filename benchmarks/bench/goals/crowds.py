"""Eight processes at once: shared gets (goal 2), and puts against a locked file (goal 5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from bench.crew import Crew
from bench.daemons import settle
from bench.peers import embedded, locked_file_cache, own
from bench.setting import in_turn
from bench.verdicts import Goal

if TYPE_CHECKING:
    from bench.setting import Setting
    from bench.verdicts import Figures

SIZE = 8
GET_SECONDS = 1.0
PUT_SECONDS = 3.0


class CrowdGets:
    """Eight processes get random names of W, each with a client of its own."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=2, what="gets/s of 8 processes, against lmdb", unit="/s", at_least=1.3,
             ours=f"gets/s of 8 processes: {own.KEY}",
             peer=f"gets/s of 8 processes: {embedded.LMDB}"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start both crews."""
        self._seconds = setting.seconds(GET_SECONDS)
        peers = (
            own.own(setting.servers.autoloadd().socket_path),
            embedded.with_lmdb(setting.servers.lmdb_path),
        )
        self._crews = {peer.key: Crew(peer, "get", SIZE) for peer in peers}

    def close(self) -> None:
        """End both crews."""
        for crew in self._crews.values():
            crew.close()

    def run_round(self, number: int, figures: Figures) -> None:
        """Let one crew work, then the other."""
        for key in in_turn(tuple(self._crews), number):
            rate = self._crews[key].measure(self._seconds)
            figures.add(f"gets/s of {SIZE} processes: {key}", rate)


class CrowdPuts:
    """Eight processes put, and wait until it is on stable storage."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=5, what="fsync puts/s of 8 processes, against a locked file", unit="/s",
             at_least=1_000, ours=f"fsync puts/s of 8 processes: {own.KEY}",
             peer=f"fsync puts/s of 8 processes: {locked_file_cache.KEY}"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start both crews."""
        self._seconds = setting.seconds(PUT_SECONDS)
        self._server = setting.servers.autoloadd(purpose="put")
        peers = (
            own.own(self._server.socket_path, "fsync"),
            locked_file_cache.with_locked_file(setting.servers.locked_file_path),
        )
        self._crews = {peer.key: Crew(peer, "put", SIZE) for peer in peers}

    def close(self) -> None:
        """End both crews."""
        for crew in self._crews.values():
            crew.close()

    def run_round(self, number: int, figures: Figures) -> None:
        """Let one crew work, then the other."""
        for key in in_turn(tuple(self._crews), number):
            settle(self._server)
            os.sync()
            rate = self._crews[key].measure(self._seconds)
            figures.add(f"fsync puts/s of {SIZE} processes: {key}", rate)
