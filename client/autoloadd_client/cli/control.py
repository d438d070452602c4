"""The commands about the daemon and its shards: status, ping, shards, drop, shutdown, version."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from autoloadd_client.errors import CacheError
from autoloadd_protocol import __version__
from autoloadd_protocol.producer import producer_from_map

from .conventions import WRITE_SECONDS
from .parser import add_command
from .statuses import FOUND
from .text import (
    format_ago,
    format_count,
    format_duration,
    format_mebibytes,
    format_size,
    format_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .context import Context
    from .parser import Subparsers


def add_commands(subparsers: Subparsers) -> None:
    """Add these commands to autoloadctl's."""
    add_command(
        subparsers,
        "status",
        run_status,
        summary="show how the daemon is",
        examples="  autoloadctl status\n  autoloadctl status --json | jq .storage.state\n",
        data=False,
    )
    add_command(
        subparsers,
        "ping",
        run_ping,
        summary="see whether the daemon answers",
        examples="  autoloadctl ping && echo it is there\n",
        data=False,
    )
    add_command(
        subparsers,
        "shards",
        run_shards,
        summary="list whose entries are cached",
        examples="  autoloadctl shards\n  autoloadctl shards --json | jq -r '.[].id'\n",
        data=False,
    )
    drop = add_command(
        subparsers,
        "drop",
        run_drop,
        summary="remove a shard with all its entries, without asking",
        operands="ID",
        examples="  autoloadctl shards\n  autoloadctl drop zsh-5.8-8-4be7b0a24c8fca91\n",
        data=False,
        usual_timeout=WRITE_SECONDS,
    )
    drop.add_argument("id", metavar="ID", help="as `autoloadctl shards` lists it")
    add_command(
        subparsers,
        "shutdown",
        run_shutdown,
        summary="stop the daemon without asking, after everything is on disk",
        examples="  autoloadctl shutdown\n",
        data=False,
        usual_timeout=WRITE_SECONDS,
    )
    add_command(
        subparsers,
        "version",
        run_version,
        summary="show the versions of autoloadctl and of the daemon",
        examples="  autoloadctl version\n",
        data=False,
    )


def run_status(context: Context) -> int:
    """Show the daemon's own account of itself."""
    with context.open_daemon() as daemon:
        status = daemon.status()
    if context.wants_json:
        context.write_json(status)
    else:
        sys.stdout.write(_describe_status(context, status))
    return FOUND


_STATUS_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("server_version", "version", str),
    ("pid", "pid", str),
    ("uptime_ns", "up", format_duration),
    ("socket", "socket", str),
    ("cache_dir", "cache", str),
    ("connections", "connections", "{:,}".format),
    ("memory_bytes", "memory", format_size),
    ("shards", "shards", "{:,}".format),
    ("shard_bytes", "stored", format_size),
    ("max_bytes", "at most", format_mebibytes),
)
"""Key, label, and how its value is shown."""


def _describe_status(context: Context, status: Mapping[str, Any]) -> str:
    """Return what is known of the daemon; one of another version may say less, or more."""
    rows = [
        (label, show(status[key]))
        for key, label, show in _STATUS_ROWS
        if status.get(key) is not None
    ]
    if status.get("refused_notifications"):
        refused = format_count(status["refused_notifications"], "write")
        rows.append(("refused", f"{refused} whose sender did not wait for an answer"))
    leases = status.get("leases") or {}
    if leases.get("held"):
        made = format_count(leases["held"], "entry", "entries")
        waiting = format_count(leases.get("waiting", 0), "client")
        rows.append(("being made", f"{made}, {waiting} waiting"))
    counters = _describe_counters(status.get("counters") or {})
    if counters:
        rows.append(("since start", counters))
    storage = status.get("storage") or {}
    if "state" in storage:
        rows.append(("storage", _describe_storage(context, storage)))
    aside = storage.get("set_aside") or ()
    rows += [("set aside", _describe_set_aside(item)) for item in aside]
    return format_table(rows)


def _describe_set_aside(item: Mapping[str, Any]) -> str:
    file, reason = str(item["file"]), str(item["reason"])
    # The reason may begin with the name that the file had before.
    before = file.partition(".set-aside-")[0]
    return f"{file}: {reason.removeprefix(before).removeprefix(': ')}; {_AFTER_SET_ASIDE}"


