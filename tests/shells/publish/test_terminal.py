"""`autoloadctl publish zsh` beside an interactive zsh: in its background, with its own fpath."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.publishing.farm import lock, place_of
from autoloadd_client.shells.rc_file import source_path
from autoloadd_client.shells.zsh import find_zsh

from ...e2e.conftest import ctl_environment
from ...running import wait_until
from ..slow_tool import UNMEASURED
from ..zsh.terminal import Terminal
from .test_command import UNCHANGED

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Farm


@pytest.fixture
def environment(farm: Farm, tmp_path: Path) -> dict[str, str]:
    """What an interactive zsh gets: with an autoloadctl of this tree in PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "autoloadctl").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m autoloadd_client.cli "$@"\n'
    )
    (programs / "autoloadctl").chmod(0o755)
    more = {**UNMEASURED, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    return ctl_environment(farm.run_directory, more)


def start_rc(farm: Farm) -> str:
    return f"fpath=({farm.directory})\nsource {source_path('zsh')}"


def test_what_a_shell_starts_in_the_background_comes_to_its_end(
    farm: Farm, environment: dict[str, str], tmp_path: Path
) -> None:
    with Terminal(tmp_path / "rc", start_rc(farm), environment=environment):
        wait_until(lambda: any(farm.run_directory.glob("zsh-*/farm.zwc")), 20, "the farm")


def test_a_warm_up_in_the_background_comes_to_its_end(
    farm: Farm, environment: dict[str, str], tmp_path: Path
) -> None:
    with Terminal(tmp_path / "rc", environment=environment) as terminal:
        terminal.run(f"autoloadctl warm zsh {farm.directory} >{tmp_path}/said 2>&1 &")
        said = tmp_path / "said"
        wait_until(lambda: said.exists() and "2 compiled" in said.read_text(), 20, "the warm-up")


def test_who_waits_for_another_publish_is_told(
    farm: Farm, environment: dict[str, str], tmp_path: Path
) -> None:
    socket = f"{farm.run_directory}/socket"
    place = place_of(socket, find_zsh().version, [str(farm.directory)])
    with Terminal(tmp_path / "rc", environment=environment) as terminal:
        with lock(place):
            terminal.send(f"autoloadctl publish zsh --fpath {farm.directory}\n")
            terminal.read_until(b"another autoloadctl publish is at work: waiting for ")
        assert b"2 functions published" in terminal.read_until(b"farm: ")


def test_a_shells_own_fpath_is_the_one_without_the_farm(
    farm: Farm, environment: dict[str, str], tmp_path: Path
) -> None:
    farm.publish()
    (place,) = farm.run_directory.glob("zsh-*")
    with Terminal(tmp_path / "rc", start_rc(farm), environment=environment) as terminal:
        shown = terminal.run("print -rl -- $fpath").split()
        assert shown == [*map(str, farm.parts), str(farm.directory)]
        printed = terminal.run("autoloadctl publish zsh --print-dir --fpath $fpath")
        assert printed.strip() == f"{place}/farm"
        for options in ("", "--timeout 15", "--dry-run"):
            said = terminal.run(f"autoloadctl publish {options} zsh --fpath $fpath")
            assert said.strip() == UNCHANGED.decode().strip()
        said = terminal.run(f"autoloadctl publish zsh --fpath $fpath[1] {farm.directory}")
        assert said.strip() == UNCHANGED.decode().strip()
        assert "all 2 fresh" in terminal.run("autoloadctl warm zsh $fpath")
        # The farm's link has the same file's size, inode and time, but another path.
        assert "is used" in terminal.run("autoloadctl why hello --fpath $fpath")
    assert list(farm.run_directory.glob("zsh-*")) == [place]
