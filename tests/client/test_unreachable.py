"""No daemon, or none that may be trusted: the error says where, why, and how to start one."""

from __future__ import annotations

import os
import re
import resource
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client import (
    BadRequestError,
    Cache,
    Entry,
    ForgedError,
    SwitchedOffError,
    TooLargeError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOW_AT_THE_USUAL_PLACE = (
    "; start it with `autoloadd &` or `systemctl --user start autoloadd.socket`"
)


def reason_of(path: str | None) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        Cache("zsh/5.9/8", socket_path=path).get("name")
    return caught.value


def how_to_start(path: str) -> str:
    return f"; start it with `autoloadd --socket {path} &`"


def test_no_socket(run_directory: Path) -> None:
    path = str(run_directory / "socket")
    error = reason_of(path)
    assert error.path == path
    assert str(error) == f"no daemon at {path}: No such file or directory{how_to_start(path)}"


def test_nobody_listens(run_directory: Path) -> None:
    path = str(run_directory / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    assert str(reason_of(path)).endswith(f": Connection refused{how_to_start(path)}")


def test_no_directory(tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "socket")
    expected = f": {tmp_path}/none: No such file or directory{how_to_start(path)}"
    assert str(reason_of(path)).endswith(expected)


def test_where_starting_one_cannot_help_nothing_says_so(
    run_directory: Path, tmp_path: Path
) -> None:
    (run_directory / "file").touch()
    assert str(reason_of(f"{run_directory}/file/socket")).endswith(" is not a directory")
    assert str(reason_of(f"{run_directory}/file/x/socket")).endswith("/x: Not a directory")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(f"{run_directory}/datagrams")
        reason = reason_of(f"{run_directory}/datagrams")
    assert str(reason).endswith(": Protocol wrong type for socket")


def test_at_the_usual_place_systemd_may_start_it_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("AUTOLOADD_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    error = reason_of(None)
    assert error.path == f"{tmp_path}/autoloadd/run/socket"
    assert str(error).endswith(HOW_AT_THE_USUAL_PLACE)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707, 0o711, 0o1777])
def test_a_directory_that_others_can_reach(run_directory: Path, mode: int) -> None:
    run_directory.chmod(mode)
    message = str(reason_of(str(run_directory / "socket")))
    assert f"{run_directory} has mode {mode:04o}, others can reach it" in message
    assert "of its own with mode 0700" in message


def test_a_directory_behind_a_link(run_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run_directory)
    assert "is a symbolic link" in str(reason_of(str(tmp_path / "link" / "socket")))


def test_a_directory_of_another_user(run_directory: Path) -> None:
    # Needs root.
    os.chown(run_directory, 65534, -1)
    assert "belongs to uid 65534" in str(reason_of(str(run_directory / "socket")))


def test_a_path_that_is_too_long(run_directory: Path) -> None:
    error = reason_of(f"{run_directory}/{'s' * 108}")
    assert "a Unix socket may have at most 107" in str(error)


def test_a_relative_path() -> None:
    assert "is not absolute" in str(reason_of("socket"))


def test_no_place_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AUTOLOADD_SOCKET", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    error = reason_of(None)
    assert error.path is None
    assert "set AUTOLOADD_SOCKET" in str(error)


def test_the_place_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, run_directory: Path
) -> None:
    monkeypatch.setenv("AUTOLOADD_SOCKET", f"{run_directory}/here")
    assert reason_of(None).path == f"{run_directory}/here"


