"""`autoloadctl cached TOOL ARGS...`: what the tool prints, out of the cache where it is there.

bash and fish start it for each question, so that a hit loads no more than `get` does.
"""

from __future__ import annotations

import os
import sys

from autoloadd_client.outputs.answering import Asked
from autoloadd_client.outputs.question import QuestionError, read_question
from autoloadd_protocol.rendezvous import is_switched_off

from .descriptors import deliver, tell
from .statuses import INTERRUPTED, USAGE

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from typing import NoReturn

    from autoloadd_client.outputs.question import Question

    from .context import Context
    from .parser import Subparsers

_CANNOT_RUN = 126
_NOT_FOUND = 127

_EXAMPLES = """\
  eval "$(autoloadctl cached starship init bash)"
  autoloadctl cached --max-age 1d --env PYENV_ROOT pyenv init -
  autoloadctl cached --kind complete env _FLASK_COMPLETE=bash_source flask
"""

_MORE = """

The tool runs again when its file differs (path, size, inode, time), or one of --env or --file; and
when its exit status was another than --status, or it wrote to stderr: that is never cached. Where
no daemon answers, the tool is run. What stands behind TOOL is TOOL's own.

exit status: the tool's own; 2 where the options are wrong, 127 where there is no such tool."""


def add_commands(subparsers: Subparsers) -> None:
    """Add this command to autoloadctl's."""
    from .parser import add_command  # noqa: PLC0415  the short way does without

    cached = add_command(
        subparsers,
        "cached",
        run_cached,
        summary="print what a tool prints, out of the cache",
        operands="TOOL ARGS...",
        examples=_EXAMPLES,
        data=False,
        more=_MORE,
    )
    cached.takes_mixed = False
    cached.add_argument("--max-age", metavar="AGE", help="run it again after 90, 15m, 12h, 7d")
    cached.add_argument(
        "--env", metavar="NAME", help="run it again when this variable differs; may be repeated"
    )
    cached.add_argument(
        "--file", metavar="PATH", help="run it again when this file differs; may be repeated"
    )
    cached.add_argument(
        "--packages",
        choices=("python",),
        help="run it again when a Python package comes or goes beside the tool",
    )
    cached.add_argument("--shell", metavar="NAME/VERSION", help="who asks: it is a part of the key")
    cached.add_argument("--kind", choices=("eval", "complete"), help="what for (default: eval)")
    cached.add_argument("--status", metavar="N", help="the status of a good run (default: 0)")
    cached.add_argument("--pid", metavar="PID", help="the shell that asks (default: the parent)")
    cached.add_argument("words", metavar="TOOL ARGS...", nargs="...", help="what to run")


def run_cached(_context: Context) -> int:
    """Tell that the options of all commands belong elsewhere here."""
    return tell(USAGE, "put `cached` first: autoloadctl cached [OPTION]... TOOL ARGS...")


def run_fast(arguments: list[str]) -> None:
    """Answer and end the process; return where the full parser shows its help.

    `arguments` are those behind `cached`.
    """
    if arguments[:1] in (["--help"], ["-h"]):
        return
    try:
        status = answer(arguments)
    except KeyboardInterrupt:
        status = INTERRUPTED
    # Nothing is left to clean up, and the interpreter's own farewell takes a millisecond.
    os._exit(status)


def answer(arguments: list[str]) -> int:
    """Print the answer; return the exit status."""
    try:
        question = read_question(arguments)
    except QuestionError as exc:
        return tell(USAGE, exc)
    program = question.find_program(os.environ) if _may_ask() else None
    asked = None if program is None else Asked(question, program)
    if asked is not None and asked.blob is not None:
        return deliver(asked.blob, question.status)
    if asked is None or not asked.is_cached:
        _become(question)
    _load_site()
    try:
        ran = asked.make()
    except OSError as exc:
        return _tell_failure(question, exc)
    return deliver(ran.output, ran.status)


def _may_ask() -> bool:
    # A number that is free could become the socket's: the daemon would get what is printed.
    has_streams = sys.stdout is not None and sys.stderr is not None
    return has_streams and not is_switched_off(os.environ)


def _become(question: Question) -> NoReturn:
    """Run the tool in the place of this process: as if the shell had started it."""
    # Python ignores these signals, and a program that is run inherits that.
    from signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal  # noqa: PLC0415  a hit does without

    signal(SIGPIPE, SIG_DFL)
    signal(SIGXFSZ, SIG_DFL)
    try:
        _execute(question)
    except OSError as exc:
        os._exit(_tell_failure(question, exc))


def _execute(question: Question) -> NoReturn:
    words = question.words
    try:
        os.execvp(words[0], words)  # noqa: S606  no shell: the words are exact
    except OSError as exc:
        from autoloadd_client.outputs.running import interpret  # noqa: PLC0415  rarely needed

        script = interpret(words, question.shell, exc)
        if script is None:
            raise
        os.execvp(script[0], script)  # noqa: S606  as above


def _tell_failure(question: Question, error: OSError) -> int:
    status = _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_RUN
    return tell(status, f"{question.words[0]}: {error.strerror}")


def _load_site() -> None:
    # `bare.py` starts without it. From here on the tool's own time is what counts.
    if sys.flags.no_site:
        import site  # noqa: PLC0415  see above

        site.main()
