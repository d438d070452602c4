"""The ledger that fault cases judge by: it must see every loss, and no loss that is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autoloadd_client.errors import NotDurableError

from .ledger import Ledger, blob_of
from .report import FaultCase

if TYPE_CHECKING:
    from ..conftest import Daemon


def judge(ledger: Ledger, daemon: Daemon, *, crashed: bool = True) -> tuple[int, int]:
    """Return (lost, wrong)."""
    case = FaultCase("a ledger")
    with daemon.cache() as cache:
        ledger.check(cache, case, crashed=crashed)
    return case.lost, case.wrong


def test_what_a_ledger_sees(daemon: Daemon) -> None:
    ledger = Ledger("x/")
    with daemon.cache() as cache:
        assert ledger.put(cache, "a")
        older = cache.get("x/a")
        assert older is not None
        assert ledger.put(cache, "a", "b", sync="fsync")
        assert ledger.delete(cache, "b")
        assert ledger.merge(cache, ["c", "d"], size=1000)
        assert judge(ledger, daemon) == (0, 0)
        newer = cache.get("x/a")
        cache.put("x/a", older)
        assert judge(ledger, daemon) == (1, 0)
        cache.delete("x/a")
        assert judge(ledger, daemon) == (1, 0)
        cache.put("x/a", b"nobody's")
        assert judge(ledger, daemon) == (0, 1)
        assert newer is not None
        cache.put("x/a", newer)
        cache.put("x/b", blob_of("x/b", 99, 200))
        cache.delete("x/c")
        assert judge(ledger, daemon) == (1, 1)


def test_a_refused_write_may_be_there_after_a_crash_only(daemon: Daemon) -> None:
    ledger = Ledger()
    with daemon.cache() as cache:
        assert ledger.put(cache, "a")
        refused = blob_of("a", 1, 200)

        def refuse() -> None:
            raise NotDurableError("not_durable", "full", None)

        assert not ledger._carry_out({"a": refused}, "write", refuse)
        assert judge(ledger, daemon, crashed=False) == (0, 0)
        cache.put("a", refused)
        assert judge(ledger, daemon, crashed=True) == (0, 0)
        assert judge(ledger, daemon, crashed=False) == (0, 1)
    assert (ledger.acknowledged, ledger.refused) == (1, 1)


def test_after_power_loss_only_what_was_synced_must_be_there(daemon: Daemon) -> None:
    ledger, case = Ledger(), FaultCase("a ledger")
    with daemon.cache() as cache:
        assert ledger.put(cache, "a", sync="fsync")
        first = cache.get("a")
        assert first is not None
        assert ledger.put(cache, "a")
        assert ledger.put(cache, "b")
        assert ledger.check_after_power_loss(cache, case, 1e9) == 0.0
        cache.put("a", first)
        cache.delete("b")
        assert ledger.check_after_power_loss(cache, case, 1e9) > 1.0
        assert (case.lost, case.wrong) == (0, 0)
        assert ledger.flush(cache)
        assert ledger.check_after_power_loss(cache, case, 1e9) == 0.0
        assert (case.lost, case.wrong) == (2, 0)


@pytest.mark.parametrize("size", [1, 200, 5000])
def test_no_two_blobs_are_alike(size: int) -> None:
    blobs = {blob_of(name, number, size) for name in ("a", "b") for number in range(9)}
    assert len(blobs) == 18
    assert all(size <= len(blob) < size + 40 for blob in blobs)
