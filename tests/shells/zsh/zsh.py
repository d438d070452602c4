"""Runs the real zsh on the plugin."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.running import own_environment

import autoloadd_client.shells

if TYPE_CHECKING:
    from collections.abc import Mapping

PLUGIN = Path(autoloadd_client.shells.__file__).parent / "autoloadd.plugin.zsh"
RUN_SECONDS = 100.0

READ_ALL = "while _autoloadd_read_on; do :; done"
"""Has the parts of the plugin read that are read when they are needed."""

PATIENT = {"AUTOLOADD_WAIT_MS": "20000"}
"""Where a test is not about the 5 ms: a busy machine is slower."""


def quote(data: bytes | str) -> str:
    r"""Return a word that zsh reads as exactly these bytes."""
    raw = data.encode() if isinstance(data, str) else data
    return "$'" + "".join(f"\\x{byte:02x}" for byte in raw) + "'"


def typed(value: Any) -> str:
    """Return a value as TYPE VALUE..., for `_autoloadd_pack`."""
    match value:
        case None:
            return "nil"
        case bool():
            return f"bool {str(value).lower()}"
        case int():
            return f"int {value}"
        case str():
            return f"str {quote(value)}"
        case bytes():
            return f"bin {quote(value)}"
        case dict():
            items = [item for pair in value.items() for item in pair]
            return " ".join([f"map {len(value)}", *map(typed, items)])
        case list() | tuple():
            return " ".join([f"array {len(value)}", *map(typed, value)])
        case _:
            raise TypeError(f"{value!r} is no value of the wire")


def environment_for(socket_path: str, **changes: str) -> dict[str, str]:
    """Return the environment of a shell that asks the daemon at this socket, and waits for it."""
    return own_environment({"AUTOLOADD_SOCKET": socket_path, **PATIENT, **changes})


def run_zsh(
    script: str,
    *arguments: str,
    environment: Mapping[str, str],
    sourced: bool = True,
    command: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run a script in a zsh without start-up files, behind `source PLUGIN`, and wait for its end.

    Line by line, as a start-up file is read. As a `command` it is parsed before the plugin is read.
    """
    whole = f"\\source {PLUGIN}\n{script}" if sourced else script
    with tempfile.NamedTemporaryFile("w", prefix="ald-") as file:
        file.write(whole)
        file.flush()
        given = ["-fc", whole, "zsh"] if command else ["-f", file.name]
        return subprocess.run(
            ["zsh", *given, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=RUN_SECONDS,
            check=False,
        )


def output_of(
    script: str, *arguments: str, environment: Mapping[str, str], sourced: bool = True
) -> str:
    """Return what a script prints; it may print nothing to stderr and has to succeed."""
    ran = run_zsh(script, *arguments, environment=environment, sourced=sourced)
    assert (ran.returncode, ran.stderr) == (0, b""), ran
    return ran.stdout.decode()
