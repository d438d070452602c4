"""Who listens on the other side of a socket, as far as the system tells."""

from __future__ import annotations

import _socket
from sys import byteorder

_CREDENTIAL_BYTES = 12


def peer_uid(sock: _socket.socket) -> int | None:
    """Return the uid that the other side runs as; None where the system does not tell.

    Only Linux tells without more; elsewhere the directory's owner and mode have to be enough.
    """
    option = getattr(_socket, "SO_PEERCRED", None)
    if option is None:
        return None
    credentials = sock.getsockopt(_socket.SOL_SOCKET, option, _CREDENTIAL_BYTES)
    return int.from_bytes(credentials[4:8], byteorder)
