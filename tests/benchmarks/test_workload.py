"""Workload W is what the goals say, the same in every process, and knows its own bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest

from bench.verdicts import WrongBytesError
from bench.workload import MAX_BLOB_BYTES, make_workload

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_DIGEST = """
from zlib import crc32
from bench.workload import make_workload
print(sum(crc32(name.encode() + blob) for name, blob in make_workload(500).entries()))
"""


def test_w_has_the_size_and_names_of_the_goals() -> None:
    workload = make_workload()
    assert len(workload) == len(set(workload.names)) == 16_000
    assert {len(name) for name in workload.names} == set(range(8, 31))
    assert workload.blob_bytes == pytest.approx(16_000 * 3_000, rel=0.03)
    ordered = sorted(workload.sizes)
    # Lognormal with sigma 0.8: the median is exp(-0.32) of the mean.
    assert ordered[8_000] == pytest.approx(3_000 * 0.726, rel=0.05)
    assert max(ordered) <= MAX_BLOB_BYTES


def test_it_is_the_same_in_another_process() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _DIGEST], cwd=BENCHMARKS, capture_output=True, check=True
    )
    ours = sum(crc32(name.encode() + blob) for name, blob in make_workload(500).entries())
    assert int(ran.stdout) == ours


def test_a_larger_workload_begins_with_the_smaller() -> None:
    small, large = make_workload(100), make_workload(300)
    assert list(large.entries())[:100] == list(small.entries())


def test_every_version_of_a_blob_is_accepted() -> None:
    workload = make_workload(100)
    for version in (0, 1, 2**32 - 1):
        blob = workload.blob(7, version)
        assert len(blob) == workload.sizes[7]
        workload.check(7, blob)
    assert workload.blob(7, 1) != workload.blob(7, 2)


def test_every_other_bytes_are_refused() -> None:
    workload = make_workload(100)
    blob = workload.blob(7)
    wrong = [None, b"", blob[:-1], blob + b"x", workload.blob(8)]
    wrong += [blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :] for at in range(4, len(blob), 97)]
    for bad in wrong:
        with pytest.raises(WrongBytesError, match=workload.names[7]):
            workload.check(7, bad)
