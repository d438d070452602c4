"""A daemon's side of a connection that follows a script, right or wrong, on a real socket."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from autoloadd_protocol.connection import Connection
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import (
    Notification,
    Request,
    decode_request,
    encode_answer,
    encode_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Script = Callable[["Peer"], None]

PATIENCE_SECONDS = 20.0
"""A script that waits longer than this has met a bug; so has a client."""

HELLO = {"protocol": (1, 0), "server_version": "scripted", "pid": 1, "features": ()}


class Peer:
    """One accepted connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._connection = Connection(decode_request)

    def read(self) -> Request | Notification:
        """Return the next message of the client."""
        while (message := self._connection.next_message()) is None:
            data = self.socket.recv(65536)
            assert data, "the client closed the connection"
            self._connection.receive_data(data)
        return message

    def read_request(self, method: str) -> Request:
        """Return the next message, which has to be a request of this method."""
        message = self.read()
        assert isinstance(message, Request)
        assert message.method == method
        return message

    def read_notification(self, method: str) -> Notification:
        """Return the next message, which has to be a notification of this method."""
        message = self.read()
        assert isinstance(message, Notification)
        assert message.method == method
        return message

    def greet(self) -> Request:
        """Answer the client's hello."""
        hello = self.read_request("hello")
        self.answer(hello, HELLO)
        return hello

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.socket.sendall(data)

    def answer(self, request: Request, result: object) -> None:
        """Send a successful answer."""
        self.send(encode_frame(encode_answer(request.id, result)))

    def refuse(self, request_id: int | None, code: str, detail: Any = None) -> None:
        """Send a refusal with the message `no`."""
        self.send(encode_frame(encode_error(request_id, code, "no", detail)))

    def wait_for_end(self) -> None:
        """Return when the client has closed its side, having sent nothing more."""
        with contextlib.suppress(ConnectionResetError):
            assert self.socket.recv(1) == b""

    def wait_for_rest(self) -> None:
        """Return when the client has closed its side; what it sends is not looked at."""
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(65536):
                pass

    def wait_for_end_after(self, late: bytes) -> None:
        """Return when the client has closed its side; then send what nobody may read."""
        self.wait_for_end()
        with contextlib.suppress(OSError):
            self.send(late)


def entry_answer(name: str, blob: bytes) -> tuple[object, ...]:
    """Return the result of a get that found something."""
    return name, blob, None, 7, 8


def serve_one(name: str, blob: bytes) -> Script:
    """Return a script that answers one hello and one get."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), entry_answer(name, blob))
        peer.wait_for_end()

    return script


class ScriptedServer:
    """Listens at a path; the n-th connection gets the n-th script, each in a thread of its own."""

    def __init__(self, path: Path, scripts: tuple[Script, ...]) -> None:
        self.path = str(path)
        self._scripts = scripts
        self._failures: list[BaseException] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def stop(self) -> None:
        """Wait until all scripts are over; raise what a script raised."""
        self._acceptor.join(PATIENCE_SECONDS)
        self._listener.close()
        os.unlink(self.path)
        for failure in self._failures:
            raise failure

    def _accept(self) -> None:
        threads = []
        self._listener.settimeout(PATIENCE_SECONDS)
        for script in self._scripts:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                self._failures.append(AssertionError(f"nobody connected for {script}"))
                break
            threads.append(threading.Thread(target=self._follow, args=(script, sock)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _follow(self, script: Script, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(PATIENCE_SECONDS)
            try:
                script(Peer(sock))
            except Exception as exc:  # noqa: BLE001 - raised again by stop, in the test's thread
                self._failures.append(exc)
