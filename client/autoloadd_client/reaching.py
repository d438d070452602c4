"""How a daemon is found and reached: the socket's path, the checks, and a connected socket.

Who can write to the socket's directory could put a server there, so the directory has to be ours
alone, and the peer has to run under our uid.
"""

from __future__ import annotations

import _socket
import os
from time import monotonic, sleep

from autoloadd_protocol.errors import RendezvousError
from autoloadd_protocol.rendezvous import check_private_directory, check_socket_path, socket_path

from .errors import ForgedError, UnreachableError
from .peer import peer_uid

HOW_TO_START = "start it with `autoloadd &` or `systemctl --user start autoloadd.socket`"

_FULL_BACKLOG_SECONDS = 0.002
"""A listening socket whose queue is full says EAGAIN at once; there is nothing to wait on."""


def find_socket(given: str | None) -> str:
    """Return the path of the daemon's socket. Raises UnreachableError for one that cannot be."""
    try:
        if given is not None:
            return check_socket_path(given)
        return socket_path(os.environ, os.geteuid(), os.lstat)
    except RendezvousError as exc:
        raise UnreachableError(given, str(exc)) from exc


def connect(path: str, deadline: float, *, how_to_start: str) -> _socket.socket:
    """Return a socket that is connected to a daemon of this user.

    Raises TimeoutError, UnreachableError (with `how_to_start` where that helps), and ForgedError
    for another user's server.
    """
    _check_directory(path, how_to_start)
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    except OSError as exc:
        raise UnreachableError(path, exc.strerror or str(exc)) from exc
    try:
        _connect_by(sock, path, deadline, how_to_start)
        _check_peer(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_directory(path: str, how_to_start: str) -> None:
    directory = os.path.dirname(path)
    try:
        check_private_directory(directory, os.geteuid(), os.lstat)
    except RendezvousError as exc:
        raise UnreachableError(path, str(exc)) from exc
    except OSError as exc:
        fix = how_to_start if isinstance(exc, FileNotFoundError) else None
        raise UnreachableError(path, f"{directory}: {exc.strerror}", fix) from exc


def _connect_by(sock: _socket.socket, path: str, deadline: float, how_to_start: str) -> None:
    while True:
        sock.settimeout(time_left(deadline))
        try:
            return sock.connect(path)
        except BlockingIOError:
            sleep(min(_FULL_BACKLOG_SECONDS, time_left(deadline)))
        except OSError as exc:
            is_absent = isinstance(exc, (FileNotFoundError, ConnectionRefusedError))
            fix = how_to_start if is_absent else None
            raise UnreachableError(path, exc.strerror or str(exc), fix) from exc


def _check_peer(sock: _socket.socket, path: str) -> None:
    uid = peer_uid(sock)
    if uid not in (None, os.geteuid()):
        raise ForgedError(f"the server at {path} runs as uid {uid}, not as uid {os.geteuid()}")


def time_left(deadline: float) -> float:
    """Return the seconds until a deadline. Raises TimeoutError when there are none."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
