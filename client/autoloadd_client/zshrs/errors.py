"""Errors of zshrs's cache file, and what a caller does about each.

ShardFileError
├── DamagedFileError      not what zshrs would accept: take nothing from it, show where and why
└── InexpressibleError    zshrs's file cannot hold these entries: write nothing, show why
    └── UnseparableError  the hashes of some names are equal for ever: one of them has to go
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ShardFileError(Exception):
    """Base of what this package raises. The message is for the user."""


class DamagedFileError(ShardFileError):
    """The bytes at `position` (from the file's start) are not what zshrs would accept."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"at byte {position:,}: {reason}")
        self.position = position
        self.reason = reason


class InexpressibleError(ShardFileError):
    """The file's layout has no room for a value."""


class UnseparableError(InexpressibleError):
    """`names` share a bucket, and no seed gives them different slots."""

    def __init__(self, names: Sequence[bytes], reason: str) -> None:
        shown = ", ".join(repr(name.decode()) for name in names)
        super().__init__(f"{reason}: {shown}")
        self.names = tuple(names)
