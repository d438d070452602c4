"""A daemon that is ready and has not read its images yet: held there by strace for as long as a
test needs, at the memory that the image is copied into.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol.errors import BUSY

from ..running import PRODUCER, wait_until
from .injecting import require_strace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..running import Daemon
    from .report import FaultCase

HELD_SECONDS = 600
"""Longer than any test takes."""
SECONDS = 20.0
BLOBS = {f"name {number}": bytes([number]) * 3000 for number in range(200)}
"""Together larger than what a start reads at once."""
IN_MEMORY = "1 images are in memory and checked"


@pytest.fixture
def daemon(idle_daemon: Daemon, case: FaultCase) -> Iterator[Daemon]:
    """One that has stored `BLOBS` in an image, and is stopped."""
    require_strace(case)
    idle_daemon.start()
    with idle_daemon.cache() as cache:
        cache.put_many(BLOBS, sync="fsync")
    assert idle_daemon.stop() == 0
    yield idle_daemon
    if idle_daemon.process is not None:
        release(idle_daemon)


def trace(daemon: Daemon, fault: str) -> None:
    """Have its next start run with its memfds tampered with. The tracer is no parent of it (-D)."""
    log = daemon.directory / "strace"
    daemon.prefix = ["strace", "-D", "-f", "-qq", "-o", str(log)]
    daemon.prefix += ["-e", "trace=memfd_create", "-e", f"inject=memfd_create:{fault}"]


def start_held(daemon: Daemon) -> None:
    """Start it, and let the image not come into memory."""
    trace(daemon, f"delay_enter={HELD_SECONDS * 1_000_000}")
    daemon.start()
    wait_until(lambda: "serves" in daemon.log, SECONDS, "the daemon to serve")


def release(daemon: Daemon) -> None:
    """Let go of it: where its tracer is no more, the call that it held goes on."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    tracer = int(status.partition("TracerPid:")[2].split()[0])
    if tracer:
        os.kill(tracer, signal.SIGKILL)


def image_of(daemon: Daemon) -> Path:
    (image,) = daemon.cache_dir.glob("*/image")
    return image


def test_a_held_start_serves_and_then_takes_writes(daemon: Daemon, case: FaultCase) -> None:
    start_held(daemon)
    with daemon.cache() as cache, daemon.connect() as raw, daemon.connect() as second:
        for name, blob in BLOBS.items():
            case.wrong += cache.get(name) != blob
        assert cache.get_many(BLOBS) == BLOBS
        assert cache.get("none") is None
        raw.hello()
        second.hello()
        assert raw.refusal("attach", [1], [1]) == BUSY
        raw.send(raw.request_bytes("names"))
        second.send(second.request_bytes("put", "new", b"blob", None, None, "fsync"))
        assert cache.get("new") is None
        assert IN_MEMORY not in daemon.log
        release(daemon)
        names = raw.receive()
        assert names is not None
        assert sorted(name for name, _ in names.result) == sorted(BLOBS)
        stored = second.receive()
        assert stored is not None
        assert stored.error is None
        assert cache.get("new") == b"blob"
        wait_until(lambda: raw.call("attach", [1], [1]).error is None, SECONDS, "shared memory")
    assert IN_MEMORY in daemon.log
    assert case.wrong == 0


def test_a_stop_does_not_wait_for_images(daemon: Daemon) -> None:
    start_held(daemon)
    os.kill(daemon.pid, signal.SIGTERM)
    wait_until(lambda: daemon.log.endswith("stopped\n"), SECONDS, "the end")
    assert IN_MEMORY not in daemon.log
    # The tracer holds the thread still, and with it the process.
    release(daemon)
    assert daemon.wait() == 0
    daemon.prefix = ()
    daemon.start()
    with daemon.cache() as cache:
        assert cache.get_many(BLOBS) == BLOBS


def test_killed_before_an_image_was_read(daemon: Daemon, case: FaultCase) -> None:
    start_held(daemon)
    with daemon.connect() as raw:
        raw.hello()
        raw.send(raw.request_bytes("put", "new", b"never acknowledged"))
    os.kill(daemon.pid, signal.SIGKILL)
    release(daemon)
    assert daemon.wait() == -signal.SIGKILL
    daemon.prefix = ()
    daemon.start()
    with daemon.cache() as cache:
        case.wrong += cache.get("new") not in (None, b"never acknowledged")
        assert cache.get_many(BLOBS) == BLOBS
    assert case.wrong == 0


def test_damage_that_is_found_after_the_start(daemon: Daemon, case: FaultCase) -> None:
    """Until then each entry is served that is whole; afterwards what a start would have served."""
    image = image_of(daemon)
    data = bytearray(image.read_bytes())
    data[-1000] ^= 1
    image.write_bytes(data)
    start_held(daemon)
    with daemon.cache() as cache, daemon.connect() as raw:
        found = {name: cache.get(name) for name in BLOBS}
        missed = [name for name, blob in found.items() if blob is None]
        case.wrong += sum(found[name] != BLOBS[name] for name in BLOBS if name not in missed)
        assert len(missed) == 1
        assert daemon.status()["storage"]["set_aside"] == ()
        raw.hello()
        raw.send(raw.request_bytes("put", "new", b"blob"))
        release(daemon)
        stored = raw.receive()
        assert stored is not None
        assert stored.error is None
        assert raw.ok("names") == (("new", None),)
        assert cache.get("new") == b"blob"
        assert {name: cache.get(name) for name in BLOBS} == dict.fromkeys(BLOBS)
    (aside,) = daemon.status()["storage"]["set_aside"]
    assert Path(aside["file"]).read_bytes() == data
    assert "the records' checksum does not match" in aside["reason"]
    assert case.wrong == 0
    daemon.prefix = ()
    daemon.restart()
    with daemon.cache(PRODUCER) as cache:
        assert list(cache.names()) == [("new", None)]


def test_a_lack_of_memory_ends_it_as_it_would_have_at_the_start(daemon: Daemon) -> None:
    before = image_of(daemon).read_bytes()
    trace(daemon, "error=ENOMEM")
    daemon.process = daemon.spawn()
    assert daemon.wait() == 1
    assert "Cannot allocate memory" in daemon.log
    assert "Traceback" not in daemon.log
    assert image_of(daemon).read_bytes() == before
    daemon.prefix = ()
    daemon.start()
    with daemon.cache() as cache:
        assert cache.get_many(BLOBS) == BLOBS
