"""A script's compiled form beside it, which zsh reads as long as the script is not newer."""

from __future__ import annotations

import os
import subprocess
import tempfile

from .zwc import is_whole

SUFFIX = ".zwc"
_COMPILE_SECONDS = 10.0


def compile_beside(script: str) -> str | None:
    """Compile a script for the zsh in PATH; return the file, None where that cannot be done.

    It gets the script's own time, so that the next version of the script is newer. It is put in its
    place in one step: shells map it. A zsh of another version passes over it.
    """
    directory, name = os.path.split(script)
    try:
        times = os.stat(script)
        with tempfile.TemporaryDirectory(prefix=".autoloadd-", dir=directory) as folder:
            fresh = f"{folder}/{name}{SUFFIX}"
            _zcompile(fresh, script)
            # Where a full disk or a power loss left out a part, zsh would be killed.
            with open(fresh, "rb") as file:
                if not is_whole(file.read()):
                    return None
                os.fsync(file.fileno())
            os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
            os.replace(fresh, script + SUFFIX)
    except (OSError, subprocess.SubprocessError):
        return None
    return script + SUFFIX


def remove_compiled(script: str) -> None:
    """Remove what `compile_beside` left; where that cannot be done, it stays and does no harm."""
    try:
        os.unlink(script + SUFFIX)
    except OSError:
        return


def _zcompile(target: str, script: str) -> None:
    subprocess.run(  # noqa: S603  the one in PATH is meant
        ["zsh", "-fc", 'zcompile -U -- "$1" "$2"', "zsh", target, script],  # noqa: S607  as above
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=_COMPILE_SECONDS,
    )