def test_no_descriptor_left(run_directory: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        error = reason_of(str(run_directory / "socket"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Too many open files" in str(error)


def listen_as(uid: int, path: str, listening: int, stop: int) -> None:
    """Listen in this process, as another user, until a byte or the end comes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        # The socket's credentials are those of the time of listen.
        os.setuid(uid)
        listener.listen()
        os.write(listening, b"1")
        os.read(stop, 1)


def test_a_server_of_another_user_is_told_nothing(run_directory: Path) -> None:
    # Needs root.
    path = str(run_directory / "socket")
    (ready, listening), (stop, release) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            listen_as(65534, path, listening, stop)
        finally:
            os._exit(0)
    os.close(listening)
    try:
        assert os.read(ready, 1) == b"1"
        with pytest.raises(ForgedError, match="runs as uid 65534"):
            Cache("zsh/5.9/8", socket_path=path).get("name")
    finally:
        os.write(release, b"1")
        for descriptor in (ready, stop, release):
            os.close(descriptor)
        os.waitpid(child, 0)


@pytest.mark.parametrize("variable", ["AUTOLOADD_CACHE", "ZSHRS_CACHE"])
@pytest.mark.parametrize("word", ["0", "false", "NO"])
def test_switched_off_by_environment(
    monkeypatch: pytest.MonkeyPatch, run_directory: Path, variable: str, word: str
) -> None:
    cache = Cache("zsh/5.9/8", socket_path=str(run_directory / "socket"))
    monkeypatch.setenv(variable, word)
    for call in (
        lambda: cache.get("name"),
        lambda: cache.put("name", b""),
        lambda: cache.put("name", b"", wait=False),
        lambda: cache.put_many({"name": b""}),
        lambda: cache.merge([("name", b"")]),
        lambda: cache.replace({}),
        lambda: list(cache.names()),
        lambda: cache.missing(["name"]),
        lambda: cache.get_many(["name"]),
        lambda: cache.delete("name"),
        cache.count,
        cache.stats,
        cache.clear,
        cache.flush,
    ):
        with pytest.raises(SwitchedOffError):
            call()
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UnreachableError):
        cache.get("name")


def test_switched_off_a_daemon_can_still_be_controlled(
    monkeypatch: pytest.MonkeyPatch, run_directory: Path
) -> None:
    monkeypatch.setenv("AUTOLOADD_CACHE", "0")
    cache = Cache(None, socket_path=str(run_directory / "socket"))
    for call in (cache.ping, cache.status, cache.shards, cache.shutdown):
        with pytest.raises(UnreachableError):
            call()


@pytest.mark.parametrize(
    "producer", ["zsh", "zsh/5.9/7", "/5.9/8", "zsh/5.9/8/", f"{'z' * 129}/5.9/8"]
)
def test_a_producer_that_cannot_be(producer: str) -> None:
    with pytest.raises(ValueError):
        Cache(producer)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_cannot_be(seconds: float) -> None:
    with pytest.raises(ValueError):
        Cache("zsh/5.9/8", timeout=seconds)
    with pytest.raises(ValueError):
        Cache("zsh/5.9/8", bulk_timeout=seconds)


def test_a_binary_that_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Cache("zsh/5.9/8", binary=tmp_path / "none")
    with pytest.raises(ValueError):
        Cache("zsh/5.9/8", binary=sys.executable, binary_mtime_ns=1)


def test_what_no_daemon_takes_is_refused_before_it_is_sent(run_directory: Path) -> None:
    cache: Any = Cache("zsh/5.9/8", socket_path=str(run_directory / "nobody"))
    calls: list[Callable[[], object]] = [
        lambda: cache.get(""),
        lambda: cache.get("\ud800"),
        lambda: cache.get(b"name"),
        lambda: cache.get("name", fingerprint=b""),
        lambda: cache.get("name", fingerprint="text"),
        lambda: cache.put("name", "text"),
        lambda: cache.put("name", None),
        lambda: cache.put("name", b"", sync=None),
        lambda: cache.merge([("name", Entry(b"", None, True))]),
        lambda: cache.put("name", b"", sync="later"),
        lambda: cache.put_many({"name": "text"}),
        lambda: cache.merge([("name", None)]),
        lambda: cache.merge([("name", Entry(b"", None, 1 << 63))]),
        lambda: cache.missing([("name", b"", None)]),
        lambda: cache.missing("name"),
        lambda: cache.get_many("name"),
    ]
    for call in calls:
        with pytest.raises(BadRequestError) as caught:
            call()
        assert not re.search(r"\b(bin|nil|array)\b", str(caught.value))
    for call in (
        lambda: cache.get("n" * 1025),
        lambda: cache.get("name", fingerprint=bytes(1025)),
        lambda: cache.put("name", bytes((4 << 20) + 1)),
        lambda: cache.delete("n" * 1025),
    ):
        with pytest.raises(TooLargeError):
            call()
