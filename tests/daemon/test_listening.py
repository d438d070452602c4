"""One daemon for each directory, and a socket that is private from its first moment."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.errors import AlreadyServedError, StartError
from autoloadd_daemon.listening import DirectoryLock, Listener, bind
from autoloadd_daemon.storage.files import Files
from autoloadd_protocol.limits import SOCKET_PATH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = Files()


def is_answered(path: str) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


@pytest.fixture
def directory(home: Path) -> Path:
    """A directory that may hold a socket: ours, mode 0700, with a short path."""
    return home


@pytest.fixture
def path(directory: Path) -> str:
    return str(directory / "socket")


@pytest.fixture
def listener(path: str) -> Iterator[Listener]:
    bound = bind(path)
    yield bound
    bound.close()


# The lock


def test_the_directory_is_made_private_and_locked(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down"
    lock = DirectoryLock.take(FILES, str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(AlreadyServedError, match=f"another autoloadd uses {path}"):
        DirectoryLock.take(FILES, str(path))
    lock.release()
    DirectoryLock.take(FILES, str(path)).release()


def test_a_second_holder_leaves_no_descriptor(tmp_path: Path) -> None:
    lock = DirectoryLock.take(FILES, str(tmp_path / "d"))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(AlreadyServedError):
        DirectoryLock.take(FILES, str(tmp_path / "d"))
    assert len(os.listdir("/proc/self/fd")) == before
    lock.release()


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to("real")
    with pytest.raises(StartError, match=f"{link} is a symbolic link"):
        DirectoryLock.take(FILES, str(link))


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o755, 0o720])
def test_a_directory_that_others_can_reach_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(StartError, match=f"mode {mode:04o}, others can reach it.*mode 0700"):
        DirectoryLock.take(FILES, str(path))


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(StartError, match=str(path)):
        DirectoryLock.take(FILES, str(path))
    with pytest.raises(StartError, match="below cannot be used"):
        DirectoryLock.take(FILES, str(path / "below"))
    assert path.read_bytes() == b"mine"


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(StartError, match=f"belongs to uid {mine}, not to uid {mine + 1}"):
        DirectoryLock.take(FILES, str(path))


class HauntedFiles(Files):
    """Directories that are taken away as soon as they are made, the first few times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def make_directory(self, path: str) -> None:
        """Make it, for nothing."""
        super().make_directory(path)
        if self.times:
            self.times -= 1
            os.rmdir(path)


def test_a_directory_that_is_taken_away_is_made_again(tmp_path: Path) -> None:
    """A daemon that made it and lost elsewhere does that."""
    files = HauntedFiles(3)
    lock = DirectoryLock.take(files, str(tmp_path / "d"))
    assert files.times == 0
    assert lock.is_in_place()
    lock.release()


def test_one_that_is_always_taken_away_is_given_up(tmp_path: Path) -> None:
    files = HauntedFiles(1_000_000)
    with pytest.raises(StartError, match="d cannot be used: No such file or directory"):
        DirectoryLock.take(files, str(tmp_path / "d"))
    assert files.times > 0


