"""What the pictures need beyond the goals: costs by size of cache, puts by number of processes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from .building import Building
from .crew import Crew
from .daemons import Server, fill_daemon, settle, start_daemon, stop_daemon
from .fresh import time_first_get
from .goals.loads import OWN, run_load
from .goals.starts import time_daemon_start
from .memory import memory_bytes
from .peers import locked_file_cache, own, redis_server
from .workload import make_workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .setting import Setting

Line = dict[int, float]
Series = dict[str, Line]
"""For each line of a picture, y by x."""

PROCESSES = (1, 2, 4, 8, 16, 32)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUICK_SIZES = SIZES[:-1]

PUT = "put, p50, µs"
COLD = "first get of a fresh client, µs"
BUILD = "building the image, ms"
MEMORY = "memory, MB"
START = "start to first get, ms"

_PUT_SECONDS = 1.0
_REPEATS = 5


def puts_by_processes(setting: Setting, show: Callable[[str], None]) -> Series:
    """Return acknowledged puts per second of 1 to 32 Python processes."""
    servers = setting.servers
    socket = servers.autoloadd(purpose="put").socket_path
    peers = {
        "autoloadd, write": own.own(socket, "write"),
        "autoloadd, fsync": own.own(socket, "fsync"),
        "redis, appendfsync everysec": redis_server.redis_py(servers.redis("everysec").socket_path),
        "redis, appendfsync always": redis_server.redis_py(servers.redis("always").socket_path),
        "file: lock, rewrite, fsync": locked_file_cache.with_locked_file(servers.locked_file_path),
    }
    series: Series = {}
    for line, peer in peers.items():
        series[line] = {}
        for count in PROCESSES:
            show(f"puts: {count} processes: {line}")
            with Crew(peer, "put", count) as crew:
                series[line][count] = crew.measure(setting.seconds(_PUT_SECONDS))
    return series


def cost_by_entries(setting: Setting, show: Callable[[str], None]) -> Series:
    """Return what one put, first get, image, start and the memory cost, by number of entries."""
    series: Series = {what: {} for what in (PUT, COLD, BUILD, MEMORY, START)}
    for entries in SIZES if setting.pace == 1 else QUICK_SIZES:
        show(f"cost at {entries:,} entries")
        directory = setting.servers.directory(f"size-{entries}")
        for what, value in _measure(setting, directory, entries).items():
            series[what][entries] = value
    return series


def _measure(setting: Setting, directory: Path, entries: int) -> dict[str, float]:
    workload = make_workload(entries)
    daemon = start_daemon(directory)
    try:
        fill_daemon(daemon.socket_path, workload)
        with own.open_cache(daemon.socket_path) as cache:
            server = Server(daemon.socket_path, cache.status()["pid"], directory)
        found = _measure_running(setting, server, entries)
        stop_daemon(daemon)
    finally:
        daemon.kill()
    chosen = range(0, entries, entries // _REPEATS)
    found[START] = median(time_daemon_start(directory, entries, number) for number in chosen)
    return found


def _measure_running(setting: Setting, server: Server, entries: int) -> dict[str, float]:
    workload = make_workload(entries)
    peer = own.own(server.socket_path)
    chosen = range(0, entries, entries // _REPEATS)
    first_gets = [time_first_get(peer, workload.names[n], workload.sizes[n]) for n in chosen]
    client = peer.open()
    for number, name in enumerate(workload.names):
        workload.check(number, client.get(name))
    client.close()
    memory = memory_bytes(server.pid)
    building = Building(server, workload)
    building.approach()
    began, ended = building.trigger()
    settle(server)
    report = run_load(
        setting, OWN, server, operation="put", entries=entries,
        seconds=setting.seconds(_PUT_SECONDS), seed=1,
    )  # fmt: skip
    return {
        PUT: report.p50_ns / 1e3,
        COLD: median(first_gets) / 1e3,
        BUILD: (ended - began) / 1e6,
        MEMORY: memory / 1e6,
    }
