"""The fast path of `get`: the same answers as the full path, at a fraction of the imports."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol.limits import PRODUCER_TEXT_BYTES

from .conftest import ctl_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Ctl, Daemon

PRODUCER = ("--producer", "zsh/5.9/8")
LARGEST = bytes(range(256)) * (4 * 1024 * 1024 // 256)

HEAVY = {"argparse", "json", "msgpack", "re", "socket", "typing", "dataclasses", "enum", "pathlib"}
TRIALS = 5
"""A busy machine can be too slow for the quick way once."""

CONNECTIONS = 3
"""Where the answer is unusual: the quick one's, then the library's; and the full path's."""

_IN_A_SECOND = re.compile(rb"within 1\.\d+ s")

SLOW_WAY = ("--timeout", "1")
"""An option that the fast path leaves to the full parser, with the value that it has anyway."""


def both_ways(ctl: Ctl, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Return what the fast path answers, once the full path has answered the same."""
    fast = ctl("get", *arguments)
    full = ctl("get", *SLOW_WAY, *arguments)
    # A busy machine can make the deadline's second 1.01.
    fast.stderr, full.stderr = (_IN_A_SECOND.sub(b"within 1 s", e.stderr) for e in (fast, full))
    outcome = (fast.returncode, fast.stdout, fast.stderr)
    assert outcome == (full.returncode, full.stdout, full.stderr)
    return fast


def test_found_missed_and_stale_are_the_same_both_ways(ctl: Ctl, daemon: Daemon) -> None:
    ctl("put", "name", *PRODUCER, "--mtime", "5", given=LARGEST)
    assert both_ways(ctl, "name", *PRODUCER).stdout == LARGEST
    assert both_ways(ctl, "--producer=zsh/5.9/8", "name", "--mtime=5").stdout == LARGEST
    assert both_ways(ctl, "--mtime", "6", "name", *PRODUCER).returncode == 1
    assert both_ways(ctl, "none", *PRODUCER).returncode == 1
    assert both_ways(ctl, *PRODUCER, "--", "name").stdout == LARGEST
    assert both_ways(ctl, *PRODUCER, "--binary", "/", "name").returncode == 1


def test_no_daemon_is_told_in_the_same_words(ctl: Ctl, run_directory: Path) -> None:
    assert both_ways(ctl, "name", *PRODUCER).returncode == 3
    (run_directory / "socket").touch()
    assert b"Connection refused" in both_ways(ctl, "name", *PRODUCER).stderr
    run_directory.chmod(0o711)
    assert b"of its own with mode 0700" in both_ways(ctl, "name", *PRODUCER).stderr
    assert both_ways(ctl, "name", *PRODUCER, "--socket", "/" + "x" * 200).returncode == 3


def test_a_producer_that_cannot_be_is_told_in_the_same_words(ctl: Ctl, daemon: Daemon) -> None:
    version = "5" * (PRODUCER_TEXT_BYTES + 1)
    told = both_ways(ctl, "name", "--producer", f"zsh/{version}/8")
    assert (told.returncode, told.stdout) == (2, b"")
    assert b"no such producer can be: producer_version_bytes: 129 is more than 128" in told.stderr


def test_the_fast_path_loads_almost_nothing(daemon: Daemon, ctl: Ctl, run_directory: Path) -> None:
    ctl("put", "name", *PRODUCER, given=b"blob")
    command = [sys.executable, "-X", "importtime", "-m", "autoloadd_client.cli"]
    environment = ctl_environment(run_directory, {"PYTHONPATH": "", "COVERAGE_PROCESS_CONFIG": ""})
    base = imported([sys.executable, "-X", "importtime", "-c", "import runpy"], environment)
    library = {"autoloadd_client.cache", "autoloadd_client.errors"}
    for _ in range(TRIALS):
        fast = imported([*command, "get", "name", *PRODUCER], environment) - base
        assert fast & HEAVY == set()
        if not fast & library:
            break
    else:
        pytest.fail("only the library got an answer")
    full = imported([*command, "get", "name", *PRODUCER, *SLOW_WAY], environment) - base
    assert {"argparse", "json"} <= full


def imported(command: list[str], environment: dict[str, str]) -> set[str]:
    ran = subprocess.run(command, capture_output=True, check=True, env=environment)
    return set(re.findall(r"\| +(\S+)$", ran.stderr.decode(), re.MULTILINE))


@pytest.fixture
def peer(run_directory: Path) -> Iterator[socket.socket]:
    """A listening socket whose other side the test plays."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(run_directory / "socket"))
        listening.listen()
        yield listening


def answer_each(peer: socket.socket, payloads: list[bytes], connections: int) -> threading.Thread:
    """Answer so many connections with the given payloads, once each has sent something."""

    def serve() -> None:
        for _ in range(connections):
            connection, _address = peer.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"".join(struct.pack(">I", len(p)) + p for p in payloads))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


REFUSAL = b"\x94\x01\xc0\x93\xa4busy\xaetoo many of it\xc0\xc0"


def test_a_refusal_is_told_in_the_same_words(ctl: Ctl, peer: socket.socket) -> None:
    thread = answer_each(peer, [REFUSAL], CONNECTIONS)
    done = both_ways(ctl, "name", *PRODUCER)
    thread.join()
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr == b"autoloadctl: the daemon refused: busy: too many of it\n"


