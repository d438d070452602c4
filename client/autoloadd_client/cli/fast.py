"""The short way to one entry: `autoloadctl get NAME`, at the cost of starting Python.

A shell waits for this process. argparse, json and msgpack would each cost more than the answer, and
so would the client library: a daemon that is well is asked without it (`quick`), and with it only
after that did not go as usual. Everything unusual in the arguments is left to the full parser,
which answers the same.
"""

from __future__ import annotations

import os
import sys

from autoloadd_protocol.errors import FrameError, RendezvousError
from autoloadd_protocol.limits import NAME_BYTES
from autoloadd_protocol.producer import parse_producer

from .descriptors import deliver, tell
from .quick import ask
from .statuses import FOUND, INTERRUPTED, MISS

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from autoloadd_protocol.producer import Producer

_OPTIONS = ("--producer", "--socket", "--binary", "--mtime")
_MAX_TIME = 2**63 - 1


def run_fast(arguments: list[str]) -> None:
    """Answer a plain `get` and end the process; return where it is anything else.

    `arguments` are those behind `get`.
    """
    try:
        status = get_plain(arguments)
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status is not None:
        # Nothing is left to clean up, and the interpreter's own farewell takes a millisecond.
        os._exit(status)


def get_plain(arguments: list[str]) -> int | None:
    """Write one blob to stdout and return the exit code; None for what is no plain `get`."""
    if sys.stdout is None or sys.stderr is None:
        return None  # its number is free: the socket could get it, and with it what is written
    options = _split(arguments)
    producer = None if options is None else _find_producer(options)
    if options is None or producer is None:
        return None
    try:
        socket = os.path.abspath(options["--socket"]) if "--socket" in options else None
        mtime = _read_time(options)
    except (ValueError, OSError):
        return None
    return _get(producer, options["NAME"], socket, mtime)


def _get(producer: Producer, name: str, socket: str | None, mtime: int | None) -> int | None:
    try:
        blob = ask(producer, name.encode(), socket=socket, binary_mtime_ns=mtime)
    except (OSError, FrameError, RendezvousError):
        # With the library: once more, and with words for what is wrong.
        from .by_library import get_by_library  # noqa: PLC0415

        try:
            blob, failure = get_by_library(producer, name, socket, mtime)
        except ValueError:
            return None  # of a producer that cannot be: the full path says so
        if failure is not None:
            return tell(*failure)
    return MISS if blob is None else deliver(blob, FOUND)


def _split(arguments: list[str]) -> dict[str, str] | None:
    """Return the name and the options, each at most once; None for anything else."""
    found: dict[str, str] = {}
    position = 0
    while position < len(arguments):
        key, equals, value = arguments[position].partition("=")
        if key not in _OPTIONS:
            key, value = "NAME", arguments[position]
        elif not equals:
            position += 1
            value = arguments[position] if position < len(arguments) else ""
        # What begins with a dash may be an option of the full parser's; it also has the words for
        # an empty value and for one given twice.
        if not value or value.startswith("-") or key in found:
            return None
        found[key] = value
        position += 1
    return found if _is_name(found.get("NAME", "")) else None


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_BYTES and len(os.fsencode(name)) <= NAME_BYTES and _is_utf8(name)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find_producer(options: dict[str, str]) -> Producer | None:
    """Return who asks; None where the full path has to find or to explain something."""
    text = options.get("--producer") or os.environ.get("AUTOLOADD_PRODUCER")
    if not text or ("--binary" in options and "--mtime" in options):
        return None
    try:
        return parse_producer(text)
    except ValueError:
        return None


def _read_time(options: dict[str, str]) -> int | None:
    """Return the time to compare with. Raises OSError or ValueError."""
    if "--binary" in options:
        return os.stat(options["--binary"]).st_mtime_ns
    if "--mtime" not in options:
        return None
    time_ns = int(options["--mtime"])
    if time_ns > _MAX_TIME:
        raise ValueError(time_ns)
    return time_ns
