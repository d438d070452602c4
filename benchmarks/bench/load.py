"""The compiled load generator: built once, run against one server at a time."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoloadd_protocol.producer import parse_producer
from autoloadd_protocol.requests import FIRST_ID, hello_request

from .verdicts import CannotMeasureError, PeerFailedError
from .workload import MTIME_NS, PRODUCER

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = Path(__file__).parents[1] / "load.c"
WARM_UP_SECONDS = 0.1
EXTRA_SECONDS = 60.0

_PAIR = struct.Struct("<QQ")


@dataclass(frozen=True)
class Report:
    """What a run came to. Times are ns from sending a request to the last byte of its answer."""

    operations: int
    seconds: float
    p50_ns: int
    p99_ns: int
    max_ns: int
    connections: tuple[tuple[int, int], ...]
    """(p50_ns, p99_ns) of each connection."""

    @property
    def per_second(self) -> float:
        """Return the rate of all connections together."""
        return self.operations / self.seconds

    @property
    def unfairness(self) -> float:
        """Return the largest p99 of a connection, in p50s of that connection."""
        return max(p99 / p50 for p50, p99 in self.connections)


@dataclass(frozen=True, kw_only=True)
class Load:
    """One run: what is asked of whom. `protocol` is "autoloadd" or "resp"."""

    program: Path
    protocol: str
    socket_path: str
    workload: Path
    operation: str = "get"
    sync: str = "write"
    connections: int = 1
    seconds: float = 1.0
    seed: int = 1

    def command(self, *options: str) -> list[str]:
        """Return the command line."""
        # fmt: off
        return [
            str(self.program), "--protocol", self.protocol, "--op", self.operation,
            "--socket", self.socket_path, "--workload", str(self.workload), "--sync", self.sync,
            "--connections", str(self.connections), "--seconds", str(self.seconds),
            "--warm-up", str(WARM_UP_SECONDS), "--seed", str(self.seed), "--mtime", str(MTIME_NS),
            *(["--hello", _hello().hex()] if self.protocol == "autoloadd" else []), *options,
        ]
        # fmt: on

    def run(self) -> Report:
        """Run it to its end. Raises PeerFailedError for a wrong byte, a refusal, a lost server."""
        return finish(self.start(), self.seconds)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Return the process of a run that has begun; SIGTERM ends it early, `finish` waits."""
        return subprocess.Popen(
            self.command(*options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def finish(process: subprocess.Popen[str], seconds: float) -> Report:
    """Return the report of a run. Raises PeerFailedError."""
    try:
        out, err = process.communicate(timeout=seconds + EXTRA_SECONDS)
    except subprocess.TimeoutExpired as exc:
        process.kill()
        process.communicate()
        raise PeerFailedError("the load generator did not end") from exc
    if process.returncode != 0:
        raise PeerFailedError(f"{err.strip()} (in {process.args!r})")
    return parse_report(out)


def parse_report(text: str) -> Report:
    """Return the report that the generator printed. Raises PeerFailedError for an empty one."""
    found: dict[str, Any] = json.loads(text)
    rows: Sequence[dict[str, int]] = found["connections"]
    if not all(row["operations"] for row in rows):
        raise PeerFailedError("a connection got no answer while it was measured")
    return Report(
        operations=found["operations"],
        seconds=found["seconds"],
        p50_ns=found["p50_ns"],
        p99_ns=found["p99_ns"],
        max_ns=found["max_ns"],
        connections=tuple((row["p50_ns"], row["p99_ns"]) for row in rows),
    )


def read_dump(path: Path) -> list[tuple[int, int]]:
    """Return (sent, answered) of each request of a dumped run, ns of CLOCK_MONOTONIC."""
    return list(_PAIR.iter_unpack(path.read_bytes()))


def build(directory: Path) -> Path:
    """Compile the generator, unless that was done for this source. Raises CannotMeasureError."""
    program = directory / "load"
    if program.exists() and program.stat().st_mtime_ns > SOURCE.stat().st_mtime_ns:
        return program
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise CannotMeasureError(f"no C compiler ({compiler}): apt-get install gcc libc6-dev")
    fresh = directory / "load.new"
    ran = subprocess.run(
        [compiler, "-O2", "-std=c11", "-o", fresh, SOURCE],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode != 0:
        raise CannotMeasureError(f"{compiler} does not compile load.c\n{ran.stderr}")
    fresh.rename(program)
    return program


def _hello() -> bytes:
    return hello_request(FIRST_ID, parse_producer(PRODUCER), version="0", pid=os.getpid())
