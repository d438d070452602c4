"""The control plane. `hello`, `ping`, `status` and `shutdown` keep their form for ever."""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from autoloadd_daemon.writes import Drop
from autoloadd_protocol import __version__, limits
from autoloadd_protocol.encoding import encode_str
from autoloadd_protocol.errors import UNSUPPORTED_PROTOCOL, RequestError
from autoloadd_protocol.messages import pack, refuse_unusual
from autoloadd_protocol.parameters import bad_request, read_params
from autoloadd_protocol.producer import producer_from_map

if TYPE_CHECKING:
    from autoloadd_daemon.session import Session
    from autoloadd_daemon.shard import Shard
    from autoloadd_daemon.storage.shard_files import ShardFiles
    from autoloadd_daemon.writes import Done

    from .context import Context

    Params = tuple[Any, ...]
    Parts = list[bytes | memoryview]

_LIMITS = {
    "frame_bytes": limits.FRAME_BYTES,
    "blob_bytes": limits.BLOB_BYTES,
    "name_bytes": limits.NAME_BYTES,
    "fingerprint_bytes": limits.FINGERPRINT_BYTES,
    "names": limits.NAMES,
    "nesting": limits.NESTING,
    "connections": limits.CONNECTIONS,
    "bulks": limits.BULKS,
    "leases": limits.LEASES,
    "leases_per_connection": limits.LEASES_PER_CONNECTION,
}


def hello(context: Context, session: Session, params: Params) -> Parts:
    """Agree on a protocol and set the connection's producer; one that fails leaves none."""
    session.producer = session.shard_id = None
    context.sharing.detach(session)
    protocol, producer, client = read_params(params, 1, 2)
    # What nobody reads of the client's map is checked here or nowhere.
    refuse_unusual(params)
    _check_protocol(protocol)
    if client is not None and not isinstance(client, dict):
        raise bad_request("client: expected a map")
    if producer is not None:
        session.producer = producer_from_map(producer)
        session.shard_id = session.producer.shard_id()
    shard = None if session.shard_id is None else context.shard_of(session)
    result = {
        "protocol": [limits.PROTOCOL_MAJOR, limits.PROTOCOL_MINOR],
        "server_version": __version__,
        "pid": os.getpid(),
        "instance": context.instance,
        "features": ["bulk", "lease", *context.sharing.features],
        "limits": _LIMITS,
        "shard": session.shard_id,
        "epoch": 0 if shard is None else shard.epoch,
        "generation": 0 if shard is None else shard.generation,
    }
    return [pack(result)]


def _check_protocol(protocol: object) -> None:
    match protocol:
        case (int(major), int(minor)) if not isinstance(major, bool) and minor >= 0 <= major:
            pass
        case _:
            raise bad_request("protocol: expected [major, minor]")
    if major != limits.PROTOCOL_MAJOR:
        server = [limits.PROTOCOL_MAJOR, limits.PROTOCOL_MINOR]
        older = "client" if major < limits.PROTOCOL_MAJOR else "daemon"
        raise RequestError(
            UNSUPPORTED_PROTOCOL,
            f"this daemon speaks protocol {server[0]}.{server[1]}, the client {major}.{minor}",
            {"server": server, "client": [major, minor], "fix": f"update the {older}"},
        )


def ping(_context: Context, _session: Session, params: Params) -> Parts:
    """Answer."""
    read_params(params, 0)
    return [encode_str(b"pong")]


def status(context: Context, _session: Session, params: Params) -> Parts:
    """Describe the daemon."""
    read_params(params, 0)
    metrics, leases = context.metrics, context.writer.leases
    pinned = context.sharing.pinned
    health = metrics.health.as_map()
    health["set_aside"] = [
        {"file": file, "reason": reason} for file, reason in list(metrics.set_aside)
    ]
    result = {
        "server_version": __version__,
        "pid": os.getpid(),
        "instance": context.instance,
        "uptime_ns": time.monotonic_ns() - metrics.started_ns,
        "socket": context.socket_path,
        "cache_dir": context.catalog.cache_dir,
        "connections": context.connections(),
        "memory_bytes": _resident_bytes(),
        "shard_bytes": context.catalog.stored_bytes,
        "max_bytes": context.catalog.max_bytes,
        "pinned_images": len(pinned),
        "pinned_bytes": sum(pinned),
        "shards": len(context.catalog),
        "leases": {
            "held": leases.held,
            "waiting": leases.waiting,
            "given": leases.given,
            "expired": leases.expired,
        },
        "counters": dict(metrics.counters),
        "refused_notifications": metrics.counters["refused_notifications"],
        "storage": health,
    }
    return [pack(result)]


def shards(context: Context, _session: Session, params: Params) -> Parts:
    """Describe every shard."""
    read_params(params, 0)
    now = time.monotonic_ns()
    return [pack([_describe(shard, files, now) for shard, files in context.catalog])]


def _describe(shard: Shard, files: ShardFiles, now_ns: int) -> dict[str, object]:
    return {
        "id": shard.id,
        "producer": shard.producer.as_map(),
        "entries": shard.entries,
        "blob_bytes": shard.blob_bytes,
        "stored_bytes": shard.stored_bytes,
        "generation": shard.generation,
        "epoch": shard.epoch,
        "built_at_ns": shard.built_at_ns,
        "last_used_ns_ago": now_ns - shard.last_used_ns if shard.last_used_ns else None,
        "image_bytes": shard.image_bytes,
        "journal_bytes": files.journal_bytes,
    }


def drop_shard(context: Context, _session: Session, params: Params, done: Done) -> None:
    """Remove a shard and its files."""
    (shard_id,) = read_params(params, 1)
    if not isinstance(shard_id, str):
        raise bad_request("id: expected a str")
    context.writer.submit(Drop(shard_id, done))


def shutdown(context: Context, _session: Session, params: Params, done: Done) -> None:
    """Stop the daemon; answered after everything is flushed."""
    read_params(params, 0)
    context.stop(done)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        # No /proc, or no descriptor is left: the peak, which macOS gives in bytes, others in kB.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


READS = {"hello": hello, "ping": ping, "status": status, "shards": shards}
WRITES = {"drop_shard": drop_shard, "shutdown": shutdown}
