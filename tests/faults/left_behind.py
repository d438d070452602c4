"""A cache as a kill leaves it, with something of everything that a start puts right."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from autoloadd_protocol.producer import Producer

from .expectation import read_contents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..running import Daemon
    from .expectation import Contents

    Spoil = Callable[[Path], None]

IMAGE = {f"n{i:02d}": bytes([65 + i]) * 3_000 for i in range(12)}


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


def leave_much_behind(daemon: Daemon) -> Contents:
    """Be killed with an image, journals, bulks and temporary files; return what was stored."""
    with daemon.start().cache() as cache:
        cache.replace(IMAGE)
    daemon.restart()
    with daemon.cache() as cache:
        cache.put_many({"n00": b"newer", "n01": b"newer"})
        cache.delete(["n02"])
    daemon.kill()
    daemon.start()
    with daemon.cache() as cache, daemon.connect() as other:
        cache.put("n03", b"newest")
        assert other.hello().error is None
        token = other.ok("bulk_begin", "merge")
        other.ok("bulk_add", token, {"n04": [b"of a bulk"], "n12": [b"of a bulk"]})
        other.ok("bulk_commit", token)
        other.ok("bulk_add", other.ok("bulk_begin", "merge"), {"half": [b"half"]})
        contents = read_contents(cache)
        daemon.kill()
    shard = shard_directory(daemon)
    (shard / "image.tmp").write_bytes(b"half an image")
    (shard / "bulk.00000099").write_bytes(b"named by no frame")
    dropped = daemon.cache_dir / ".dropped-1-1"
    dropped.mkdir()
    (dropped / "image").write_bytes(b"of a shard that was dropped")
    return contents


def put_back(daemon: Daemon, template: Path) -> None:
    """Let the cache directory be as it was."""
    shutil.rmtree(daemon.cache_dir)
    shutil.copytree(template, daemon.cache_dir)


def traced_start(daemon: Daemon, tracer: list[str]) -> Contents:
    """Start with strace beside it; return what is found."""
    daemon.prefix = [*tracer, "-D"]
    daemon.start()
    daemon.prefix = ()
    with daemon.cache() as cache:
        contents = read_contents(cache)
    daemon.kill()
    return contents


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
