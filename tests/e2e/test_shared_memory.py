"""Memory that clients map stays bounded, however many attach and however often images change."""

from __future__ import annotations

import os
import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from autoloadd_protocol.page import PAGE_BYTES

from ..running import get_locally, wait_until

if TYPE_CHECKING:
    from autoloadd_client import Cache

    from ..running import Daemon

CLIENTS = 50
REBUILDS = 50
IMAGES_PER_SHARD = 3
_MAPPED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .* (\d+) +/memfd:autoloadd-image", re.MULTILINE)


def mapped_images(*pids: int) -> dict[int, int]:
    """Return the images that processes map: inode and bytes."""
    found: dict[int, int] = {}
    for pid in pids:
        for start, end, inode in _MAPPED.findall(Path(f"/proc/{pid}/maps").read_text()):
            found[int(inode)] = int(end, 16) - int(start, 16)
    return found


def is_attached(cache: Cache) -> bool:
    """Get once; tell whether the next get is answered from shared memory."""
    cache.get("a")
    return get_locally(cache, "nobody")[0]


def test_descriptors_come_with_the_first_byte_of_their_answer(daemon: Daemon) -> None:
    """Behind answers that the client was slow to take, and never with another one's."""
    with daemon.cache() as cache, daemon.connect() as raw:
        cache.put("a", bytes(100_000))
        raw.hello()
        wait_until(lambda: raw.call("attach", [1], [1]).error is None, 20, "an image to be built")
        gets = b"".join(raw.request_bytes("get", "a") for _ in range(40))
        raw.send(gets + raw.request_bytes("attach", [1], [1]) + gets)
        stream, found = b"", {}
        while len(stream) < 80 * 100_000:
            data, descriptors, *_ = socket.recv_fds(raw.socket, 30_000, 4)
            assert data
            if descriptors:
                found[len(stream), len(data)] = [os.fstat(each).st_size for each in descriptors]
                for each in descriptors:
                    os.close(each)
            stream += data
    begin = at = 0
    frame = b""
    for _ in range(41):
        end = at + 4 + int.from_bytes(stream[at : at + 4], "big")
        at, begin, frame = end, at, stream[at:end]
    assert b"page_bytes" in frame
    (((first, length), sizes),) = found.items()
    assert first <= begin < first + length
    assert sizes[1] == PAGE_BYTES


def test_fifty_clients_through_fifty_rebuilds(daemon: Daemon) -> None:
    """One after the other follows a new image and is idle from then on, with what it has."""
    left_over = mapped_images(os.getpid()).keys()
    with ExitStack() as stack:
        writer = stack.enter_context(daemon.cache())
        writer.replace({"a": bytes(200_000)})
        clients = [stack.enter_context(daemon.cache()) for _ in range(CLIENTS)]
        for client in clients:
            wait_until(lambda c=client: is_attached(c), 20, "a client to attach")  # type: ignore[misc]
        for number in range(REBUILDS):
            before = daemon.status()["counters"]["builds"]
            writer.replace({"a": number.to_bytes(200_000, "big")})
            wait_until(lambda b=before: daemon.status()["counters"]["builds"] > b, 20, "a build")  # type: ignore[misc]
            for _ in range(3):
                assert clients[number].get("a") == number.to_bytes(200_000, "big")
            # The daemon's own, and the one before it while it goes.
            images = mapped_images(daemon.pid, os.getpid()).keys() - left_over
            assert len(images) <= IMAGES_PER_SHARD + 2
            assert daemon.status()["pinned_images"] <= IMAGES_PER_SHARD
        assert {client.get("a") for client in clients} == {(REBUILDS - 1).to_bytes(200_000, "big")}
    wait_until(lambda: daemon.status()["pinned_images"] == 0, 20, "all to let go")
    assert daemon.status()["pinned_bytes"] == 0
    assert len(mapped_images(daemon.pid)) <= 2
