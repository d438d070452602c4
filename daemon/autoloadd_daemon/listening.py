"""The listening socket: one daemon for each socket directory, and no moment without the right mode.

The lock is a flock on the directory's own descriptor, so no lock file can be removed under it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from autoloadd_protocol.errors import RendezvousError
from autoloadd_protocol.rendezvous import check_private_directory, check_socket_path

from .errors import AlreadyServedError, StartError

if TYPE_CHECKING:
    from typing import Self

    from .storage.files import Files

_logger = logging.getLogger(__name__)

BACKLOG = 4096
"""A full backlog blocks a zsh client without a time limit; the kernel caps this at somaxconn."""

_ATTEMPTS = 100


class DirectoryLock:
    """A private directory that this process alone uses, until `release` or its end."""

    def __init__(
        self, path: str, descriptor: int, identity: tuple[int, int], *, is_new: bool
    ) -> None:
        self.path = path
        self._descriptor = descriptor
        self._identity = identity
        self._is_new = is_new

    @classmethod
    def take(cls, files: Files, path: str) -> Self:
        """Make the directory if needed and lock it.

        Raises AlreadyServedError if another daemon has it, StartError if it cannot be used.
        """
        for _ in range(_ATTEMPTS):
            lock = cls._try_to_take(files, path)
            if lock is not None:
                return lock
        raise StartError(f"{path} cannot be used: {os.strerror(errno.ENOENT)}")

    @classmethod
    def _try_to_take(cls, files: Files, path: str) -> Self | None:
        """Return the lock; None where the directory was taken away before it was locked.

        One that made it and lost elsewhere does that. A lock on it then would be no lock: the next
        daemon makes another directory there.
        """
        is_new = not os.path.lexists(path)
        try:
            files.make_directories(path)
            check_private_directory(path, os.geteuid(), os.lstat)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags)
            locked = os.fstat(descriptor)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StartError(f"{path} cannot be used: {exc.strerror}") from exc
        except RendezvousError as exc:
            raise StartError(str(exc)) from exc
        lock = cls(path, descriptor, (locked.st_dev, locked.st_ino), is_new=is_new)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.release()
            raise AlreadyServedError(f"another autoloadd uses {path}") from exc
        if lock.is_in_place():
            return lock
        lock.release()
        return None

    def is_in_place(self) -> bool:
        """Tell whether the path still leads to the directory that is locked."""
        try:
            found = os.lstat(self.path)
        except OSError as exc:
            # A disk that fails says nothing of where the path leads; writes will notice. Of XFS
            # after a failure, even the descriptor that is locked cannot be asked any more.
            return exc.errno == errno.EIO
        return (found.st_dev, found.st_ino) == self._identity

    def undo(self) -> None:
        """Leave things as they were before `take`: the daemon cannot serve here."""
        if self._is_new:
            # While it is locked: nobody else begins in a directory that goes away. One that is not
            # empty by now is somebody else's too.
            with suppress(OSError):
                os.rmdir(self.path)
        self.release()

    def release(self) -> None:
        """Let another daemon have the directory."""
        os.close(self._descriptor)


class Listener(NamedTuple):
    """A listening socket. An inherited one (systemd's) is never unlinked or bound again."""

    socket: socket.socket
    path: str
    identity: tuple[int, int] | None

    @property
    def is_inherited(self) -> bool:
        """Tell whether somebody else made the socket."""
        return self.identity is None

    def is_in_place(self) -> bool:
        """Tell whether the path still leads to this socket."""
        if self.identity is None:
            return os.path.exists(self.path)
        return _identity(self.path) == self.identity

    def close(self) -> None:
        """Stop listening; remove the socket's file if it is still ours."""
        self.socket.close()
        if self.identity is not None and _identity(self.path) == self.identity:
            try:
                os.unlink(self.path)
            except OSError as exc:
                # The next daemon replaces it; what is to be flushed must not suffer.
                _logger.warning("%s could not be removed: %s", self.path, exc.strerror)


def bind(path: str) -> Listener:
    """Bind a socket with mode 0600 and put it in place of a stale one.

    Only for the holder of the directory's lock. Raises StartError.
    """
    temporary = _temporary_path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        check_socket_path(path)
        _refuse_foreign(path)
        _refuse_foreign(temporary)
        if os.path.lexists(temporary):
            os.unlink(temporary)
        # The mode is set before bind: there is no moment in which others could connect.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(temporary)
        os.chmod(temporary, 0o600)
        listener.listen(BACKLOG)
        identity = _identity(temporary)
        os.rename(temporary, path)
    except OSError as exc:
        listener.close()
        raise StartError(f"{path}: cannot listen: {exc.strerror or exc}") from exc
    except RendezvousError as exc:
        listener.close()
        raise StartError(str(exc)) from exc
    assert identity is not None
    return Listener(listener, path, identity)


def _temporary_path(path: str) -> str:
    """Return a path that fits where `path` fits. The lock makes it ours: nobody else binds here."""
    directory, name = os.path.split(path)
    if len(name) > 1:
        return os.path.join(directory, ".s")
    return os.path.join(directory, "_" if name == "~" else "~")


def _refuse_foreign(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise RendezvousError(f"{path} is there and is no socket: move it away")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
