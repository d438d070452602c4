"""autoloadctl, the command line.

A shell starts it for one `get`, so this module imports nothing: what is needed comes with the path
that is taken.
"""

import sys


def main() -> None:
    """Run autoloadctl with the process's arguments; ends the process."""
    arguments = sys.argv[1:]
    match arguments[:1]:
        case ["get"]:
            from .fast import run_fast  # noqa: PLC0415  only this command needs it

            run_fast(arguments[1:])
        case ["cached"]:
            from .cached import run_fast  # noqa: PLC0415  as above

            run_fast(arguments[1:])
        case ["publish"]:
            from .publish import run_fast  # noqa: PLC0415  as above

            run_fast(arguments[1:])
    # Nothing plain. The parser and the client library cost 30 ms, so they come only now.
    from .run import run  # noqa: PLC0415

    sys.exit(run(arguments))
