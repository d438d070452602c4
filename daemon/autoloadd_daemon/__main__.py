"""`autoloadd`, and `python -m autoloadd_daemon`."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import TYPE_CHECKING

from .config import load_settings, read_command_line, unknown_variables
from .errors import AlreadyServedError, ConfigError, DaemonError
from .log import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .app import App

_logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_ALREADY_SERVED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    arguments = read_command_line(argv)
    try:
        settings = load_settings(arguments, os.environ)
    except ConfigError as exc:
        _say(str(exc))
        return EXIT_CONFIG
    if arguments.check_config:
        for warning in unknown_variables(os.environ):
            _say(f"warning: {warning}")
        return _print(settings.describe())
    set_up_logging(settings.log_level, os.environ)
    for warning in unknown_variables(os.environ):
        _logger.warning("%s", warning)
    try:
        _load_app()(settings, reload=lambda: load_settings(arguments, os.environ)).run()
    except AlreadyServedError as exc:
        _say(str(exc))
        return EXIT_ALREADY_SERVED
    except DaemonError as exc:
        _say(str(exc))
        return EXIT_FAILED
    return 0


def _load_app() -> type[App]:
    """Return App. trio's import takes 100 ms: not for --check-config.

    Nothing that an import makes is garbage. To look for some took 5% of a start, and would go over
    all of it again while clients are served.
    """
    gc.disable()
    try:
        from .app import App  # noqa: PLC0415
    finally:
        gc.freeze()
        gc.enable()
    return App


def _print(text: str) -> int:
    # Paths need not be UTF-8; they are shown as they are.
    data = f"{text}\n".encode(errors="surrogateescape")
    try:
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]
    except OSError as exc:
        _say(f"cannot write to stdout: {exc.strerror}")
        return EXIT_FAILED
    return 0


def _say(message: str) -> None:
    sys.stderr.write(f"autoloadd: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
