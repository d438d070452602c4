"""A client in a fresh process: what its first get takes once its library is imported.

    fresh.py PEER NAME SIZE

PEER is a pickled Peer in hexadecimal. Prints ns; exits with 1 when the answer does not have SIZE
bytes, which the caller knows to be right from having read the entry itself.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .verdicts import PeerFailedError
from .workload import MIN_BLOB_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .peers.client import Peer

PROGRAM = Path(__file__).parents[1] / "run_fresh.py"
_SECONDS = 60.0


def time_first_get(peer: Peer, name: str, size: int) -> int:
    """Return the ns that opening, connecting, greeting and one get took in a new process.

    Raises PeerFailedError when the process fails, or the answer does not have `size` bytes.
    """
    ran = subprocess.run(
        [sys.executable, PROGRAM, pickle.dumps(peer).hex(), name, str(size)],
        capture_output=True, text=True, check=False, timeout=_SECONDS,
    )  # fmt: skip
    if ran.returncode != 0:
        raise PeerFailedError(f"{peer.key} in a fresh process: {ran.stderr.strip()}")
    return int(ran.stdout)


def main(arguments: Sequence[str]) -> int:
    """Measure in this process, which must be a fresh one; return the exit status."""
    # Unpickling imports the peer's module, and with it the library: apart from what is timed.
    peer: Peer = pickle.loads(bytes.fromhex(arguments[0]))  # noqa: S301 - our parent made it
    name, size = arguments[1], int(arguments[2])
    started = time.perf_counter_ns()
    client = peer.open()
    blob = client.get(name)
    taken = time.perf_counter_ns() - started
    client.close()
    if blob is None or len(blob) != size or size < MIN_BLOB_BYTES:
        print(f"{name}: {None if blob is None else len(blob)} bytes, not {size}", file=sys.stderr)
        return 1
    print(taken)
    return 0
