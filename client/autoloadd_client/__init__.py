"""The blocking client of autoloadd: `Cache`, with typed errors; `facade`, which never raises.

Names load their modules when they are first used: a shell pays for what it uses.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from autoloadd_protocol.producer import TOOL_OUTPUT, Producer

    from . import facade
    from .cache import Cache
    from .calls import Flushed
    from .entry import Entry
    from .errors import (
        BadRequestError,
        BusyError,
        CacheError,
        ConnectionLostError,
        DeadlineError,
        ForgedError,
        InternalError,
        NoProducerError,
        NotDurableError,
        RefusedError,
        ShuttingDownError,
        SwitchedOffError,
        TooLargeError,
        UnknownMethodError,
        UnreachableError,
        UnsupportedProtocolError,
    )
    from .leasing import Lease

__all__ = [
    "TOOL_OUTPUT",
    "BadRequestError",
    "BusyError",
    "Cache",
    "CacheError",
    "ConnectionLostError",
    "DeadlineError",
    "Entry",
    "Flushed",
    "ForgedError",
    "InternalError",
    "Lease",
    "NoProducerError",
    "NotDurableError",
    "Producer",
    "RefusedError",
    "ShuttingDownError",
    "SwitchedOffError",
    "TooLargeError",
    "UnknownMethodError",
    "UnreachableError",
    "UnsupportedProtocolError",
    "facade",
]

_HOMES = {
    "Cache": "autoloadd_client.cache",
    "Entry": "autoloadd_client.entry",
    "Flushed": "autoloadd_client.calls",
    "Lease": "autoloadd_client.leasing",
    "Producer": "autoloadd_protocol.producer",
    "TOOL_OUTPUT": "autoloadd_protocol.producer",
}


def __getattr__(name: str) -> object:
    """Return an exported name, loading its module (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - needed once for each name

    if name == "facade":
        return import_module("autoloadd_client.facade")
    value = getattr(import_module(_HOMES.get(name, "autoloadd_client.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the names of the module, those not loaded yet included."""
    return sorted({*globals(), *__all__})