def test_a_lock_counts_only_on_the_directory_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced just before it is locked: the next daemon would lock the other one."""
    path = tmp_path / "d"
    real = fcntl.flock
    replaced: list[int] = []

    def replace_and_lock(descriptor: int, operation: int) -> None:
        if not replaced:
            replaced.append(path.stat().st_ino)
            path.rename(tmp_path / "moved")
            path.mkdir(mode=0o700)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace_and_lock)
    before = len(os.listdir("/proc/self/fd"))
    lock = DirectoryLock.take(FILES, str(path))
    assert path.stat().st_ino not in replaced
    assert lock.is_in_place()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    with pytest.raises(AlreadyServedError):
        DirectoryLock.take(FILES, str(path))
    DirectoryLock.take(FILES, str(tmp_path / "moved")).release()
    lock.release()


# The socket


def test_a_socket_is_bound_and_private(listener: Listener, path: str, directory: Path) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert is_answered(path)
    assert listener.is_in_place()
    assert not listener.is_inherited
    assert not listener.socket.getblocking()
    assert not listener.socket.get_inheritable()
    assert [entry.name for entry in directory.iterdir()] == ["socket"]


def test_a_stale_socket_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert not is_answered(path)
    listener = bind(path)
    assert is_answered(path)
    listener.close()
    assert not os.path.lexists(path)


def test_what_a_crash_left_half_bound_is_replaced(path: str, directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / ".s"))
    bind(path).close()
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_left_where_it_is(kind: str, path: str, directory: Path) -> None:
    if kind == "file":
        (directory / "socket").write_bytes(b"mine")
    elif kind == "directory":
        (directory / "socket").mkdir()
    else:
        (directory / "socket").symlink_to("nowhere")
    with pytest.raises(StartError, match=f"{path} is there and is no socket: move it away"):
        bind(path)
    assert [entry.name for entry in directory.iterdir()] == ["socket"]


@pytest.mark.parametrize("name_bytes", [1, 2, 3, 20])
def test_a_path_of_107_bytes_works_and_of_108_is_refused(name_bytes: int, directory: Path) -> None:
    room = SOCKET_PATH_BYTES - len(str(directory)) - 1 - name_bytes - 1
    deep = directory / ("d" * room)
    deep.mkdir(mode=0o700)
    path = str(deep / ("n" * name_bytes))
    assert len(path) == SOCKET_PATH_BYTES
    listener = bind(path)
    assert is_answered(path)
    listener.close()
    with pytest.raises(StartError, match="has 108 bytes, a Unix socket may have at most 107"):
        bind(path + "n")
    assert list(deep.iterdir()) == []


def test_a_file_of_the_temporary_name_is_left_where_it_is(path: str, directory: Path) -> None:
    (directory / ".s").write_bytes(b"mine")
    with pytest.raises(StartError, match="s is there and is no socket: move it away"):
        bind(path)
    assert (directory / ".s").read_bytes() == b"mine"


def test_any_name_may_be_the_sockets(directory: Path) -> None:
    for name in ("s", ".s", "~", "_"):
        path = str(directory / name)
        listener = bind(path)
        assert is_answered(path)
        listener.close()
        assert list(directory.iterdir()) == []


def test_a_directory_that_is_gone_is_said(directory: Path) -> None:
    with pytest.raises(StartError, match="cannot listen: No such file or directory"):
        bind(str(directory / "none" / "socket"))


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(StartError, match="is not absolute"):
        bind("socket")


def test_a_refusal_leaves_no_descriptor(path: str, directory: Path) -> None:
    (directory / "socket").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StartError):
        bind(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_at_the_end_only_our_own_file_is_removed(path: str) -> None:
    first = bind(path)
    second = bind(path)
    assert not first.is_in_place()
    assert second.is_in_place()
    first.close()
    assert is_answered(path), "the file is the second one's"
    second.close()
    assert not os.path.lexists(path)


def test_a_file_that_is_gone_is_noticed(path: str) -> None:
    listener = bind(path)
    os.unlink(path)
    assert not listener.is_in_place()
    listener.close()


def test_an_inherited_socket_is_never_removed(path: str) -> None:
    own = socket.socket(socket.AF_UNIX)
    own.bind(path)
    listener = Listener(own, path, None)
    assert listener.is_inherited
    assert listener.is_in_place()
    listener.close()
    assert os.path.lexists(path)
    os.unlink(path)
    assert not listener.is_in_place()


def test_a_directory_that_is_replaced_is_noticed(directory: Path) -> None:
    lock = DirectoryLock.take(FILES, str(directory))
    assert lock.is_in_place()
    directory.rename(directory.with_name("elsewhere"))
    assert not lock.is_in_place()
    directory.mkdir(mode=0o700)
    assert not lock.is_in_place()
    directory.rmdir()
    directory.with_name("elsewhere").rename(directory)
    assert lock.is_in_place()
    lock.release()


def test_a_disk_that_fails_is_no_directory_that_is_gone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = DirectoryLock.take(FILES, str(directory))

    def fail(*_of: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    # So it is on XFS once it has shut itself down.
    with monkeypatch.context() as failing:
        failing.setattr(os, "lstat", fail)
        failing.setattr(os, "fstat", fail)
        assert lock.is_in_place()
    lock.release()
