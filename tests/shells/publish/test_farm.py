"""The farm as zsh sees it: the same functions, sooner; edits, damage, and a builder that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoloadd_client.publishing.farm import (
    MAX_FARMS,
    FarmBusyError,
    Plan,
    link_name,
    lock,
    put_in_place,
    time_of_digest,
)
from autoloadd_client.publishing.watching import is_recent, observe, read_state
from autoloadd_client.shells.zsh import find_functions, find_zsh
from autoloadd_client.shells.zsh_compile import Compiled, compile_functions
from autoloadd_client.shells.zwc import build_digest, read_function

from .conftest import LONG_AGO, Farm, run_zsh, this_second

SECOND = 10**9
NAMES = ("hello", "_thing")
"""A function, and one whose file in the farm compinit does not count."""

_LOAD_ALL = """
zmodload zsh/datetime
names=($functions_to_load); integer i
for n in $names; do autoload -Uz -- $n; done
float t=$EPOCHREALTIME
for n in $names; do autoload +X -Uz -- $n; done
print $(( EPOCHREALTIME - t ))
"""


def test_every_function_of_this_machine_is_the_same(farm: Farm, run_directory: Path) -> None:
    ran = farm.ctl("publish", "zsh", "--json")
    assert ran.returncode == 0, ran.stderr
    published = json.loads(ran.stdout)["functions"]
    show = """
    names=($^fpath/*(-.N:t)); names=(${(ou)names:#(*.zwc|*~)})
    fpath=($@ $fpath)
    for n in $names; do autoload +X -Uz -- $n 2>&1 && functions -- $n; done
    (( $# )) && print -r -- ${#${(M)functions_source:#$1/*}} ${#${(M)functions_source:#$2/*}} >&2
    true
    """
    with_farm = run_zsh(show, *farm.parts, home=run_directory)
    assert with_farm.stdout == run_zsh(show, home=run_directory).stdout
    completions, functions = map(int, with_farm.stderr.split())
    # Not so many where somebody has compiled some of zsh's own in a style of their own.
    assert functions + completions == published
    assert functions > 100


def test_500_functions_come_out_of_the_digest(farm: Farm) -> None:
    """So much sooner that a busy machine cannot hide it; the benchmark says how much: a tenth."""
    body = "".join(f'  [[ -n $argv[{n}] ]] && print -r -- "line {n}"\n' for n in range(100))
    for number in range(500):
        farm.write(f"function{number}", f"if (( $# )); then\n{body}fi\n")
    # zsh maps a digest, unless it is small, when it first takes a function from it: at TAB, this.
    farm.write("_complete", f"if (( $# )); then\n{body * 4}fi\n")
    assert farm.publish()["functions"] == 503
    script = f"autoload -Uz +X _complete\nfunctions_to_load=(function{{0..499}})\n{_LOAD_ALL}"
    # In turn, and the quickest of each: a busy machine only adds time.
    sourced, loaded = [], []
    for _ in range(10):
        sourced.append(float(farm.call(script, without=True)[0]))
        loaded.append(float(farm.call(script)[0]))
        if min(loaded) < min(sourced) / 4:
            break
    assert min(loaded) < min(sourced) / 4, (sourced, loaded)


def test_functions_are_called_and_named_as_before(farm: Farm) -> None:
    said = farm.publish()
    assert (said["functions"], said["compiled"], said["left_out"]) == (2, 2, [])
    script = "autoload -Uz hello _thing; hello you; _thing; print -r -- $funcstack ${#functions}"
    assert farm.call(script) == farm.call(script, without=True) == ("hello you\nthing\n2\n", "")
    assert farm.is_served("hello")
    assert farm.is_served("_thing")
    assert (farm.farm / "hello").resolve() == farm.directory / "hello"
    assert (farm.place / "completions" / "_thing.zwc").resolve() == farm.directory / "_thing"


def test_compinit_makes_the_same_dump_of_the_same_number_of_files(
    farm: Farm, tmp_path: Path
) -> None:
    farm.publish()
    script = """
    dump=$1; shift
    fpath=($@ $fpath)
    autoload -Uz compinit; compinit -d $dump
    print -r -- $_comps[thing] ${#_comps}; zstyle -L; functions +M
    """
    for name, first in (("with", farm.parts), ("without", [])):
        ran = run_zsh(script, tmp_path / name, *first, farm.directory, home=tmp_path)
        assert ran.stdout.startswith("_thing ")
        assert ran.stderr == ""
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()
    # A dump from a shell without the farm is good in one with it: nothing is scanned again.
    before = (tmp_path / "without").stat()
    ran = run_zsh(script, tmp_path / "without", *farm.parts, farm.directory, home=tmp_path)
    after = (tmp_path / "without").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_in_a_later_second_is_seen_at_once(farm: Farm, name: str) -> None:
    farm.publish()
    assert farm.is_served(name)
    farm.write(name, "print -r -- edited\n", at=LONG_AGO + 1)
    assert farm.call(f"autoload -Uz {name}; {name}") == ("edited\n", "")
    assert farm.publish()["changed"]
    assert farm.is_served(name)
    assert farm.call(f"autoload -Uz {name}; {name}") == ("edited\n", "")


def write_now(farm: Farm, word: str) -> None:
    """Write both functions, with the time that it is."""
    for name in NAMES:
        (farm.directory / name).write_text(f"print -r -- {word} {name}\n")


def test_an_edit_in_the_second_of_the_publishing_is_seen_at_once(farm: Farm) -> None:
    for _ in range(4):
        this_second()
        write_now(farm, "first")
        farm.publish()
        write_now(farm, "second")
        script = "autoload -Uz hello _thing; hello; _thing"
        assert farm.call(script) == ("second hello\nsecond _thing\n", "")


def test_what_was_written_in_the_second_of_the_publishing_may_be_another(farm: Farm) -> None:
    deadline = time.monotonic() + 60
    while True:
        second = this_second()
        write_now(farm, "first")
        farm.publish()
        if int(time.time()) == second:
            break
        assert time.monotonic() < deadline, "publishing takes a second and more"
    assert farm.publish()["changed"]


def test_a_file_with_an_older_time_is_seen_when_it_is_published_next(farm: Farm) -> None:
    farm.publish()
    farm.write("hello", "print -r -- a package with old times\n", at=LONG_AGO - 1000)
    assert farm.call("autoload -Uz hello; hello") == ("hello\n", "")
    assert farm.publish()["changed"]
    assert farm.call("autoload -Uz hello; hello")[0] == "a package with old times\n"
    same = os.stat(farm.directory / "hello")
    os.replace(farm.write("other", "print -r -- a package with old timeS\n"),
               farm.directory / "hello")  # fmt: skip
    os.utime(farm.directory / "hello", ns=(same.st_atime_ns, same.st_mtime_ns))
    assert farm.publish()["changed"]
    assert farm.call("autoload -Uz hello; hello")[0] == "a package with old timeS\n"


def test_a_file_that_goes_and_one_that_comes_change_it(farm: Farm, tmp_path: Path) -> None:
    assert farm.publish()["changed"]
    (farm.directory / ".hidden").touch()
    (farm.directory / "edited~").touch()
    (farm.directory / "dangling").symlink_to("/none")
    assert not farm.publish()["changed"]
    farm.write("new", "print new\n")
    assert farm.publish()["functions"] == 3
    (farm.directory / "hello").unlink()
    assert farm.publish()["functions"] == 2
    assert "function definition file not found" in farm.call("autoload -Uz hello; hello")[1]
    beside = tmp_path / "functions.zwc"
    beside.write_bytes(b"a digest beside it, whatever it is")
    os.utime(beside, (LONG_AGO, LONG_AGO))
    assert farm.publish()["changed"]
    (farm.directory / "hello").symlink_to(beside)
    assert farm.publish()["changed"]
    assert not farm.publish()["changed"]


@pytest.mark.parametrize("name", ["hello", "_thing"])
@pytest.mark.parametrize(
    "damage", ["missing", "empty", "other version", "not bytecode", "one byte", "no farm"]
)
def test_zsh_falls_back_to_the_sources(farm: Farm, damage: str, name: str) -> None:
    farm.publish()
    digest, parts = farm.digest_for(name), farm.parts
    data = digest.read_bytes()
    digest.unlink()
    if damage == "no farm":
        farm.place.unlink()
    elif damage != "missing":
        digest.write_bytes(
            {
                "empty": b"",
                "other version": data.replace(b"5.", b"4.", 1),
                "not bytecode": b"print -r -- no bytecode\n" * 100,
                "one byte": data[:1],
            }[damage]
        )
    script = f"autoload -Uz {name}; {name} you"
    if damage == "no farm":
        ran = run_zsh(f"fpath=($@)\n{script}", *parts, farm.directory, home=farm.run_directory)
        assert (ran.stdout, ran.stderr) == farm.call(script, without=True)
    else:
        assert farm.call(script) == farm.call(script, without=True)
        # Not what was published: the next one lays it out again.
        assert farm.publish()["changed"]
        assert farm.is_served(name)


def test_a_shell_that_has_mapped_the_old_digest_goes_on(farm: Farm, run_directory: Path) -> None:
    farm.write("late", "print -r -- late one\n")
    farm.publish()
    script = "fpath=($@); autoload -Uz hello late; hello a; read -r; hello b; late"
    shell = subprocess.Popen(
        ["zsh", "-fc", script, "zsh", farm.farm, farm.directory],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert shell.stdout is not None
    assert shell.stdout.readline() == "hello a\n"
    farm.write("late", "print -r -- late two\n", at=LONG_AGO + 5)
    farm.write("another", "print\n")
    assert farm.publish()["changed"]
    assert shell.communicate("\n", timeout=30) == ("hello b\nlate two\n", "")
    assert [path.name for path in run_directory.glob(".zsh-*")] == [os.readlink(farm.place)]


def test_two_fpaths_do_not_publish_over_each_other(farm: Farm, tmp_path: Path) -> None:
    """A shell that has one farm in its fpath finds its own functions, whatever others publish."""
    farm.write("late", "print -r -- of the first\n")
    farm.publish()
    parts, place = farm.parts, farm.place
    other = tmp_path / "other"
    other.mkdir()
    script = "fpath=($@); autoload -Uz hello late; hello a; read -r; late"
    shell = subprocess.Popen(
        ["zsh", "-fc", script, "zsh", *parts, farm.directory],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert shell.stdout is not None
    assert shell.stdout.readline() == "hello a\n"
    (other / "late").write_text("print -r -- of the second\n")
    os.utime(other / "late", (LONG_AGO, LONG_AGO))
    assert farm.publish(other, farm.directory)["directory"] != str(parts[0])
    assert shell.communicate("\n", timeout=30) == ("of the first\n", "")
    assert place.resolve().is_dir()
    assert not farm.publish()["changed"]
    assert not farm.publish(other, farm.directory)["changed"]


def test_the_farms_that_were_used_last_are_kept(farm: Farm, tmp_path: Path) -> None:
    directories = [tmp_path / f"more{number}" for number in range(MAX_FARMS + 1)]
    for directory in directories:
        directory.mkdir()
    first = farm.publish()["directory"]
    where = [farm.publish(directory, farm.directory)["directory"] for directory in directories[:3]]
    # What a builder that was killed left, and what is not ours.
    (farm.run_directory / ".zsh-5.9-0-killed").mkdir()
    (farm.run_directory / "zsh-away").touch()
    (Path(first).parent / "used").touch()
    where += [farm.publish(directory, farm.directory)["directory"] for directory in directories[3:]]
    kept = {str(path / "farm") for path in farm.run_directory.glob("zsh-*-*")}
    assert kept == {first, *where[2:]}
    assert len(list(farm.run_directory.glob(".zsh-*"))) == MAX_FARMS
    assert (farm.run_directory / "zsh-away").exists()
    # A shell that has one in fpath that is gone takes the sources.
    script = f"fpath=({where[0]} {farm.directory}); autoload -Uz hello; hello you"
    assert run_zsh(script, home=tmp_path).stdout == "hello you\n"


def test_a_directory_that_changes_while_it_is_published_is_newer(farm: Farm) -> None:
    """And one that only was written to is not any more, once it was looked at."""
    farm.publish()
    state = farm.place / "state"
    assert state.stat().st_mtime_ns < (farm.place / "farm").stat().st_mtime_ns
    for options in ([], ["--json"]):
        (farm.directory / ".hidden").touch()
        (farm.directory / ".hidden").unlink()
        assert state.stat().st_mtime_ns < farm.directory.stat().st_mtime_ns
        assert farm.ctl("publish", "zsh", *options, "--fpath", farm.directory).returncode == 0
        assert state.stat().st_mtime_ns > farm.directory.stat().st_mtime_ns


def plan(directory: Path, text: str) -> Plan:
    """Return a plan for one function."""
    (directory / "hello").write_text(f"print -r -- {text}\n")
    os.utime(directory / "hello", (LONG_AGO, LONG_AGO))
    zsh = find_zsh()
    found = find_functions([str(directory)]).functions
    (result,) = compile_functions(zsh, found)
    assert isinstance(result, Compiled)
    bytecode = read_function(result.blob, name=b"hello", version=zsh.version)
    observed = observe(zsh.real, [str(directory)], time.time_ns())
    digests = {"farm": build_digest([bytecode], version=zsh.version)}
    return Plan(found, digests, LONG_AGO * SECOND, [str(directory)], observed, LONG_AGO * SECOND)


_EVENTS = ("open", "os.", "tempfile.", "shutil.", "fcntl.")


def build_and_die(place: str, wanted: Plan, at: int) -> bool:
    """Build in a child that is killed at its `at`-th call that touches a file; tell if it was."""
    pid = os.fork()
    if pid == 0:
        left = at

        def count(event: str, _arguments: object) -> None:
            nonlocal left
            if event.startswith(_EVENTS):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        put_in_place(place, wanted)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def test_a_builder_that_is_killed_anywhere_leaves_the_old_farm_or_the_new(
    tmp_path: Path, functions: Path
) -> None:
    old, new = plan(functions, "old"), plan(functions, "newer")
    outcomes = []
    for at in range(1, 100):
        base = tmp_path / str(at)
        base.mkdir()
        place = str(base / "zsh-5.9")
        put_in_place(place, old)
        killed = build_and_die(place, new, at)
        state = read_state(place)
        assert state in (old.observed, new.observed)
        wanted = "old" if state == old.observed else "newer"
        script = "fpath=($1); autoload -Uz hello; hello"
        ran = run_zsh(script, f"{place}/farm", home=tmp_path)
        assert (ran.stdout, ran.stderr) == (f"{wanted}\n", "")
        outcomes.append(wanted)
        put_in_place(place, new)
        assert len(os.listdir(base)) == 2
        if not killed:
            break
    assert set(outcomes) == {"old", "newer"}
    assert len(outcomes) > 8


def test_what_cannot_be_built_leaves_what_there_was(tmp_path: Path, functions: Path) -> None:
    wanted = plan(functions, "some")
    place = tmp_path / "zsh-5.9"
    place.mkdir()
    (place / "file").touch()
    with pytest.raises(OSError, match=r"zsh-5\.9"):
        put_in_place(str(place), wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["functions", "zsh-5.9"]
    assert (place / "file").exists()


def test_a_signal_right_behind_the_change_takes_nothing_away(
    tmp_path: Path, functions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "zsh-5.9")
    put_in_place(place, plan(functions, "old"))
    new = plan(functions, "newer")
    replace = os.replace

    def replace_and_be_told(source: str, target: str) -> None:
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace_and_be_told)
    with pytest.raises(KeyboardInterrupt):
        put_in_place(place, new)
    assert read_state(place) == new.observed
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put_in_place(place, plan(functions, "newest"))
    assert read_state(place) == new.observed
    monkeypatch.undo()
    put_in_place(place, plan(functions, "newest"))
    assert len(list(tmp_path.glob(".zsh-*"))) == 1


def interrupted(*_arguments: object) -> None:
    """Be what a call is that Ctrl-C ends."""
    raise KeyboardInterrupt


def test_a_lock_that_nobody_gives_back_ends_the_waiting(tmp_path: Path) -> None:
    place = str(tmp_path / "zsh-5.9")
    late = lock(place, seconds=0.2)
    with lock(place), pytest.raises(FarmBusyError, match=r"has been locked for 0\.2 s"):
        late.__enter__()
    with lock(place):
        pass


def test_the_time_of_a_digest() -> None:
    now = 1_000 * SECOND + 5
    assert time_of_digest([900 * SECOND, 950 * SECOND + 1], now) == 950 * SECOND + 1
    # Of this second, of the next ones, of the far future: zsh takes their sources.
    restless = [1_000 * SECOND, now + 2, 1_001 * SECOND, 5_000 * SECOND]
    assert time_of_digest([900 * SECOND, *restless], now) == 900 * SECOND
    assert time_of_digest(restless, now) == 999 * SECOND + 5
    assert [is_recent(mtime, now) for mtime in restless] == [True, True, True, False]
    assert not is_recent(999 * SECOND + 999_999_999, now)


def test_completion_functions_have_links_that_compinit_does_not_count() -> None:
    assert [link_name(name) for name in ("_git", "zmv", "a_b")] == ["_git.zwc", "zmv", "a_b"]


def test_what_was_cached_before_an_edit_that_does_not_compile_is_not_published(farm: Farm) -> None:
    farm.publish()
    farm.write("hello", "if true; then\n")
    assert farm.publish()["functions"] == 1
    script = "autoload -Uz hello; hello"
    assert farm.call(script) == farm.call(script, without=True)


def test_who_waits_long_for_the_lock_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    place = str(tmp_path / "farm")
    with lock(place), pytest.raises(FarmBusyError), lock(place, seconds=1.5, on_wait=told.append):
        pass
    assert told == [str(tmp_path / "zsh.lock")]
