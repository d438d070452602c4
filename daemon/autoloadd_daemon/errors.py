"""Errors of the daemon, and what is done about each.

DaemonError
├── ConfigError              a setting cannot be used: said at start, exit 2
├── StartError               the daemon cannot serve here: said at start, exit 1
│   └── AlreadyServedError   another daemon serves this directory or socket: exit 3
├── StopError                it stopped, but not everything is stored: said, exit 1
└── StorageError             files refuse a write: the client gets `not_durable`, reads go on
    └── DamageError          a file's bytes are not what was written: set the file aside
"""

from __future__ import annotations


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


class DamageError(StorageError):
    """A file's bytes are not what was written, or of a version that is not known."""