def test_what_is_no_answer_is_told_in_the_same_words(ctl: Ctl, peer: socket.socket) -> None:
    thread = answer_each(peer, [b"\x94\x01\x07\xc0\xc0"], CONNECTIONS)
    done = both_ways(ctl, "name", *PRODUCER)
    thread.join()
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode() == (
        f"autoloadctl: what listens at {peer.getsockname()} is not autoloadd: "
        "the daemon answered what was not asked\n"
    )


def test_a_daemon_that_was_slow_once_is_asked_again(ctl: Ctl, peer: socket.socket) -> None:
    """By the library, on a connection of its own: the late answer is nobody's."""

    def serve() -> None:
        slow, _address = peer.accept()
        good, _address = peer.accept()
        with slow, good:
            for connection, blob in ((slow, b"late"), (good, b"good")):
                asked = connection.recv(65536)
                get_at = 4 + int.from_bytes(asked[:4], "big")
                # Behind the length: the kind, then the id in five bytes.
                hello, get = (b"\x94\x01%b\xc0" % asked[at + 6 : at + 11] for at in (0, get_at))
                entry = b"\x95\xa4name\xc4%c%b\xc0\x01\x01" % (len(blob), blob)
                payloads = (hello + b"\xc0", get + entry)
                # The slow one's client has left by then.
                with suppress(OSError):
                    connection.sendall(b"".join(struct.pack(">I", len(p)) + p for p in payloads))
            good.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    done = ctl("get", "name", *PRODUCER)
    thread.join()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"good", b"")


def test_a_daemon_that_hangs_costs_the_deadline_and_is_told(ctl: Ctl, peer: socket.socket) -> None:
    done = both_ways(ctl, "name", *PRODUCER)
    assert (done.returncode, done.stdout) == (3, b"")
    path = peer.getsockname()
    assert done.stderr.decode() == (
        f"autoloadctl: what listens at {path} did not greet within 1 s: the daemon hangs, or it is "
        "not autoloadd; --timeout SECONDS waits longer\n"
    )


def start(
    run_directory: Path, *arguments: str, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "autoloadd_client.cli", "get", *arguments],
        stderr=subprocess.PIPE,
        env=ctl_environment(run_directory, {}),
        stdout=stdout,
    )


@pytest.mark.parametrize("way", [(), SLOW_WAY], ids=["fast", "full"])
def test_a_reader_that_goes_away_ends_it_quietly(
    ctl: Ctl, daemon: Daemon, run_directory: Path, way: tuple[str, ...]
) -> None:
    ctl("put", "name", *PRODUCER, given=LARGEST)
    reading, writing = os.pipe()
    process = start(run_directory, "name", *PRODUCER, *way, stdout=writing)
    os.close(writing)
    assert os.read(reading, 1) == b"\0"
    os.close(reading)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (141, b"")


def test_a_pipe_that_does_not_block_gets_everything(
    ctl: Ctl, daemon: Daemon, run_directory: Path
) -> None:
    ctl("put", "name", *PRODUCER, given=LARGEST)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETFL, fcntl.fcntl(writing, fcntl.F_GETFL) | os.O_NONBLOCK)
    process = start(run_directory, "name", *PRODUCER, stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        received = pipe.read()
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr, received == LARGEST) == (0, b"", True)


@pytest.mark.parametrize("way", [(), SLOW_WAY], ids=["fast", "full"])
def test_a_full_disk_under_stdout_is_told(
    ctl: Ctl, daemon: Daemon, run_directory: Path, way: tuple[str, ...]
) -> None:
    ctl("put", "name", *PRODUCER, given=b"blob")
    with open("/dev/full", "wb") as full:
        process = start(run_directory, "name", *PRODUCER, *way, stdout=full.fileno())
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 2
    assert stderr == b"autoloadctl: stdout: No space left on device\n"


@pytest.mark.parametrize("way", [(), ("--timeout", "30")], ids=["fast", "full"])
def test_an_interrupt_ends_it_quietly(
    peer: socket.socket, run_directory: Path, way: tuple[str, ...]
) -> None:
    process = start(run_directory, "name", *PRODUCER, *way)
    connection, _address = peer.accept()
    with connection:
        assert connection.recv(65536)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, b"")


@pytest.mark.parametrize("way", [(), SLOW_WAY], ids=["fast", "full"])
def test_with_stdout_closed_the_daemon_does_not_get_what_is_meant_for_it(
    ctl: Ctl, daemon: Daemon, run_directory: Path, way: tuple[str, ...]
) -> None:
    ctl("put", "name", *PRODUCER, given=b"blob")
    for closed in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m"]
        ran = subprocess.run(
            [*command, "autoloadd_client.cli", "get", "name", *PRODUCER, *way],
            capture_output=True, check=False, env=ctl_environment(run_directory, {}),
        )  # fmt: skip
        nowhere = b"autoloadctl: stdout is closed: there is nowhere to write to\n"
        assert ran.stderr == (nowhere if closed == ">&-" else b"")
        assert ran.returncode == (0 if closed == "2>&-" else 2)
        assert ran.stdout == (b"blob" if closed == "2>&-" else b"")
    counters = json.loads(ctl("status", "--json").stdout)["counters"]
    assert not counters.keys() & {"refused_requests", "bad_frames", "cut_off"}


@pytest.mark.parametrize("way", [(), SLOW_WAY], ids=["fast", "full"])
def test_with_nowhere_to_complain_the_exit_code_still_tells(
    run_directory: Path, way: tuple[str, ...]
) -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "autoloadd_client.cli", "get", "name", *PRODUCER, *way],
            stderr=full, check=False, env=ctl_environment(run_directory, {}),
        )  # fmt: skip
    assert ran.returncode == 3
