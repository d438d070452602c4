"""What a service manager hands over and is told, with real descriptors and sockets."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.activation import inherited_listener, notify
from autoloadd_daemon.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

# Runs with the descriptor to inherit as its first argument; `-` says that the pid is another's.
_CHILD = """
import os, sys
from autoloadd_daemon.activation import inherited_listener
from autoloadd_daemon.errors import StartError
descriptor, count, pid = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if descriptor >= 0:
    os.dup2(descriptor, 3)
environment = {"LISTEN_PID": pid or str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": "s"}
try:
    found = inherited_listener(environment)
except StartError as exc:
    print("refused", exc)
else:
    if found is None:
        print("none")
    else:
        print(found.path, found.is_inherited, found.socket.getblocking(), os.get_inheritable(3))
print(environment)
"""


def inherit(descriptor: int, count: str = "1", pid: str = "") -> list[str]:
    """Return what a process says that was started with this descriptor as its third."""
    command = [sys.executable, "-c", _CHILD, str(descriptor), count, pid]
    passed = [descriptor] if descriptor >= 0 else []
    result = subprocess.run(command, pass_fds=passed, capture_output=True, text=True, check=True)
    first, environment = result.stdout.splitlines()
    assert environment == "{}", "the variables are taken out"
    return [first]


def test_the_socket_is_taken_over(home: Path) -> None:
    path = str(home / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert inherit(listener.fileno()) == [f"{path} True False False"]


def test_what_is_for_another_process_is_left(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        assert inherit(listener.fileno(), pid="1") == ["none"]
        assert inherit(listener.fileno(), count="0") == ["none"]


def test_two_sockets_are_refused() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        assert inherit(listener.fileno(), count="2") == [
            "refused expected one socket from the service manager, got 2"
        ]


def test_another_kind_of_socket_is_refused() -> None:
    for family, kind in (
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_UNIX, socket.SOCK_DGRAM),
    ):
        with socket.socket(family, kind) as other:
            assert inherit(other.fileno()) == ["refused descriptor 3 is no Unix stream socket"]


def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        assert inherit(file.fileno()) == [
            "refused descriptor 3 is no socket: Socket operation on non-socket"
        ]
    assert inherit(-1) == ["refused descriptor 3 is no socket: Bad file descriptor"]


def test_without_variables_there_is_none() -> None:
    assert inherited_listener({}) is None
    environment = {"LISTEN_PID": str(os.getpid()), "OTHER": "kept"}
    assert inherited_listener(environment) is None
    assert environment == {"OTHER": "kept"}


def test_the_variables_go_also_where_they_are_refused() -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}
    with pytest.raises(StartError, match="got x"):
        inherited_listener(environment)
    assert environment == {}


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_manager_is_told(*, is_abstract: bool, home: Path) -> None:
    address = f"@autoloadd-test-{home.name}" if is_abstract else str(home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(address.replace("@", "\0", 1))
        notify("READY=1", {"NOTIFY_SOCKET": address})
        assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nobody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": ""})
    assert caplog.records == []


def test_a_manager_that_is_gone_is_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": str(home / "none")})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("the service manager was not told READY=1: ")
