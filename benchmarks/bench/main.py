"""Run the experiments of the asked goals, round after round, and print what came out.

    run_bench.py [--shells] [--quick] [--goals 1,4,...] [--rounds N] [--json FILE] [--pictures]
                 [--place DIR]

Exit status: 0 all goals met, 1 some not met, 2 invalid: a peer failed, wrong bytes came back, or
the rounds differ too much to decide.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import load, table
from .goals.builds import Memory, Stalls
from .goals.crowds import CrowdGets, CrowdPuts
from .goals.loads import PutsBySize, ServerGets, ServerPuts
from .goals.reads import Reads
from .goals.starts import Commands, DaemonStarts, FreshClients
from .pictures import draw_all
from .running import FAILURES, exit_status, judge_all, run, show, write_json
from .series import Series, cost_by_entries, puts_by_processes
from .servers import Servers
from .setting import Setting
from .shells import suite as shells
from .shells.pictures import draw_shells
from .verdicts import Figures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from .setting import Experiment

EXPERIMENTS: tuple[type[Experiment], ...] = (
    Reads,
    CrowdGets,
    FreshClients,
    ServerGets,
    ServerPuts,
    CrowdPuts,
    PutsBySize,
    Stalls,
    DaemonStarts,
    Memory,
    Commands,
)
HOME = Path(__file__).parents[2] / ".bench"
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
OUR_VARIABLES = ("AUTOLOADD_", "ZSHRS_CACHE")
ROUNDS = 7
QUICK_ROUNDS = 5
QUICK_PACE = 0.35


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    options = make_parser().parse_args(arguments)
    # So that the servers are stopped, as after Ctrl-C.
    signal.signal(signal.SIGTERM, _leave)
    # The user's own settings must not change what is measured.
    for name in [name for name in os.environ if name.startswith(OUR_VARIABLES)]:
        del os.environ[name]
    HOME.mkdir(exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="run-", dir=options.place or HOME))
    experiments = shells.EXPERIMENTS if options.shells else EXPERIMENTS
    machine = table.describe_machine(place)
    if options.shells:
        machine = shells.describe_machine(machine)
    print(table.format_machine(machine), flush=True)
    figures, reasons, series = Figures(), list[str](), dict[str, Series]()
    try:
        with Servers(place) as servers:
            pace = QUICK_PACE if options.quick else 1.0
            program = HOME / "load" if options.shells else load.build(HOME)
            setting = Setting(servers, program, pace)
            kinds = chosen(experiments, options.goals)
            reasons += run(kinds, setting, _rounds(options), figures)
            if options.pictures and not options.shells:
                series["puts by processes"] = puts_by_processes(setting, show)
                series["cost by entries"] = cost_by_entries(setting, show)
                show("")
    except FAILURES as exc:
        reasons.append(str(exc))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    rows = judge_all(experiments, options.goals, figures)
    shown = (
        shells.format_table(rows, figures.rounds) if options.shells else table.format_table(rows)
    )
    print(shown, table.say_verdict(rows, reasons), sep="\n")
    if options.json is not None:
        write_json(options.json, machine, rows, reasons, figures, series)
    if series and not reasons:
        for path in draw_all(PICTURES, figures.rounds, *series.values()):
            print(path)
    if options.shells and options.pictures and not reasons:
        print(draw_shells(PICTURES, figures.rounds))
    return exit_status(rows, reasons)


def make_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shells", action="store_true", help="what users of shells wait for")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds")
    parser.add_argument("--goals", type=_goals, default=frozenset(), help="just these: 1,4,...")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}; --quick {QUICK_ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--pictures", action="store_true", help=f"draw into {PICTURES}")
    parser.add_argument("--place", type=Path, metavar="DIR", help="where servers keep their files")
    return parser


def chosen(kinds: Sequence[type[Experiment]], goals: frozenset[int]) -> list[type[Experiment]]:
    """Return the experiments that these goals need; for no goals, all."""
    return [kind for kind in kinds if not goals or goals & {g.number for g in kind.GOALS}]


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _rounds(options: argparse.Namespace) -> int:
    return options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)


def _goals(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split(",")))
