"""zsh's client against the test vectors of the wire: what it sends, and what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.running import own_environment
from tests.vectors.loading import data_of, load, value_of

from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import encode_answer

from .zsh import READ_ALL, quote, run_zsh, typed

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_ARRAY = 15
"""Of what zsh sends; lists of more names or entries are for other clients."""


def _is_sent_by_zsh(case: dict[str, Any]) -> bool:
    """Leave out ids that are not four bytes wide, and what is too long: zsh sends neither."""
    wide = case["id"] is None or case["id"] >= 0x10000
    return wide and _widest(value_of(case["params"])) <= LONGEST_ARRAY


def _widest(value: Any) -> int:
    if isinstance(value, dict):
        return max([len(value), *map(_widest, value.values())])
    if isinstance(value, list):
        return max([len(value), *map(_widest, value)])
    return 0


def _id(number: int | None) -> str:
    return "''" if number is None else quote(number.to_bytes(4, "big"))


SAY = """
emulate -L zsh; setopt no_multibyte
say() { local part; for part; do print -rn -- $#part,$part; done }
"""


def _run(body: str, *arguments: str, home: Path) -> list[bytes]:
    """Run a function's body on arguments; return the parts that it has given to `say`."""
    (home / "script").write_text(f'{READ_ALL}\n_autoloadd_modules\n() {{\n{SAY}{body}\n}} "$@"')
    ran = run_zsh(
        'local script=$1; shift; source $script "$@"',
        str(home / "script"),
        *arguments,
        environment=own_environment({}),
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    data, found = ran.stdout, []
    while data:
        length, _, data = data.partition(b",")
        found.append(data[: int(length)])
        data = data[int(length) :]
    return found


def _frames(lines: list[str], home: Path) -> list[bytes]:
    """Run each line, which sets $frames; return what each set it to."""
    script = "\n".join(f'frames= _autoloadd_packed=; {line}; say "$frames"' for line in lines)
    return _run(f"local frames _autoloadd_packed\n{script}", home=home)


def test_requests(home: Path) -> None:
    cases = [case for case in load("requests") if _is_sent_by_zsh(case)]
    lines = [
        f"_autoloadd_request {_id(case['id'])} {case['method']} {typed(value_of(case['params']))}"
        for case in cases
    ]
    frames = _frames(lines, home)
    assert len(frames) == len(cases) > 100
    for case, frame in zip(cases, frames, strict=True):
        assert frame == data_of(case["frame"]), case
    assert {"get", "put", "lease", "hello", "delete"} <= {case["method"] for case in cases}


def test_values_on_both_sides_of_each_width(home: Path) -> None:
    cases = [case for case in load("boundaries") if "value" in case]
    cases = [case for case in cases if not _is_beyond_zsh(value_of(case["value"]))]
    lines = [
        f"_autoloadd_pack {typed(value_of(case['value']))}; frames=$_autoloadd_packed"
        for case in cases
    ]
    for case, packed in zip(cases, _frames(lines, home), strict=True):
        assert packed == data_of(case["hex"]), case


def _is_beyond_zsh(value: Any) -> bool:
    # zsh's numbers are signed, and the lowest of them cannot be written in it.
    number = value if isinstance(value, int) and not isinstance(value, bool) else 0
    return not -(1 << 63) < number < 1 << 63 or (
        isinstance(value, list | dict) and len(value) > LONGEST_ARRAY
    )


def _entries() -> list[dict[str, Any]]:
    return [case for case in load("boundaries") if "entry" in case]


def test_puts_and_gets_of_entries_on_both_sides_of_each_width(home: Path) -> None:
    lines, expected = [], []
    for case in _entries():
        name, blob, fingerprint, mtime, _cached_at = map(value_of, case["entry"])
        put = typed([name, blob, mtime, fingerprint])
        lines.append(f"_autoloadd_request {_id(0x10000)} put {put}")
        lines.append(f"_autoloadd_request {_id(0x10000)} get {typed([name])}")
        expected += [case["put"], case["get"]]
    for wanted, frame in zip(expected, _frames(lines, home), strict=True):
        assert frame == data_of(wanted)


READ = """
local _autoloadd_blob _autoloadd_stored _autoloadd_times _autoloadd_packed
local _autoloadd_name rest bytes
local -F _autoloadd_patience=1
local -i _autoloadd_fd _autoloadd_stamp result
for _autoloadd_name in "$@"; do
  _autoloadd_blob=- _autoloadd_stored=- _autoloadd_stamp=-7 _autoloadd_packed= rest=
  [[ $_autoloadd_name == */- ]] || _autoloadd_pack str ${_autoloadd_name:t}
  exec {_autoloadd_fd}<$_autoloadd_name
  _autoloadd_answer $'\\x00\\x01\\x00\\x00' $_autoloadd_packed
  result=$? bytes=$_autoloadd_times _autoloadd_times=
  [[ -z $bytes ]] || { _autoloadd_integer_of && _autoloadd_integer_of }
  say $result "$_autoloadd_blob" "$_autoloadd_stored" $_autoloadd_stamp
  sysread -i $_autoloadd_fd rest
  say $#rest
  exec {_autoloadd_fd}<&-
done
"""

Found = tuple[int, bytes, bytes, int, int]


def _read(home: Path, answers: list[tuple[str, bytes]]) -> list[Found]:
    """Have zsh read the answers to gets of these names ('-': another method).

    Returns for each the status, and blob, fingerprint, cached_at, and how many bytes are left.
    """
    paths = [home / str(number) / name for number, (name, _) in enumerate(answers)]
    for path, (_, frame) in zip(paths, answers, strict=True):
        path.parent.mkdir()
        path.write_bytes(frame)
    parts = _run(READ, *map(str, paths), home=home)
    return [
        (int(status), blob, stored, int(stamp), int(left))
        for status, blob, stored, stamp, left in zip(*[iter(parts)] * 5, strict=True)
    ]


def _answers() -> list[dict[str, Any]]:
    return [case for case in load("answers") if case["id"] == 0x10000]


def test_answers(home: Path) -> None:
    cases = _answers()
    names = [case["result"][0] if case["name"].split(":")[0] == "get" else "-" for case in cases]
    frames = [data_of(case["frame"]) for case in cases]
    found = _read(home, list(zip(names, frames, strict=True)))
    assert [each[0] for each in found] == [_status_of(case) for case in cases]
    for case, each in zip(cases, found, strict=True):
        if _status_of(case) == 0:
            _, blob, fingerprint, _, cached_at = value_of(case["result"])
            assert each[1:4] == (blob, fingerprint or b"", cached_at), case
        assert each[4] == 0, case


def _status_of(case: dict[str, Any]) -> int:
    if case["error"] is not None:
        return 4
    if case["result"] is None:
        return 1
    if case["name"].split(":")[0] == "get":
        return 0
    return 3 if case["result"] == "fill" else 5


def test_entries_on_both_sides_of_each_width(home: Path) -> None:
    cases = [case for case in _entries() if _is_file_name(value_of(case["entry"][0]))]
    answers = [(value_of(case["entry"][0]), data_of(case["get_answer"])) for case in cases]
    assert len(cases) > 5
    for case, found in zip(cases, _read(home, answers), strict=True):
        _, blob, fingerprint, _, cached_at = map(value_of, case["entry"])
        assert found == (0, blob, fingerprint or b"", cached_at, 0), case


def _is_file_name(name: str) -> bool:
    return len(name.encode()) < 256 and not set(name) & {"/", "\0"}


def _changed(frame: bytes, offset: int, byte: int) -> bytes:
    return frame[:offset] + bytes([byte]) + frame[offset + 1 :]


def test_an_answer_that_is_not_ours_is_not_used(home: Path) -> None:
    frame = next(data_of(case["frame"]) for case in _answers() if case["name"] == "get")
    for_another_request, for_another_name = _changed(frame, 10, 9), _changed(frame, 16, ord("x"))
    shorter = len(frame) - 4 - 30
    wrong = [
        for_another_request,
        for_another_name,
        _changed(frame, 5, 0),
        shorter.to_bytes(4, "big") + frame[4 : 4 + shorter],
        frame[:20],
        frame[:-1],
        b"",
    ]
    for each in _read(home, [("_git", answer) for answer in wrong]):
        assert each[:2] == (2, b"-")


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535, 65536, 1_000_000])
def test_every_byte_in_a_blob(size: int, home: Path) -> None:
    blob = (bytes(range(256)) * (size // 256 + 1))[:size]
    name = "x" * 40
    frame = encode_frame(encode_answer(0x10000, (name, blob, b"f" * 300, 0, 1)))
    assert _read(home, [(name, frame)]) == [(0, blob, b"f" * 300, 1, 0)]
