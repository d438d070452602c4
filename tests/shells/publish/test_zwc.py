"""zsh's format of compiled functions, read and written beside zsh itself."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.shells.compiled import compile_beside
from autoloadd_client.shells.errors import BytecodeError
from autoloadd_client.shells.zsh import LeftOut, Zsh, find_functions, find_zsh
from autoloadd_client.shells.zsh_compile import Compiled, compile_functions
from autoloadd_client.shells.zwc import (
    MAX_DIGEST_BYTES,
    Bytecode,
    build_digest,
    metafy,
    read_function,
    read_header,
)

from .conftest import run_zsh

if TYPE_CHECKING:
    from pathlib import Path

AWKWARD = ["ä", "-x", "a b", "$HOME", "x\ny", "a'b", "four", "eight888"]


@pytest.fixture(scope="module")
def zsh() -> Zsh:
    return find_zsh()


def compile_all(zsh: Zsh, directory: Path) -> dict[str, bytes]:
    found = find_functions([str(directory)]).functions
    results = list(compile_functions(zsh, found))
    assert all(isinstance(result, Compiled) for result in results)
    return {each.function.name: each.blob for each in results if isinstance(each, Compiled)}


def read_all(zsh: Zsh, directory: Path) -> list[Bytecode]:
    blobs = compile_all(zsh, directory)
    return [
        read_function(blob, name=name.encode(), version=zsh.version) for name, blob in blobs.items()
    ]


def test_zsh_loads_each_function_of_a_digest_as_from_its_source(
    zsh: Zsh, functions: Path, tmp_path: Path
) -> None:
    for name in AWKWARD:
        (functions / name).write_text(f"if [[ $1 = (a|ü)* ]]; then print -r -- {'x' * 99}\nfi\n")
    digest = tmp_path / "digest.zwc"
    digest.write_bytes(build_digest(read_all(zsh, functions), version=zsh.version))
    script = 'fpath=($1); shift; for n; do autoload +X -Uz -- "$n"; functions -- "$n"; done'
    from_digest = run_zsh(script, digest, *AWKWARD, home=tmp_path)
    from_source = run_zsh(script, functions, *AWKWARD, home=tmp_path)
    assert from_digest.stderr == from_source.stderr == ""
    assert from_digest.stdout == from_source.stdout
    assert from_digest.stdout.count("x" * 99) == len(AWKWARD)


def test_zsh_finds_a_name_that_it_keeps_in_another_form(
    zsh: Zsh, functions: Path, tmp_path: Path
) -> None:
    # zsh 5.9's own zcompile cannot open a file of such a name.
    (functions / "plain").write_text("print -r -- found\n")
    (function,) = read_all(zsh, functions)
    digest = tmp_path / "digest.zwc"
    renamed = replace(function, name=metafy("日本à".encode()))
    digest.write_bytes(build_digest([renamed], version=zsh.version))
    ran = run_zsh("fpath=($1); autoload -Uz 日本à; 日本à", digest, home=tmp_path)
    assert (ran.stdout, ran.stderr) == ("found\n", "")


@pytest.mark.parametrize("count", [1, 2, 300])
def test_zsh_lists_what_is_in_a_digest(
    zsh: Zsh, functions: Path, tmp_path: Path, count: int
) -> None:
    names = [f"function{number}" for number in range(count)]
    for name in names:
        (functions / name).write_text(f"print {name}\n")
    digest = tmp_path / "digest.zwc"
    data = build_digest(read_all(zsh, functions), version=zsh.version)
    digest.write_bytes(data)
    kind = "mapped" if len(data) >= 4096 else "read"
    listed = run_zsh("zcompile -t $1", digest, home=tmp_path).stdout.splitlines()
    assert listed[0] == f"zwc file ({kind}) for zsh-{zsh.version}"
    assert sorted(listed[1:]) == sorted(names)
    heads = read_header(data, version=zsh.version)
    assert [head.name.decode() for head in heads] == listed[1:]
    assert {head.flags for head in heads} == {0}


def test_how_zsh_compiled_a_function_stays(zsh: Zsh, functions: Path, tmp_path: Path) -> None:
    (functions / "own").write_text("own() { print own; }; own\n")
    for option, flags in (("-U", 0), ("-k", 1), ("-z", 2)):
        single = tmp_path / f"single{flags}.zwc"
        run_zsh(f"zcompile {option} $1 $2", single, functions / "own", home=tmp_path)
        blob = single.read_bytes()
        function = read_function(blob, name=b"own", version=zsh.version)
        digest = build_digest([function], version=zsh.version)
        assert [head.flags for head in read_header(digest, version=zsh.version)] == [flags]


def test_names_are_metafied() -> None:
    assert metafy(b"plain _name-1") == b"plain _name-1"
    assert metafy("à".encode()) == b"\xc3\x83\x80"
    assert metafy(b"\0\x82\x83\xa2\xa3") == b"\x83 \x82\x83\xa3\x83\x82\xa3"


def test_an_empty_digest_is_none(zsh: Zsh) -> None:
    with pytest.raises(BytecodeError, match="too short"):
        read_header(build_digest([], version=zsh.version), version=zsh.version)


def test_a_digest_that_zsh_cannot_address_is_refused(zsh: Zsh) -> None:
    code = bytes(MAX_DIGEST_BYTES - 80)
    fits = Bytecode(b"f", code[: len(code) // 4 * 4], len(code), 0, 0, 0)
    assert len(build_digest([fits], version=zsh.version)) <= MAX_DIGEST_BYTES
    more = Bytecode(b"g", bytes(400), 400, 0, 0, 0)
    with pytest.raises(BytecodeError, match=r"16,77.,... bytes is longer than zsh can say"):
        build_digest([fits, more], version=zsh.version)


def test_another_version_another_function_and_several_are_refused(
    zsh: Zsh, functions: Path
) -> None:
    for name in ("one", "two"):
        (functions / name).write_text("print\n")
    blob = compile_all(zsh, functions)["one"]
    with pytest.raises(BytecodeError, match="another version"):
        read_function(blob, name=b"one", version="5.0")
    with pytest.raises(BytecodeError, match="another function"):
        read_function(blob, name=b"two", version=zsh.version)
    both = build_digest(read_all(zsh, functions), version=zsh.version)
    with pytest.raises(BytecodeError, match="it holds 2 functions"):
        read_function(both, name=b"one", version=zsh.version)
    with pytest.raises(BytecodeError, match="no bytecode of zsh"):
        read_header(b"print -r -- this is the source\n" * 4, version=zsh.version)


def test_no_damage_gets_an_offset_past_the_reader(zsh: Zsh, functions: Path) -> None:
    (functions / "one").write_text("print -r -- a few words\n")
    blob = compile_all(zsh, functions)["one"]
    half = len(blob) // 2
    chance = random.Random(5)
    damaged = [blob[:size] for size in range(half)]
    for position in range(100):
        for _ in range(8):
            changed = bytearray(blob[:half])
            changed[position] = chance.randrange(256)
            damaged.append(bytes(changed))
    for data in damaged:
        try:
            function = read_function(data, name=b"one", version=zsh.version)
        except BytecodeError:
            continue
        assert function.name == b"one"
        assert len(function.code) % 4 == 0
        assert function.strings_at <= function.code_bytes <= len(function.code) <= half
        assert function.patterns * 4 <= function.code_bytes


def test_what_zsh_could_write_a_part_of_only(
    zsh: Zsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk it says nothing; and who maps the rest is killed."""
    (tmp_path / "bin").mkdir()
    full = tmp_path / "bin" / "zsh"
    full.write_text(f"#!/bin/sh\ntrap '' XFSZ; ulimit -f 4; exec {zsh.binary} \"$@\"\n")
    full.chmod(0o755)
    (tmp_path / "functions").mkdir()
    script = tmp_path / "functions" / "long"
    script.write_text("print -r -- some words\n" * 400)
    found = find_functions([str(script.parent)]).functions
    [left_out] = compile_functions(replace(zsh, binary=str(full)), found)
    assert isinstance(left_out, LeftOut)
    assert left_out.reason == "its compiled form could not be written whole"
    monkeypatch.setenv("PATH", str(full.parent), prepend=":")
    assert compile_beside(str(script)) is None
    assert [path.name for path in script.parent.iterdir()] == ["long"]
