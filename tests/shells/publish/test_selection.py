"""What a farm may hold: in front of fpath it must not change which function zsh takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoloadd_client.publishing.selection import select_functions
from autoloadd_client.shells.zsh import Function, Zsh, find_functions, find_zsh

from .conftest import LONG_AGO, run_zsh


@pytest.fixture(scope="module")
def zsh() -> Zsh:
    return find_zsh()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return make(tmp_path / "first", "both", "only_first")


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return make(tmp_path / "second", "both", "only_second")


def make(directory: Path, *names: str) -> Path:
    directory.mkdir()
    for name in names:
        path = directory / name
        path.write_text(f"print -r -- {directory.name}\n")
        os.utime(path, (LONG_AGO, LONG_AGO))
    return directory


def selected(zsh: Zsh, *fpath: Path) -> dict[str, str]:
    """Return the name of the directory or file that each function comes from."""
    directories = [str(directory) for directory in fpath]
    functions = select_functions(find_functions(directories), directories, version=zsh.version)
    for function in functions:
        assert_zsh_takes(function, directories)
    return {function.name: Path(function.path).parent.name for function in functions}


def assert_zsh_takes(function: Function, fpath: list[str]) -> None:
    script = 'fpath=("${@[2,-1]}"); autoload -Uz $1; $1'
    said = run_zsh(script, function.name, *fpath, home=Path("/"))
    assert said.stdout == Path(function.path).parent.name + "\n"


def zcompile(target: Path, *arguments: str | Path) -> None:
    ran = run_zsh("zcompile $@", *arguments[:-1], target, arguments[-1], home=Path("/"))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_first_directory_wins(zsh: Zsh, first: Path, second: Path) -> None:
    expected = {"both": "first", "only_first": "first", "only_second": "second"}
    assert selected(zsh, first, second) == expected
    assert selected(zsh, second, first) == {**expected, "both": "second"}


def test_a_digest_with_sources_is_what_the_sources_are(zsh: Zsh, first: Path, second: Path) -> None:
    zcompile(first.with_suffix(".zwc"), "-U", first / "both")
    zcompile(second / "only_second.zwc", "-U", second / "only_second")
    assert selected(zsh, first, second) == {
        "both": "first",
        "only_first": "first",
        "only_second": "second",
    }


@pytest.mark.parametrize("where", ["beside", "inside", "as an element"])
def test_what_an_earlier_element_has_only_compiled_is_left_to_zsh(
    zsh: Zsh, first: Path, second: Path, where: str
) -> None:
    fpath = [first, second]
    if where == "beside":
        zcompile(first.with_suffix(".zwc"), "-U", first / "both")
    elif where == "inside":
        zcompile(first / "both.zwc", "-U", first / "both")
    else:
        element = first.with_name("element.zwc")
        zcompile(element, "-U", first / "both")
        fpath.insert(0, element)
    (first / "both").unlink()
    assert selected(zsh, *fpath) == {"only_first": "first", "only_second": "second"}


def test_what_is_loaded_in_a_style_of_its_own_is_left_to_zsh(
    zsh: Zsh, first: Path, second: Path
) -> None:
    zcompile(first.with_suffix(".zwc"), "-Uk", first / "both")
    zcompile(second / "only_second.zwc", "-Uz", second / "only_second")
    assert selected(zsh, first, second) == {"only_first": "first"}


def test_bytecode_that_zsh_would_not_take_hides_nothing(
    zsh: Zsh, first: Path, second: Path
) -> None:
    first.with_suffix(".zwc").write_bytes(b"nothing")
    (first / "only_second.zwc").write_bytes(b"print -r -- nothing at all, but long enough\n" * 9)
    zcompile(first / "another_name.zwc", "-U", second / "only_second")
    assert selected(zsh, first, second) == {
        "both": "first",
        "only_first": "first",
        "only_second": "second",
    }


def test_what_cannot_be_cached_hides_what_comes_later(
    zsh: Zsh, tmp_path: Path, second: Path
) -> None:
    deep = tmp_path.joinpath(*["d" * 200] * 5)
    deep.mkdir(parents=True)
    (deep / "both").write_text("print -r -- deep\n")
    assert selected(zsh, deep, tmp_path / "none", second) == {"only_second": "second"}