_AFTER_SET_ASIDE = "`autoloadctl warm zsh` makes zsh's entries anew; the file may be deleted"


def _describe_counters(counters: Mapping[str, int]) -> str:
    return ", ".join(
        format_count(count, _ONE_OF.get(name, name).replace("_", " "), name.replace("_", " "))
        for name, count in counters.items()
        if count
    )


_ONE_OF = {
    "gets": "get",
    "writes": "write",
    "hits": "hit",
    "misses": "miss",
    "connections": "connection",
    "refused_requests": "refused_request",
    "refused_notifications": "refused_notification",
    "bad_frames": "bad_frame",
}
"""The singular of a counter's name, where it has one."""


def _describe_storage(context: Context, storage: Mapping[str, Any]) -> str:
    paint = context.palette.good if storage["state"] == "healthy" else context.palette.bad
    parts = [paint(str(storage["state"]))]
    if storage.get("since_ns_ago") is not None:
        parts.append(f"since {format_duration(storage['since_ns_ago'])}")
    if storage.get("error"):
        parts.append(str(storage["error"]))
    if storage.get("next_try_ns") is not None:
        parts.append(f"next try in {format_duration(storage['next_try_ns'])}")
    return ", ".join(parts)


def run_ping(context: Context) -> int:
    """Ask for a sign of life, and say how long it took: the connection is made before."""
    with context.open_daemon() as daemon:
        pid = daemon.server["pid"]
        started = time.monotonic_ns()
        daemon.ping()
        took = time.monotonic_ns() - started
    context.report({"pid": pid, "ns": took}, f"autoloadd (pid {pid}) answers: {took / 1e6:.2f} ms")
    return FOUND


def run_shards(context: Context) -> int:
    """List the shards."""
    with context.open_daemon() as daemon:
        shards = daemon.shards()
    if context.wants_json:
        context.write_json(shards)
    else:
        sys.stdout.write(_describe_all(shards))
    return FOUND


def _describe_all(shards: Sequence[Mapping[str, Any]]) -> str:
    if not shards:
        return "no shards: nothing has been stored yet\n"
    header = ("ID", "PRODUCER", "ENTRIES", "BLOBS", "STORED", "USED")
    rows = [
        (
            str(shard["id"]),
            str(producer_from_map(shard["producer"])),
            f"{shard['entries']:,}",
            format_size(shard["blob_bytes"]),
            format_size(shard["stored_bytes"]),
            _describe_use(shard["last_used_ns_ago"]),
        )
        for shard in shards
    ]
    return format_table([header, *rows], right=frozenset((2, 3, 4)))


def _describe_use(ns_ago: int | None) -> str:
    return "not since start" if ns_ago is None else format_ago(ns_ago)


def run_drop(context: Context) -> int:
    """Remove a whole shard."""
    shard_id: str = context.arguments.id
    with context.open_daemon() as daemon:
        daemon.drop_shard(shard_id)
    context.report({"dropped": shard_id}, f"dropped {shard_id} with all its entries")
    return FOUND


def run_shutdown(context: Context) -> int:
    """Stop the daemon; it answers when everything is on disk."""
    with context.open_daemon() as daemon:
        pid = daemon.server["pid"]
        daemon.shutdown()
    context.report({"stopped_pid": pid}, f"autoloadd (pid {pid}) has stored everything and stops")
    return FOUND


def run_version(context: Context) -> int:
    """Show both versions; that the daemon does not run is an answer too."""
    try:
        with context.open_daemon() as daemon:
            server = daemon.server
    except CacheError as exc:
        context.report(
            {"client": __version__, "daemon": None, "reason": str(exc)},
            f"autoloadctl {__version__}\nautoloadd: {exc}",
        )
        return FOUND
    major, minor = server["protocol"]
    found = {"version": server["server_version"], "protocol": [major, minor], "pid": server["pid"]}
    context.report(
        {"client": __version__, "daemon": found},
        f"autoloadctl {__version__}\n"
        f"autoloadd {found['version']} (protocol {major}.{minor}, pid {found['pid']})",
    )
    return FOUND
