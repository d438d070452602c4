"""Errors of working with a shell's own programs, and what a caller does about each.

ShellError
├── ShellMissingError     there is no such shell here: tell the user how to install it
├── ShellFailedError      it is there and does not do what it should: show its message
└── BytecodeError         this is not what that shell compiled: compile it again
"""

from __future__ import annotations


class ShellError(Exception):
    """Base of what this package raises. The message is for the user."""


class ShellMissingError(ShellError):
    """The shell is not installed, or not where the caller said."""


class ShellFailedError(ShellError):
    """The shell could not be run, or its answer makes no sense."""


class BytecodeError(ShellError):
    """Bytes are not the compiled function that they should be."""
