"""What is evaluated is what the tool would have printed: where more than its file decides that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .test_eval import daemon, environment, only_entry, outputs, wait_for_puts
from .zsh import PLUGIN, output_of

if TYPE_CHECKING:
    from autoloadd_client import Cache

    from .conftest import Tool

__all__ = ["daemon", "environment", "outputs"]

SHOW = "autoloadd-eval $TOOL; print -r -- $GREETING"


def own_locals() -> list[str]:
    """Return the names of all variables that the plugin's functions declare."""
    found = set()
    for line in PLUGIN.read_text().splitlines():
        for declared in re.findall(r"\blocal ([^;&]*)", line):
            plain = re.sub(r"\([^()]*\)|\$\{.*\}|=\S*", " ", declared)
            found |= {word for word in plain.split() if re.fullmatch(r"[a-zA-Z]\w*", word)}
    return sorted(
        found | {"file", "words", "name", "match", "mbegin", "mend", "REPLY"} - {"SECONDS"}
    )


def test_the_tool_sees_every_exported_variable(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    """Also those that are called as the plugin calls its own."""
    names = own_locals()
    assert len(names) > 40
    tool.write(f"echo GREETING=$(env | grep -cE '^({'|'.join(names)})=1$')")
    exported = {**environment, **dict.fromkeys(names, "1")}
    assert output_of(SHOW, environment=exported) == f"{len(names)}\n"
    whole = f"typeset -a _autoloadd_watched=(x)\n_autoloadd_asked {tool.path} x"
    assert output_of(whole, environment=exported) == f"GREETING={len(names)}\n"


@pytest.mark.parametrize("name", ["file", "words", "name", "variable"])
def test_a_variable_called_as_one_of_the_plugins(
    name: str, environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    tool.write(f"echo GREETING=${name}")
    script = SHOW.replace("$TOOL", f"--env {name} $TOOL")
    for runs, value in ((1, "one"), (2, "two")):
        assert output_of(script, environment={**environment, name: value}) == f"{value}\n"
        wait_for_puts(outputs, runs)
    assert (only_entry(outputs)[1].fingerprint or b"").endswith(f"\0{name}=two\0".encode())


def test_what_is_written_behind_the_mark(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    """By what the tool left running: a plain $(...) waits for it, too."""
    tool.write("echo GREETING=hello\n(sleep 0.3; echo GREETING=late) &")
    for _ in range(2):
        assert output_of(SHOW, environment=environment) == "late\n"
        wait_for_puts(outputs, 1)


def test_many_newlines(environment: dict[str, str], tool: Tool, outputs: Cache) -> None:
    tool.write("echo GREETING=hello; head -c 300000 /dev/zero | tr '\\0' '\\n'")
    script = f"typeset -F SECONDS=0; {SHOW}; print $(( SECONDS < 5 ))"
    assert output_of(script, environment=environment) == "hello\n1\n"
