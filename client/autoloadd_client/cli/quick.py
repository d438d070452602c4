"""One get from a daemon that is well: connect, greet, ask, and nothing else.

The client library does the same with all that may go wrong, and its imports take longer than the
answer. So whatever is unusual here is an error without words: the library asks once more, on a
connection of its own, and has them.
"""

from __future__ import annotations

import _socket
import os
from time import monotonic

from autoloadd_client.peer import peer_uid
from autoloadd_protocol import __version__
from autoloadd_protocol.encoding import encode_optional_int, encode_str
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import LENGTH_BYTES
from autoloadd_protocol.limits import FRAME_BYTES
from autoloadd_protocol.rendezvous import (
    check_private_directory,
    check_socket_path,
    is_switched_off,
    socket_path,
)
from autoloadd_protocol.requests import (
    FIRST_ID,
    hello_request,
    is_success,
    parse_get_answer,
    request_frame,
)

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from autoloadd_protocol.producer import Producer

_SECONDS = 0.25
"""A daemon that is well takes 1 ms. Whoever is slower gets the library's whole second after it."""

_RECEIVE_BYTES = 64 * 1024
_SEND_FLAGS = getattr(_socket, "MSG_NOSIGNAL", 0)


def ask(
    producer: Producer, name: bytes, *, socket: str | None, binary_mtime_ns: int | None
) -> bytes | None:
    """Return an entry's blob; None when it is absent or stale.

    Raises OSError, FrameError or RendezvousError where that cannot be told at once.
    """
    if is_switched_off(os.environ):
        raise FrameError("nobody is to be asked")
    hello = hello_request(FIRST_ID, producer, version=__version__, pid=os.getpid())
    wanted = encode_str(name), encode_optional_int(binary_mtime_ns)
    request = request_frame(FIRST_ID + 1, b"get", *wanted)
    deadline = monotonic() + _SECONDS
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        _connect(sock, _path(socket))
        sock.sendall(hello + request, _SEND_FLAGS)
        answer = _receive(sock, deadline, hello, request)
    finally:
        sock.close()
    span = parse_get_answer(answer, name)
    return None if span is None else answer[span[0] : span[1]]


def _path(given: str | None) -> str:
    if given is not None:
        return check_socket_path(given)
    return socket_path(os.environ, os.geteuid(), os.lstat)


def _connect(sock: _socket.socket, path: str) -> None:
    check_private_directory(os.path.dirname(path), os.geteuid(), os.lstat)
    sock.settimeout(_SECONDS)
    sock.connect(path)
    if peer_uid(sock) not in (None, os.geteuid()):
        raise FrameError("another user's server")


def _receive(sock: _socket.socket, deadline: float, *requests: bytes) -> bytes:
    """Return the last request's answer, once all of them were answered well, and no more came."""
    answer, received = b"", bytearray()
    for request in requests:
        _fill(sock, received, LENGTH_BYTES, deadline)
        end = LENGTH_BYTES + int.from_bytes(received[:LENGTH_BYTES], "big")
        if end > LENGTH_BYTES + FRAME_BYTES:
            raise FrameError("no frame of a daemon's")
        _fill(sock, received, end, deadline)
        answer = bytes(received[:end])
        if not is_success(answer, request):
            raise FrameError("a refusal")
        del received[:end]
    if received:
        raise FrameError("more than was asked for")
    return answer


def _fill(sock: _socket.socket, received: bytearray, size: int, deadline: float) -> None:
    """Return when so many bytes were received, or more."""
    while len(received) < size:
        # All of it has this time, also where it comes in drips.
        sock.settimeout(max(deadline - monotonic(), 0.0))
        data = sock.recv(max(_RECEIVE_BYTES, size - len(received)))
        if not data:
            raise FrameError("the end of the stream")
        received += data
