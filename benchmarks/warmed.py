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
from shells import fingerprint_of
from values import WrongAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OWN_DIRECTORY = Path(__file__).parent / "functions"
OWN_PRODUCER = "autoloadd-functions/1/8"
"""Their source, as it is: no zsh compiled it, so no zsh's producer may be used."""

HOW_TO_GET_ZSH = (
    "There is no zsh here (get it with `apt install zsh`, `dnf install zsh` or `brew install zsh`):"
)

# Written apart from autoloadctl's own way: what that stored is compared with what this makes.
_COMPILE_AGAIN = """
emulate -R zsh
setopt no_multibyte
integer number
while IFS= read -r name; do
  files=($^fpath/$name(N))
  zcompile -U -- $1/$(( number++ )).zwc $files[1]
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
    fields = shard["producer"]
    parts = [fields["name"], fields["version"], str(fields["pointer_width"])]
    return "/".join([*parts, *filter(None, [fields.get("build")])]), ran.stdout.strip()


def warm_own(socket_path: str) -> str:
    """Store the sources of the functions that are shipped here; return their producer."""
    sources = {path.name: Entry(path.read_bytes()) for path in sorted(OWN_DIRECTORY.iterdir())}
    with Cache(OWN_PRODUCER, socket_path=socket_path) as cache:
        cache.merge(sources)
    return OWN_PRODUCER


def read_expected(producer: str, names: Sequence[str]) -> dict[str, bytes]:
    """Return what each name's bytes must be, made from their source without the daemon."""
    if producer == OWN_PRODUCER:
        return {name: (OWN_DIRECTORY / name).read_bytes() for name in names}
    with tempfile.TemporaryDirectory(prefix="autoloadd-") as directory:
        subprocess.run(
            ["zsh", "-fc", _COMPILE_AGAIN, "zsh", directory],
            input="".join(f"{name}\n" for name in names), text=True, check=True,
        )  # fmt: skip
        return {
            name: Path(directory, f"{number}.zwc").read_bytes() for number, name in enumerate(names)
        }


def check_warmed(socket_path: str, producer: str) -> dict[str, bytes]:
    """Return the warmed entries. Raises WrongAnswerError where one is not what it must be."""
    with Cache(producer, socket_path=socket_path, timeout=10.0) as cache:
        names = [name for name, _fresh in cache.names()]
        stored = cache.get_many(names)
    expected = read_expected(producer, names)
    compare(stored, expected)
    return stored


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
