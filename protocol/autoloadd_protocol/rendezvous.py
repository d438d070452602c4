"""Where the socket, the cache and the configuration lie.

A pure function of the environment, the uid and what `lstat` says, so that daemon and clients find
the same place also under su, cron and in containers, where XDG_RUNTIME_DIR is missing.
"""

from __future__ import annotations

import stat
import sys

from .errors import RendezvousError
from .limits import SOCKET_PATH_BYTES

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    class StatLike(Protocol):
        """The part of os.stat_result that is looked at."""

        @property
        def st_mode(self) -> int: ...

        @property
        def st_uid(self) -> int: ...


OFF_WORDS = ("0", "false", "no")


def is_switched_off(environment: Mapping[str, str]) -> bool:
    """Tell whether AUTOLOADD_CACHE or ZSHRS_CACHE is 0, false or no: the user wants no cache."""
    for variable in ("AUTOLOADD_CACHE", "ZSHRS_CACHE"):
        word = environment.get(variable)
        if word and word.strip().lower() in OFF_WORDS:
            return True
    return False


def socket_path(environment: Mapping[str, str], uid: int, lstat: Callable[[str], StatLike]) -> str:
    """Return the socket's path: the first of these that can be used.

    `AUTOLOADD_SOCKET`; `/run/user/UID/autoloadd/socket`; `$XDG_RUNTIME_DIR/autoloadd/socket`;
    `$XDG_CACHE_HOME/autoloadd/run/socket`; `~/.cache/autoloadd/run/socket`. `lstat` may raise
    OSError. Raises RendezvousError for a path that no socket can have.
    """
    chosen = environment.get("AUTOLOADD_SOCKET")
    if chosen:
        return check_socket_path(chosen)
    for base in (f"/run/user/{uid}", environment.get("XDG_RUNTIME_DIR")):
        if base and base.startswith("/") and _is_own_directory(base, uid, lstat):
            return check_socket_path(f"{base}/autoloadd/socket")
    cache = environment.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):
        home = environment.get("HOME", "")
        if not home.startswith("/"):
            raise RendezvousError(
                "no place for the socket: neither /run/user nor XDG_RUNTIME_DIR is ours, and HOME "
                "is not set; set AUTOLOADD_SOCKET"
            )
        cache = f"{home}/.cache"
    return check_socket_path(f"{cache}/autoloadd/run/socket")


def check_socket_path(path: str) -> str:
    """Return the path if a socket can have it. Raises RendezvousError otherwise."""
    if not path.startswith("/"):
        raise RendezvousError(f"socket path {path!r} is not absolute")
    size = len(path.encode(errors="surrogateescape"))
    if size > SOCKET_PATH_BYTES:
        raise RendezvousError(
            f"socket path {path!r} has {size} bytes, a Unix socket may have at most "
            f"{SOCKET_PATH_BYTES}; set AUTOLOADD_SOCKET to a shorter one"
        )
    return path


def check_private_directory(path: str, uid: int, lstat: Callable[[str], StatLike]) -> None:
    """Return if the directory is ours alone. Raises RendezvousError that names path and reason.

    Whoever can write to the socket's directory can put a server of their own there.
    `lstat` may raise OSError, which is passed on.
    """
    found = lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise RendezvousError(f"{path} is a symbolic link; it must be a directory of its own")
    if not stat.S_ISDIR(found.st_mode):
        raise RendezvousError(f"{path} is not a directory")
    if found.st_uid != uid:
        raise RendezvousError(f"{path} belongs to uid {found.st_uid}, not to uid {uid}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise RendezvousError(
            f"{path} has mode {mode:04o}, others can reach it; "
            "autoloadd needs a directory of its own with mode 0700"
        )


def cache_directory(environment: Mapping[str, str]) -> str:
    """Return where the daemon keeps its files: AUTOLOADD_CACHE_DIR, or platformdirs' place."""
    chosen = environment.get("AUTOLOADD_CACHE_DIR")
    return chosen or _user_directory(environment, "XDG_CACHE_HOME", ".cache", "user_cache_dir")


def config_file(environment: Mapping[str, str]) -> str:
    """Return where the configuration is looked for: AUTOLOADD_CONFIG, or platformdirs' place."""
    chosen = environment.get("AUTOLOADD_CONFIG")
    if chosen:
        return chosen
    directory = _user_directory(environment, "XDG_CONFIG_HOME", ".config", "user_config_dir")
    return f"{directory}/config.toml"


def _user_directory(environment: Mapping[str, str], variable: str, usual: str, which: str) -> str:
    """Return platformdirs' place for this program.

    Where that is plain it is said here: the module costs 10 to 19 ms of each start.
    """
    home, base = environment.get("HOME", ""), environment.get(variable, "")
    if not base and _is_plain(home):
        base = f"{home}/{usual}"
    if sys.platform == "linux" and _is_plain(base):
        return f"{base}/autoloadd"
    import platformdirs  # noqa: PLC0415

    directory: str = getattr(platformdirs, which)("autoloadd", appauthor=False)
    return directory


def _is_plain(path: str) -> bool:
    return path.startswith("/") and not path.endswith("/") and path == path.strip()


def _is_own_directory(path: str, uid: int, lstat: Callable[[str], StatLike]) -> bool:
    try:
        found = lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid
