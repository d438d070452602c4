"""What fault cases judge by: it must see every loss, and no loss that is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autoloadd_client.errors import NotDurableError

from .report import FaultCase
from .written import Written, blob_of

if TYPE_CHECKING:
    from ..conftest import Daemon


def judge(written: Written, daemon: Daemon, *, crashed: bool = True) -> tuple[int, int]:
    """Return (lost, wrong)."""
    case = FaultCase("what was written")
    with daemon.cache() as cache:
        written.check(cache, case, crashed=crashed)
    return case.lost, case.wrong


def test_older_or_missing_is_lost_and_unknown_is_wrong(daemon: Daemon) -> None:
    written = Written("x/")
    with daemon.cache() as cache:
        assert written.put(cache, "a")
        older = cache.get("x/a")
        assert older is not None
        assert written.put(cache, "a", "b", sync="fsync")
        assert written.delete(cache, "b")
        assert written.merge(cache, ["c", "d"], size=1000)
        assert judge(written, daemon) == (0, 0)
        newer = cache.get("x/a")
        cache.put("x/a", older)
        assert judge(written, daemon) == (1, 0)
        cache.delete("x/a")
        assert judge(written, daemon) == (1, 0)
        cache.put("x/a", b"nobody's")
        assert judge(written, daemon) == (0, 1)
        assert newer is not None
        cache.put("x/a", newer)
        cache.put("x/b", blob_of("x/b", 99, 200))
        cache.delete("x/c")
        assert judge(written, daemon) == (1, 1)


def test_a_refused_write_may_be_there_after_a_crash_only(daemon: Daemon) -> None:
    written = Written()
    with daemon.cache() as cache:
        assert written.put(cache, "a")
        refused = blob_of("a", 1, 200)

        def refuse() -> None:
            raise NotDurableError("not_durable", "full", None)

        assert not written._carry_out({"a": refused}, "write", refuse)
        assert judge(written, daemon, crashed=False) == (0, 0)
        cache.put("a", refused)
        assert judge(written, daemon, crashed=True) == (0, 0)
        assert judge(written, daemon, crashed=False) == (0, 1)
    assert (written.acknowledged, written.refused) == (1, 1)


def test_after_power_loss_only_what_was_synced_must_be_there(daemon: Daemon) -> None:
    written, case = Written(), FaultCase("what was written")
    with daemon.cache() as cache:
        assert written.put(cache, "a", sync="fsync")
        first = cache.get("a")
        assert first is not None
        assert written.put(cache, "a")
        assert written.put(cache, "b")
        assert written.check_after_power_loss(cache, case, 1e9) == 0.0
        cache.put("a", first)
        cache.delete("b")
        assert written.check_after_power_loss(cache, case, 1e9) > 1.0
        assert (case.lost, case.wrong) == (0, 0)
        assert written.flush(cache)
        assert written.check_after_power_loss(cache, case, 1e9) == 0.0
        assert (case.lost, case.wrong) == (2, 0)


@pytest.mark.parametrize("size", [1, 200, 5000])
def test_no_two_blobs_are_alike(size: int) -> None:
    blobs = {blob_of(name, number, size) for name in ("a", "b") for number in range(9)}
    assert len(blobs) == 18
    assert all(size <= len(blob) < size + 40 for blob in blobs)
