"""One line put into a text and taken out again: nothing else of it changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_client.shells.rc_file import make_command
from autoloadd_client.shells.rc_line import add_line, find_line, remove_line

LINE = make_command("zsh", "/opt/autoloadd.plugin.zsh")
OTHER = make_command("fish", "/it's/autoloadd.fish")

_PIECES = st.sampled_from(
    [b"a", b"\n", b"\r\n", b"\r", b"\xff", b"# autoloadd", b"  ", b"[ -r x ]"]
)
CONTENTS = st.one_of(st.none(), st.lists(_PIECES, max_size=12).map(b"".join))


@given(content=CONTENTS, line=st.sampled_from([LINE, OTHER]))
def test_out_again_is_as_before(content: bytes | None, line: bytes) -> None:
    added = add_line(content, line)
    assert find_line(added) == line
    assert remove_line(added) == content
    assert add_line(added, line) == added


@given(content=CONTENTS, behind=st.sampled_from([b"more\n", b"more"]))
def test_what_was_written_behind_it_stays_apart(content: bytes | None, behind: bytes) -> None:
    rest = remove_line(add_line(content, LINE) + behind)
    assert rest is not None
    assert rest.endswith(behind)
    before = rest.removesuffix(behind)
    assert before in (content or b"", (content or b"") + b"\n", (content or b"") + b"\r\n")
    assert before == b"" or before.endswith(b"\n")


def test_another_installation_takes_the_place_of_the_old_one() -> None:
    old = add_line(b"before\nno end", make_command("zsh", "/old/autoloadd.plugin.zsh")) + b"after\n"
    new = add_line(old, LINE)
    assert new == old.replace(b"/old/", b"/opt/")
    assert remove_line(new) == b"before\nno end\nafter\n"


def test_what_only_looks_like_it_is_no_line_of_ours() -> None:
    for text in (b"x # autoloadd\n", b"echo '" + LINE + b"  # autoloadd'\n", LINE + b"\n",
                 b"# " + LINE + b"  # autoloadd\n"):  # fmt: skip
        assert find_line(text) is None
        assert remove_line(text) == text


@pytest.mark.parametrize("path", ["/a b/x", "/it's/x", '/"$HOME"/x', "/back\\slash/x", "/ä/x"])
def test_every_path_is_one_word(path: str) -> None:
    assert find_line(add_line(None, make_command("bash", path))) == make_command("bash", path)


@pytest.mark.parametrize(
    "old", [b"[ -r /old/x ] && . /old/x", b"test -r '/old/x'; and source '/old/x'"]
)
def test_the_line_as_it_was_at_first_is_found_too(old: bytes) -> None:
    content = b"x\n" + old + b"  # autoloadd\ny\n"
    assert find_line(content) == old
    assert remove_line(content) == b"x\ny\n"
    assert add_line(content, LINE) == b"x\n" + LINE + b"  # autoloadd\ny\n"
