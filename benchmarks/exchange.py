"""How long `import` and `export` take, and how much memory: `python benchmarks/exchange.py`.

Workload W (16,000 entries, 47 MB of blobs) is made a file of zshrs's, imported into a daemon of our
own, exported in both forms, and imported again. Each command is a process, timed from its start to
its end. What is exported is compared with what was imported. Exit status: 0 when the medians are
within the limits, 1 when not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from autoloadd_client import Cache
from autoloadd_client.zshrs.layout import RUSTC_1_95, Header
from autoloadd_client.zshrs.writing import EntryToWrite, encode_shard_file
from bench.workload import ENTRIES, MTIME_NS, make_workload
from own_daemon import running_daemon

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SECONDS = 2.0
MAX_TIMES_THE_FILE = 3.0

_BUILT_AT = 1_795_384_784
_MEASURED = """
import os, sys
from autoloadd_client.cli.run import run
status = run(sys.argv[1:])
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
sys.stderr.write(f"{peak} {sum(os.times()[:2])}")
sys.exit(status)
"""


class WrongFileError(Exception):
    """A file is not what it has to be."""


@dataclass
class Series:
    """The runs of one command: seconds, CPU seconds of it and of the daemon, peak bytes."""

    seconds: list[float] = field(default_factory=list)
    own_cpu: list[float] = field(default_factory=list)
    daemon_cpu: list[float] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table, tell whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ald-") as directory:
        original = Path(directory, "zshrs.rkyv")
        _make_file(original, options.entries)
        measured = _measure(Path(directory), original, options.rounds)
        size = original.stat().st_size
    return _report(measured, options.entries, size)


def _make_file(path: Path, entries: int) -> None:
    mtime = MTIME_NS // 10**9
    by_name = {
        name.encode(): EntryToWrite(blob, mtime, _BUILT_AT)
        for name, blob in make_workload(entries).entries()
    }
    header = Header("0.1.0", 8, _BUILT_AT)
    path.write_bytes(b"".join(encode_shard_file(header, by_name, RUSTC_1_95)))


def _measure(directory: Path, original: Path, rounds: int) -> dict[str, Series]:
    measured: dict[str, Series] = {}
    with (
        running_daemon(str(directory)) as daemon,
        Cache(None, socket_path=daemon.socket_path) as control,
    ):
        for _ in range(rounds):
            _run_round(control, daemon.socket_path, directory, original, measured)
    return measured


def _run_round(
    control: Cache, socket_path: str, directory: Path, original: Path, measured: dict[str, Series]
) -> None:
    out, portable = directory / "out.rkyv", directory / "out.autoloadd"
    for command in (
        ("import", "zshrs", str(original)),
        ("import", "zshrs", "", str(original)),
        ("export", "zshrs", str(out)),
        ("export", str(portable)),
    ):
        _run(control, socket_path, command, measured)
    if out.read_bytes() != original.read_bytes():
        raise WrongFileError("the export is not the file that was imported")
    _drop(control)
    _run(control, socket_path, ("import", str(portable)), measured)
    _drop(control)


def _drop(control: Cache) -> None:
    for shard in control.shards():
        control.drop_shard(shard["id"])


def _run(
    control: Cache, socket_path: str, command: tuple[str, ...], measured: dict[str, Series]
) -> None:
    """Run a command once; an empty argument only tells it apart from the same one before."""
    label = " ".join(part or "(again)" for part in command[:-1])
    pid = control.status()["pid"]
    before, began = _cpu_of(pid), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *filter(None, command), "--socket", socket_path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    series = measured.setdefault(label, Series())
    series.seconds.append(time.monotonic() - began)
    series.daemon_cpu.append(_cpu_of(pid) - before)
    peak, cpu = done.stderr.split()
    series.peak.append(int(peak) * 1024)
    series.own_cpu.append(float(cpu))


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _report(measured: dict[str, Series], entries: int, size: int) -> int:
    print(f"{entries:,} entries, a file of {size / 1e6:.1f} MB")
    print(f"{'':24}{'seconds':>9}{'least':>7}{'own CPU':>9}{'daemon':>8}{'memory':>9}{'x file':>8}")
    within = True
    for label, series in measured.items():
        seconds, times = median(series.seconds), median(series.peak) / size
        within = within and seconds < MAX_SECONDS and times < MAX_TIMES_THE_FILE
        print(
            f"{label:24}{seconds:9.2f}{min(series.seconds):7.2f}{median(series.own_cpu):9.2f}"
            f"{median(series.daemon_cpu):8.2f}{median(series.peak) / 1e6:6.0f} MB{times:8.2f}"
        )
    print(f"limits: {MAX_SECONDS:g} s, {MAX_TIMES_THE_FILE:g} times the file")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
