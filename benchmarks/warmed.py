"""The functions that the cache is warmed with, and what their bytes must be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from autoloadd_client import Cache, Entry
from autoloadd_protocol.producer import producer_from_map
from shells import fingerprint_of
from values import WrongAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OWN_DIRECTORY = Path(__file__).parent / "functions"
OWN_PRODUCER = "autoloadd-functions/1/8"
"""Their source, as it is: no zsh compiled it, so no zsh's producer may be used."""

HOW_TO_GET_ZSH = (
    "there is no zsh here (get it with `apt install zsh`, `dnf install zsh` or `brew install zsh`)"
)

# The bytes of two compilations may differ: zsh leaves whatever was in memory between two strings.
# So it is zsh that compares, by what it makes of them: the text of each function as it has it.
_LOAD = """
emulate -R zsh
setopt no_multibyte
zmodload zsh/parameter
(( ARGC )) && fpath=($1)
while IFS= read -r name; do
  autoload -Uz +X -- $name && print -rN -- $name $functions[$name]
done
"""


class WarmFailedError(Exception):
    """`autoloadctl warm zsh` failed. The message is what it said."""


def has_zsh() -> bool:
    """Tell whether this machine has a zsh."""
    return shutil.which("zsh") is not None


def warm_zsh(socket_path: str) -> tuple[str, str]:
    """Run `autoloadctl warm zsh`; return its producer and what it printed."""
    command = Path(sys.executable).with_name("autoloadctl")
    ran = subprocess.run(
        [command, "warm", "zsh"], stdout=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "AUTOLOADD_SOCKET": socket_path},
    )  # fmt: skip
    if ran.returncode != 0:
        raise WarmFailedError(f"autoloadctl warm zsh: exit code {ran.returncode}\n{ran.stdout}")
    with Cache(None, socket_path=socket_path) as cache:
        (shard,) = cache.shards()
    return str(producer_from_map(shard["producer"])), ran.stdout.strip()


def warm_own(socket_path: str) -> str:
    """Store the sources of the functions that are shipped here; return their producer."""
    sources = {path.name: Entry(path.read_bytes()) for path in sorted(OWN_DIRECTORY.iterdir())}
    with Cache(OWN_PRODUCER, socket_path=socket_path) as cache:
        cache.merge(sources)
    return OWN_PRODUCER


def check_warmed(socket_path: str, producer: str) -> dict[str, bytes]:
    """Return the warmed entries. Raises WrongAnswerError where one is not what it must be."""
    with Cache(producer, socket_path=socket_path, timeout=10.0) as cache:
        stored = cache.get_many([name for name, _fresh in cache.names()])
    if producer == OWN_PRODUCER:
        compare(stored, {path.name: path.read_bytes() for path in OWN_DIRECTORY.iterdir()})
    else:
        with tempfile.TemporaryDirectory(prefix="autoloadd-") as directory:
            for name, blob in stored.items():
                Path(directory, f"{name}.zwc").write_bytes(blob)
            loaded = load_with_zsh(stored, directory)
        compare(loaded, load_with_zsh(stored))
        print(f"zsh loads each of the {len(loaded):,} from the cache as it does from its source")
    return stored


def load_with_zsh(names: Iterable[str], *directory: str) -> dict[str, bytes]:
    """Return each function's text as zsh has it, loaded from the directory or from its source.

    Raises WrongAnswerError for a function that zsh cannot load.
    """
    ran = subprocess.run(
        ["zsh", "-fc", _LOAD, "zsh", *directory],
        input="".join(f"{name}\n" for name in names).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    parts = ran.stdout.split(b"\0")[:-1]
    loaded = {name.decode(): text for name, text in zip(parts[::2], parts[1::2], strict=True)}
    for name in names:
        if name not in loaded:
            raise WrongAnswerError(f"{name}: zsh cannot load it from {directory or 'its source'}")
    return loaded


def compare(stored: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    """Raise WrongAnswerError at the first name whose bytes differ, or that one side lacks."""
    for name in sorted({*stored, *expected}):
        got, wanted = stored.get(name), expected.get(name)
        if got != wanted:
            raise WrongAnswerError(f"{name}: {_describe(got)}, expected {_describe(wanted)}")


def _describe(blob: bytes | None) -> str:
    if blob is None:
        return "nothing"
    size, checksum = fingerprint_of(blob)
    return f"{size:,} bytes with crc32 {checksum:08x}"
