"""What each method does: a request's parameters in, a result out.

Reads are functions `(context, session, params) -> parts of the encoded result`. Writes are
`(context, session, params, done) -> None`; they check everything before they submit anything, and
`done` is called later with the outcome. Waits are reads whose answer may come later, by
`done(parts)`: then they return None, and nothing else of the connection is run before. Each raises
RequestError to refuse a request.
"""

from __future__ import annotations

from . import attach, bulks, changes, control, leases, reads

READS = {**control.READS, **reads.READS, **bulks.READS, **attach.READS, **leases.READS}
WRITES = {**control.WRITES, **changes.WRITES, **bulks.WRITES}
WAITS = leases.WAITS
LARGE = frozenset({"get_many", "missing", "names", "shards"})
"""Methods whose answers may be large: they wait where many answers are not taken."""

NOTIFIABLE = frozenset({"put", "put_many", "delete"})
