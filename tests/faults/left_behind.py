"""A cache as a kill leaves it, with something of everything that a start puts right."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from autoloadd_protocol.producer import Producer

from ..running import START_SECONDS, Daemon, private_directory, wait_until
from .expectation import read_contents
from .injecting import arguments, calls_in, paths_of_shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .expectation import Contents
    from .injecting import Call

    Spoil = Callable[[Path], None]

IMAGE = {f"n{i:02d}": bytes([65 + i]) * 3_000 for i in range(12)}
NEWER = {"n00": b"newer", "n01": b"newer"}
IN_A_BULK = {"n04": b"of a bulk", "n12": b"of a bulk"}
STORED = {*IMAGE.items(), *NEWER.items(), *IN_A_BULK.items()}
"""All that was ever stored."""


def nothing_more(_shard: Path) -> None:
    return


def damage_the_image(shard: Path) -> None:
    flip_last_byte(shard / "image")


def damage_the_first_journal(shard: Path) -> None:
    # The journal that follows vouches for it: this is damage, not a torn tail.
    flip_last_byte(min(shard.glob("journal.*")))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def shard_directory(daemon: Daemon) -> Path:
    return daemon.cache_dir / Producer("zsh", "5.9").shard_id()


@dataclass(frozen=True)
class Remains:
    """The files of a cache that was left, what a start finds in them, and the calls it makes."""

    files: dict[Path, bytes]
    found: Contents
    calls: list[Call]

    def put_back(self, daemon: Daemon) -> None:
        """Let a daemon's cache directory be as it was left."""
        shutil.rmtree(daemon.cache_dir, ignore_errors=True)
        for name, data in self.files.items():
            path = daemon.cache_dir / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(data)
        daemon.cache_dir.chmod(0o700)


@cache
def remains_of(spoil: Spoil) -> Remains:
    """Leave a cache as a kill does, and spoil it; see what a start makes of it."""
    with private_directory() as home:
        daemon = Daemon(home)
        stored = leave_much_behind(daemon)
        shard = shard_directory(daemon)
        spoil(shard)
        paths = [path for path in daemon.cache_dir.rglob("*") if path.is_file()]
        files = {path.relative_to(daemon.cache_dir): path.read_bytes() for path in paths}
        log = home / "calls"
        daemon.prefix = [*arguments(paths_of_shard(shard), log), "-D"]
        with daemon.start().cache() as client:
            found = read_contents(client)
        daemon.kill()
        assert (found == stored) == (spoil is nothing_more)
        return Remains(files, found, calls_in(log))


def leave_much_behind(daemon: Daemon) -> Contents:
    """Be killed with an image, journals, bulks and temporary files; return what was stored."""
    with daemon.start().cache() as client:
        client.replace(IMAGE)
    daemon.restart()
    with daemon.cache() as client:
        client.put_many(NEWER)
        client.delete(["n02"])
    daemon.kill()
    daemon.start()
    with daemon.cache() as client, daemon.connect() as other:
        assert other.hello().error is None
        token = other.ok("bulk_begin", "merge")
        other.ok("bulk_add", token, {name: [blob] for name, blob in IN_A_BULK.items()})
        other.ok("bulk_commit", token)
        other.ok("bulk_add", other.ok("bulk_begin", "merge"), {"half": [b"half"]})
        contents = read_contents(client)
        daemon.kill()
    litter(daemon.cache_dir, shard_directory(daemon))
    return contents


def litter(cache_dir: Path, shard: Path) -> None:
    """Leave what a kill within an image build, a commit and a drop leaves."""
    (shard / "image.tmp").write_bytes(b"half an image")
    (shard / "bulk.00000099").write_bytes(b"named by no frame")
    dropped = cache_dir / ".dropped-1-1"
    dropped.mkdir()
    (dropped / "image").write_bytes(b"of a shard that was dropped")


def start_under(daemon: Daemon, fault: str) -> int | None:
    """Start with a fault; return the exit status of a daemon that ended, None of one that serves.

    It still runs then.
    """
    paths, log = paths_of_shard(shard_directory(daemon)), daemon.directory / "calls"
    # Only the calls that the fault is for stop: it starts faster.
    daemon.prefix = [*arguments(paths, log, fault), "-D", "--seccomp-bpf"]
    process = daemon.process = daemon.spawn()
    daemon.prefix = ()
    wait_until(lambda: has_ended_or_serves(daemon), START_SECONDS, "the daemon to serve or to end")
    return process.poll()


def has_ended_or_serves(daemon: Daemon) -> bool:
    """Tell whether there is nothing more to wait for."""
    assert daemon.process is not None
    if daemon.process.poll() is not None:
        return True
    try:
        with daemon.connect() as client:
            return bool(client.ok("ping") == "pong")
    except OSError:
        return False
