"""An honest client beside hostile ones, in a process of its own: `... bystander SOCKET`.

It puts and gets until its input ends, then prints one line of JSON: how long each answer took, in
seconds. In a process of its own, since the threads of a test that attacks take turns with it.
"""

from __future__ import annotations

import json
import select
import sys
import time

from autoloadd_client import Cache

AT_LEAST = 50
ANSWER_SECONDS = 20.0
PAUSE_SECONDS = 0.001
"""A client with a little to do, not one that takes a whole processor."""


def ask(socket: str) -> list[float]:
    """Return the time of each answer until the input ends."""
    took: list[float] = []
    with Cache("bystander/1/8", socket_path=socket, timeout=ANSWER_SECONDS) as cache:
        cache.put("mine", b"0")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while len(took) < AT_LEAST or not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
            value = b"%d" % len(took)
            started = time.monotonic()
            cache.put("mine", value)
            between = time.monotonic()
            found = cache.get("mine")
            took += [between - started, time.monotonic() - between]
            assert found == value
    return took


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ask(sys.argv[1])) + "\n")
