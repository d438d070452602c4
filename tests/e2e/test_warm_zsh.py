"""Finding zsh's functions and compiling them, with the real zsh and no daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autoloadd_client.shells.errors import ShellFailedError, ShellMissingError
from autoloadd_client.shells.fingerprint import fingerprint_file
from autoloadd_client.shells.zsh import (
    Function,
    LeftOut,
    Zsh,
    find_functions,
    find_zsh,
    read_pointer_width,
)
from autoloadd_client.shells.zsh_compile import Compiled, compile_functions

CRASHES_ZSH = "{ " * 500_000
"""zsh's parser calls itself for each brace, and runs out of stack."""


@pytest.fixture(scope="module")
def zsh() -> Zsh:
    return find_zsh()


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    directory = tmp_path / "functions"
    directory.mkdir()
    return directory


def write(directory: Path, **texts: str) -> list[Function]:
    for name, text in texts.items():
        (directory / name).write_text(text)
    return list(find_functions([str(directory)]).functions)


def outcomes(zsh: Zsh, found: list[Function], **options: float) -> dict[str, bytes | str]:
    """Return the bytecode or the reason, for each file's name."""
    return {
        Path(result.path).name if isinstance(result, LeftOut) else result.function.name: (
            result.reason if isinstance(result, LeftOut) else result.blob
        )
        for result in compile_functions(zsh, found, **options)
    }


def test_zsh_says_itself_what_it_is(zsh: Zsh) -> None:
    said = subprocess.run(
        ["zsh", "-fc", "print -r -- $ZSH_VERSION"], capture_output=True, check=True, text=True
    )
    assert zsh.version == said.stdout.strip()
    assert zsh.producer.name == "zsh"
    assert zsh.real == os.path.realpath(shutil.which("zsh") or "")
    assert zsh.mtime_ns == Path(zsh.real).stat().st_mtime_ns
    assert zsh.pointer_width == read_pointer_width(zsh.real)
    assert zsh.fpath
    assert all(directory.startswith("/") for directory in zsh.fpath)


def test_zsh_through_a_link_is_the_file_that_the_link_leads_to(zsh: Zsh, tmp_path: Path) -> None:
    link = tmp_path / "zsh"
    link.symlink_to(zsh.real)
    assert find_zsh(str(link)).mtime_ns == zsh.mtime_ns


def test_no_zsh_is_told_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ShellMissingError, match=r"not in PATH; install it with `apt install zsh`"):
        find_zsh()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 3", "is not a zsh: .* ended with status 3"),
        ("echo something else", "is not a zsh: it answers b'something else"),
        ("kill -9 $$", "is not a zsh: .* ended by SIGKILL"),
    ],
)
def test_what_is_no_zsh_is_told(tmp_path: Path, text: str, reason: str) -> None:
    program = tmp_path / "zsh"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o700)
    with pytest.raises(ShellFailedError, match=reason):
        find_zsh(str(program))


def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    program = tmp_path / "zsh"
    program.write_bytes(b"\x00no program")
    program.chmod(0o700)
    with pytest.raises(ShellFailedError, match="Exec format error"):
        find_zsh(str(program))


@pytest.mark.parametrize(
    ("head", "width"),
    [
        (b"\x7fELF\x01", 4),
        (b"\x7fELF\x02", 8),
        (b"\x7fELF\x07", 8),
        (b"\x7fELF", 8),
        (b"\xcf\xfa\xed\xfe\x01", 8),
        (b"", 8),
    ],
)
def test_pointer_width(tmp_path: Path, head: bytes, width: int) -> None:
    program = tmp_path / "program"
    program.write_bytes(head)
    assert read_pointer_width(str(program)) == width


def test_only_what_zsh_would_autoload_is_a_function(functions: Path) -> None:
    write(functions, hello=":", README="# read me", hello_zwc=":")
    for name in (".hidden", "hello.zwc", "hello~"):
        (functions / name).write_text(":")
    (functions / "directory").mkdir()
    (functions / "link").symlink_to(functions / "hello")
    (functions / "dangling").symlink_to(functions / "none")
    os.mkfifo(functions / "pipe")
    found = find_functions([str(functions)])
    names = [function.name for function in found.functions]
    assert names == ["README", "hello", "hello_zwc", "link"]
    assert (found.left_out, found.directories) == ((), 1)


