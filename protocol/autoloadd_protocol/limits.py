"""The protocol's limits, each with its unit and its reason. No server sets them lower."""

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0

FRAME_BYTES = 8 * 1024 * 1024
"""Payload of one frame. Two blobs of the largest size fit; more is streamed by `bulk_*`."""

BLOB_BYTES = 4 * 1024 * 1024
"""One blob. The largest compiled function of Debian's zsh has 130 kB."""

NAME_BYTES = 1024
"""One name, in UTF-8 bytes. Four times the longest file name of common file systems."""

FINGERPRINT_BYTES = 1024
"""One fingerprint. A path, a size, an inode and a time, or a few of them."""

PRODUCER_TEXT_BYTES = 128
"""Each of a producer's name, version and build, in UTF-8 bytes: all of them fit an image header."""

NAMES = 65_536
"""Names or entries in one request. Bounds what a single request can make the server allocate."""

NESTING = 8
"""Containers within containers; the frame's own array is level 1. Real requests reach 4."""

CONNECTIONS = 1_024
"""Clients at once. A user with more open shells than this is one we have not met."""

BULKS = 4
"""Bulk writes open at once, over all connections; each connection may have one."""

LEASES = 4_096
"""Leases given at once, over all connections: 6 MB with the longest names."""

LEASES_PER_CONNECTION = 64
"""More tools at once than a shell starts with; one connection must not take them all."""

LEASE_WAIT_MS = 10_000
"""Longest wait for what another client was asked to make. Nobody waits longer for a prompt."""

LEASE_HOLD_MS = 120_000
"""Longest life of a lease. A tool that takes longer is run twice."""

LEASE_USUAL_HOLD_MS = 30_000
"""Life of a lease where none is asked for."""

UNSENT_BYTES = 16 * 1024 * 1024
"""Answers waiting for a client that does not read. Two full frames."""

UNSENT_SECONDS = 10.0
"""A client that took too little of its waiting answers in this time is cut off."""

UNSENT_PROGRESS_BYTES = 1024 * 1024
"""Too little: less than this, and not all. A byte now and then would keep an old image alive."""

FRAME_SECONDS = 2.0
"""A started frame must be complete in this time, counted while the server waits for bytes."""

LISTED_NAMES = 1_000
"""Names in one answer to `names`. 1,000 of the longest names fit one frame."""

SOCKET_PATH_BYTES = 107
"""`sun_path` has 108 bytes on Linux, with the NUL at its end."""
