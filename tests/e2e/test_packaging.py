"""The wheel and the source archive hold what a user and a packager need, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "autoloadd_protocol": "protocol",
    "autoloadd_client": "client",
    "autoloadd_daemon": "daemon",
}


def build(kind: str, directory: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", directory],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = directory.iterdir()
    return built


def sources(package: str) -> set[str]:
    root = ROOT / PACKAGES[package]
    files = (path for path in (root / package).rglob("*") if path.is_file())
    return {str(p.relative_to(root)) for p in files if "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel")))


def test_wheel_holds_the_three_packages_and_nothing_else_that_is_imported(
    wheel: zipfile.ZipFile,
) -> None:
    shipped = {name for name in wheel.namelist() if ".d" not in name.split("/")[0][-12:]}
    assert shipped == set().union(*map(sources, PACKAGES))


INSTALLED = {
    "share/systemd/user/": ["systemd/autoloadd.socket", "systemd/autoloadd.service"],
    "share/man/man1/": ["docs/man/autoloadctl.1", "docs/man/autoloadd.1"],
    "share/zsh/site-functions/": ["completions/_autoloadctl", "completions/_autoloadd"],
    "share/fish/vendor_completions.d/": [
        "completions/autoloadctl.fish", "completions/autoloadd.fish",
    ],
    "share/bash-completion/completions/": [
        "completions/autoloadctl.bash", "completions/autoloadd.bash",
    ],
}  # fmt: skip
"""What lies beside the packages, and below which part of the prefix: where others look for it."""


def test_wheel_installs_what_systemd_man_and_shells_look_for_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    shipped = {
        name.partition(".data/data/")[2]: wheel.read(name)
        for name in wheel.namelist()
        if ".data/data/" in name
    }
    # bash-completion looks for a file that is called as the command is.
    assert shipped == {
        folder + Path(file).name.removesuffix(".bash"): (ROOT / file).read_bytes()
        for folder, files in INSTALLED.items()
        for file in files
    }


def test_wheel_has_both_commands_and_the_license(wheel: zipfile.ZipFile) -> None:
    by_name = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert wheel.read(by_name["licenses/LICENSE"]) == (ROOT / "LICENSE").read_bytes()
    commands = wheel.read(by_name["entry_points.txt"]).decode()
    assert "\nautoloadd = " in commands
    assert "autoloadctl" not in commands, "what is made from an entry point imports re"
    (name,) = (name for name in wheel.namelist() if name.endswith(".data/scripts/autoloadctl"))
    # An installer replaces this very line by the path of its interpreter.
    assert wheel.read(name).startswith(b"#!python\n")
    assert wheel.getinfo(name).external_attr >> 16 & 0o111


def test_source_archive_holds_what_the_tests_need_and_no_leftovers(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {
        "LICENSE", "README.md", "pyproject.toml", "scripts/test", "benchmarks/main_job.py",
        "systemd/autoloadd.service", "completions/_autoloadctl", "docs/man/autoloadd.1",
        "tests/e2e/test_packaging.py",
    } <= names  # fmt: skip
    assert not {name for name in names if "__pycache__" in name or name.startswith(".venv")}