def test_the_first_directory_wins_and_missing_ones_are_passed_over(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write(first, both="first")
    write(second, both="second", other=":")
    found = find_functions([str(first), str(tmp_path / "none"), str(second), str(first)])
    assert {function.name: function.path for function in found.functions} == {
        "both": str(first / "both"),
        "other": str(second / "other"),
    }
    assert found.directories == 2


def test_a_file_that_may_not_be_read_is_left_out() -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "hello"
        file.write_text(":")
        file.chmod(0o000)
        Path(directory).chmod(0o755)
        ours = os.geteuid()
        if ours == 0:
            os.seteuid(65534)  # to root nothing is unreadable
        try:
            found = find_functions([directory])
        finally:
            os.seteuid(ours)
        assert found.functions == ()
        assert [left.reason for left in found.left_out] == ["it may not be read"]


def test_a_name_that_is_not_utf8_is_left_out(functions: Path) -> None:
    Path(os.fsdecode(os.fsencode(functions) + b"/\xff")).write_text(":")
    found = find_functions([str(functions)])
    assert found.functions == ()
    assert [left.reason for left in found.left_out] == ["its name is not valid UTF-8"]


def test_a_path_that_no_fingerprint_can_hold_is_left_out(tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["d" * 200] * 5)
    directory.mkdir(parents=True)
    (directory / "hello").write_text(":")
    found = find_functions([str(directory)])
    assert found.functions == ()
    assert [left.reason for left in found.left_out] == [
        "its path is too long for a fingerprint of 1024 bytes"
    ]


def test_a_fingerprint_is_the_canonical_text_of_the_file(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("12345")
    link.symlink_to(file)
    status = file.stat()
    expected = f"{file}\x005\x00{status.st_ino}\x00{status.st_mtime_ns}\x00".encode()
    assert fingerprint_file(str(link)) == expected


def decompile(blob: bytes | str, name: str, directory: Path) -> str:
    """Return the source that zsh sees in bytecode.

    The bytes themselves differ from run to run: zsh pads strings with whatever was there.
    """
    assert isinstance(blob, bytes)
    (directory / f"{name}.zwc").write_bytes(blob)
    script = "fpath=($1); autoload +X -Uz -- $2; functions -- $2"
    ran = subprocess.run(
        ["zsh", "-fc", script, "zsh", str(directory), name],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert ran.stderr == ""
    return ran.stdout


def test_bytecode_is_what_zcompile_writes(zsh: Zsh, functions: Path, tmp_path: Path) -> None:
    blob = outcomes(zsh, write(functions, hello="print -r -- hello $1\n"))["hello"]
    own = tmp_path / "own.zwc"
    script = ["zsh", "-fc", "zcompile -U $1 $2", "zsh", str(own), str(functions / "hello")]
    subprocess.run(script, check=True)
    assert len(blob) == own.stat().st_size
    source = "hello () {\n\tprint -r -- hello $1\n}\n"
    assert decompile(blob, "hello", tmp_path) == source
    assert decompile(own.read_bytes(), "hello", tmp_path) == source


def test_options_and_aliases_of_whoever_calls_do_not_reach_the_bytecode(
    zsh: Zsh, functions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZDOTDIR", str(functions))
    monkeypatch.setenv("LC_ALL", "C")
    (functions / ".zshenv").write_text("alias -g ls=rm; setopt sh_glob ignore_braces\n")
    done = outcomes(zsh, write(functions, hello="{ ls (a|ä)* }\n"))
    assert "\t\tls (a|ä)*\n" in decompile(done["hello"], "hello", tmp_path)


def test_names_and_paths_with_every_awkward_byte_compile(zsh: Zsh, functions: Path) -> None:
    names = ["-U", "a b", "new\nline", "*", "$HOME", "ä", "\\", "'\"", "=ls", "~root"]
    for name in names:
        (functions / name).write_text(":")
    found = list(find_functions([str(functions)]).functions)
    compiled = outcomes(zsh, found)
    assert sorted(compiled) == sorted(names)
    assert all(isinstance(blob, bytes) for blob in compiled.values())


def test_what_does_not_parse_is_left_out_with_zshs_own_message(zsh: Zsh, functions: Path) -> None:
    done = outcomes(zsh, write(functions, bad="if true; then\n", good=":\n"))
    assert done["bad"] == "zsh:2: parse error near `\\n'"
    assert isinstance(done["good"], bytes)


def test_an_empty_file_is_a_function_that_does_nothing(zsh: Zsh, functions: Path) -> None:
    assert isinstance(outcomes(zsh, write(functions, empty=""))["empty"], bytes)


def test_a_zsh_that_dies_loses_only_the_file_it_was_at(zsh: Zsh, functions: Path) -> None:
    texts = {f"good{number:03}": f"print {number}\n" for number in range(200)}
    texts |= {"good050x": CRASHES_ZSH, "good150x": CRASHES_ZSH}
    done = outcomes(zsh, write(functions, **texts))
    assert {name for name, result in done.items() if isinstance(result, str)} == {
        "good050x",
        "good150x",
    }
    assert done["good050x"] == "zsh was ended by SIGSEGV"
    assert len(done) == 202


def test_a_file_that_hangs_costs_its_deadline_and_nothing_else(zsh: Zsh, functions: Path) -> None:
    found = write(functions, a=":", b=":", c=":")
    os.unlink(found[1].path)
    os.mkfifo(found[1].path)  # nobody writes into it: zsh waits for ever
    started = time.monotonic()
    done = outcomes(zsh, found, file_seconds=0.5)
    # Once, not once for each file; a busy machine adds some.
    assert 0.5 <= time.monotonic() - started < 20
    assert done["b"] == "zsh took more than 0.5 s and was killed"
    assert isinstance(done["a"], bytes)
    assert isinstance(done["c"], bytes)


def test_a_file_that_was_edited_since_it_was_found_is_left_out(zsh: Zsh, functions: Path) -> None:
    found = write(functions, edited="print one", gone=":", same=":")
    (functions / "edited").write_text("print another")
    (functions / "gone").unlink()
    done = outcomes(zsh, found)
    assert done["edited"] == "it was changed while it was compiled"
    assert done["gone"] == f"zsh:zcompile:5: can't open file: {functions}/gone"
    assert isinstance(done["same"], bytes)


def wrap(zsh: Zsh, program: Path, script: str) -> Zsh:
    """Return a zsh that runs `script` of sh where it should compile."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    return replace(zsh, binary=str(program))


def test_a_zsh_that_gives_up_costs_one_file_each_time(
    zsh: Zsh, functions: Path, tmp_path: Path
) -> None:
    wrapped = wrap(zsh, tmp_path / "zsh", "exit 3")
    done = outcomes(wrapped, write(functions, one=":", two=":"))
    assert done == dict.fromkeys(("one", "two"), "zsh ended with status 3")


def test_a_file_that_goes_away_after_it_was_compiled_is_left_out(
    zsh: Zsh, functions: Path, tmp_path: Path
) -> None:
    found = write(functions, gone=":", here=":")
    wrapped = wrap(
        zsh,
        tmp_path / "zsh",
        f'zsh "$@" | while read -r line; do rm -f "{functions}/gone"; echo "$line"; done',
    )
    done = outcomes(wrapped, found)
    assert done["gone"] == "it was changed while it was compiled"
    assert isinstance(done["here"], bytes)


def test_bytecode_over_the_limit_is_left_out(zsh: Zsh, functions: Path) -> None:
    done = outcomes(zsh, write(functions, large="print some words here\n" * 120_000))
    assert str(done["large"]).endswith(" bytes, over 4,194,304")


def test_nothing_to_compile_is_nothing(zsh: Zsh) -> None:
    assert list(compile_functions(zsh, [])) == []


def test_nothing_is_left_behind_also_when_the_caller_stops_early(
    zsh: Zsh, functions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    found = write(functions, **{f"f{number}": ":" for number in range(200)})
    results = compile_functions(zsh, found)
    assert isinstance(next(results), Compiled)
    assert len(list(temporary.iterdir())) == 1
    results.close()
    assert list(temporary.iterdir()) == []


def test_the_functions_that_come_with_zsh_compile(zsh: Zsh) -> None:
    found = find_functions(zsh.fpath)
    results = list(compile_functions(zsh, found.functions))
    left_out = [result for result in results if isinstance(result, LeftOut)]
    assert len(results) == len(found.functions) > 100
    assert len(left_out) * 20 < len(results), left_out
