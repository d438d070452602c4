"""What a service manager gives and wants to hear: sd_listen_fds(3) and sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

from .errors import StartError
from .listening import Listener

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_logger = logging.getLogger(__name__)

_FIRST_DESCRIPTOR = 3


def inherited_listener(environment: MutableMapping[str, str]) -> Listener | None:
    """Return the listening socket that was passed as descriptor 3, or None. Raises StartError.

    Takes the variables out of the environment, as sd_listen_fds(unset_environment=1) does.
    """
    pid = environment.pop("LISTEN_PID", None)
    count = environment.pop("LISTEN_FDS", None)
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count or count == "0":
        return None
    if count != "1":
        raise StartError(f"expected one socket from the service manager, got {count}")
    try:
        inherited = socket.socket(fileno=_FIRST_DESCRIPTOR)
    except OSError as exc:
        raise StartError(f"descriptor 3 is no socket: {exc.strerror}") from exc
    if inherited.family != socket.AF_UNIX or inherited.type != socket.SOCK_STREAM:
        raise StartError("descriptor 3 is no Unix stream socket")
    inherited.setblocking(False)
    os.set_inheritable(_FIRST_DESCRIPTOR, False)
    return Listener(inherited, str(inherited.getsockname()), None)


def notify(state: str, environment: MutableMapping[str, str]) -> None:
    """Tell the service manager, if there is one: READY=1, STOPPING=1, RELOADING=1."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.connect(address)
            manager.sendall(state.encode())
        except OSError as exc:
            _logger.warning("the service manager was not told %s: %s", state, exc)
