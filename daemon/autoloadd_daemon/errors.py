"""Errors of the daemon, and what is done about each.

DaemonError
├── ConfigError              a setting cannot be used: said at start, exit 2
├── StartError               the daemon cannot serve here: said at start, exit 1
│   └── AlreadyServedError   another daemon serves this directory or socket: exit 3
├── StopError                it stopped, but not everything is stored: said, exit 1
└── StorageError             files refuse a write: the client gets `not_durable`, reads go on
    ├── FullError            there is no room: tried again every second
    ├── DescriptorsError     no descriptor is free: `busy`, and no fault of the disk
    └── DamageError          a file's bytes are not what was written: set the file aside
        └── UnreadableError  a file that is there cannot be read: no torn write leaves that
"""

from __future__ import annotations

import errno


class DaemonError(Exception):
    """Base of everything the daemon raises on purpose."""


class ConfigError(DaemonError):
    """A setting cannot be used. The message names where it came from and what was expected."""


class StartError(DaemonError):
    """The daemon cannot serve here. The message names the path and the reason."""


class AlreadyServedError(StartError):
    """Another daemon holds this cache directory or socket. Nothing was touched."""


class StopError(DaemonError):
    """The daemon stopped, and what the message says kept it from storing everything."""


class StorageError(DaemonError):
    """The files refuse a write. Nothing of it was made visible."""


class FullError(StorageError):
    """The disk or the user's share of it is full."""


class DescriptorsError(StorageError):
    """The process or the system has no descriptor left. The files themselves are well."""


class DamageError(StorageError):
    """A file's bytes are not what was written, or of a version that is not known."""


class UnreadableError(DamageError):
    """A file is there and cannot be read. What it holds may have been promised."""


def storage_error(what: str, error: OSError) -> StorageError:
    """Return the error for what the system said of a file; `what` begins the message."""
    message = f"{what}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullError(message)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return DescriptorsError(message)
    return StorageError(message)
