"""Only the user's own processes are served, and a disk that hangs keeps no daemon from stopping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ..running import Daemon, takes_less_than, wait_until

SECONDS = 20.0
NOBODY = 65534

CONNECT = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[2])
    client.settimeout(20)
    try:
        client.sendall(bytes.fromhex("0000000a9400ce00010000a470696e6790"))
        print(client.recv(100))
    except (BrokenPipeError, ConnectionResetError):
        print(b"")
"""


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_another_user_is_told_nothing(idle_daemon: Daemon, serving: str) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test connects as another user: run it as root")
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    daemon = idle_daemon.start()
    # As lax as a careless chmod could make it: then the peer's credentials must decide.
    daemon.directory.chmod(0o755)
    os.chmod(daemon.socket_path, 0o666)
    command = [sys.executable, "-c", CONNECT, str(NOBODY), daemon.socket_path]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    done = subprocess.run(command, capture_output=True, check=True, timeout=SECONDS, env=kept)
    assert done.stdout == b"b''\n"
    assert daemon.status()["counters"]["refused_peers"] == 1


def test_a_disk_that_hangs_delays_no_read_and_no_stop(idle_daemon: Daemon) -> None:
    hang = "inject=fdatasync:delay_enter=8000000"
    # -D: the daemon is our own child, and strace watches it from beside.
    idle_daemon.prefix = ("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", hang)
    daemon = idle_daemon.start()
    with daemon.cache() as cache, daemon.connect() as client:
        cache.put("a", b"1")
        client.hello()
        client.send(client.request_bytes("put", "b", b"2", None, None, "fsync"))
        wait_until(lambda: daemon.status()["counters"]["writes"] == 1, SECONDS, "the first put")

        def read_on() -> None:
            for _ in range(100):
                assert cache.get("a") == b"1"

        # Far less than the eight seconds of each sync.
        takes_less_than(2.0, read_on)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    # It says so at once; strace holds the process itself until the delay is over.
    wait_until(lambda: "INFO: stopped" in daemon.log, SECONDS, "the end")
    assert daemon.wait() == 1
    daemon.assert_stopped_in_time()
    assert "not everything is stored: the disk did not answer" in daemon.log
