"""What autoloadd's daemon and clients agree on: bytes on one side, values on the other.

Nothing in this package opens a file or a socket, starts a thread or asks for the time. Whatever
it needs of the world (a directory's owner, the clock) comes in as an argument.
"""

__version__ = "0.1.0"
