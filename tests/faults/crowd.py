"""Starts many daemons at one moment: `python -m tests.faults.crowd` with one line of JSON each.

A daemon's start takes most of its time for imports: of thirty processes each would find the race
over. Here one process imports the daemon, forks for each, and lets all of them go at once. From
there on each is the daemon that `python -m autoloadd_daemon` runs.

Input: lines of JSON, each a list of options. Output: their pids, a line each, in that order, when
all are ready; they begin when the input says `go`. At the end of each: its pid and exit status.
"""

from __future__ import annotations

import json
import os
import sys

from autoloadd_daemon import app
from autoloadd_daemon.__main__ import main

__all__ = ["app"]


def run(options: list[str], gate: int) -> None:
    """Wait at the gate, then be a daemon. Never returns."""
    os.read(gate, 1)
    os.close(gate)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # The pipe of the reports stays with the one process that writes them.
    os.dup2(2, 1)
    status = 70
    try:
        status = main(options)
    finally:
        sys.stderr.flush()
        os._exit(status)


def start_all(wanted: list[list[str]]) -> None:
    """Fork for each, open the gate when told, report the ends."""
    gate, opener = os.pipe()
    for options in wanted:
        pid = os.fork()
        if not pid:
            os.close(opener)
            run(options, gate)
        sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    os.close(gate)
    assert sys.stdin.readline() == "go\n"
    os.close(opener)
    for _ in wanted:
        pid, status = os.wait()
        sys.stdout.write(f"{pid} {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    start_all(json.loads(sys.stdin.readline()))
