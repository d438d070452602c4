"""The command `shell`: autoloadd in a shell's start-up file, and out of it again."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

from autoloadd_client.errors import CacheError
from autoloadd_client.reaching import HOW_TO_START, connect, find_socket

from .conventions import PROGRAM, UsageError
from .parser import add_command
from .statuses import FOUND, MISS
from .text import make_printable

if TYPE_CHECKING:
    from autoloadd_client.shells.rc_file import RcFile

    from .context import Context
    from .parser import Subparsers

_SHELLS = ("zsh", "bash", "fish")
_ANSWER_SECONDS = 0.1

_EXAMPLES = """\
  autoloadctl shell install zsh
  autoloadctl shell install bash --dry-run
  autoloadctl shell install zsh --rc ~/dotfiles/zshrc
  autoloadctl shell uninstall fish
  autoloadctl shell status
"""

_MORE = """

install adds one line, with the mark `# autoloadd`, to the end of .zshrc (in ZDOTDIR), .bashrc, or
fish's conf.d/autoloadd.fish, and shows it. Where the line is there, none is added. You may move
it: it is found wherever it stands. The file as it was is kept beside it. uninstall takes exactly
that line out, and names the lines that need autoloadd; the line by itself does nothing once
autoloadd is gone. A line that you wrote yourself is neither found nor taken out.

For zsh the plugin is also compiled, beside itself, if that place can be written to: it is read in
less than half the time. Run install again after an update of zsh or of autoloadd: it is compiled
anew. uninstall removes it.

exit status: 0 done, or so already; 1 uninstall: it was not there, status: it is nowhere."""


def add_commands(subparsers: Subparsers) -> None:
    """Add this command to autoloadctl's."""
    shell = add_command(
        subparsers,
        "shell",
        run_shell,
        summary="switch autoloadd on or off in a shell's start-up file",
        operands="install|uninstall|status [zsh|bash|fish]",
        examples=_EXAMPLES,
        data=False,
        more=_MORE,
    )
    actions = ("install", "uninstall", "status")
    shell.add_argument("action", metavar="ACTION", choices=actions, help=" or ".join(actions))
    shell.add_argument(
        "shell", metavar="SHELL", nargs="?", choices=_SHELLS, help="; ".join(_SHELLS)
    )
    shell.add_argument("--rc", metavar="FILE", help="the start-up file, where it is not the usual")
    shell.add_argument("--dry-run", action="store_true", help="show the line, and change nothing")


def run_shell(context: Context) -> int:
    """Install, uninstall or describe."""
    # Shells are started, and files changed: no other command needs what that loads.
    from autoloadd_client.shells.rc_file import rc_file  # noqa: PLC0415

    arguments = context.arguments
    if arguments.action == "status" and arguments.shell is None:
        if arguments.rc is not None:
            raise UsageError("which shell reads --rc FILE? Give zsh, bash or fish")
        return _run_status(context, [name for name in _SHELLS if shutil.which(name)])
    if arguments.shell is None:
        raise UsageError(f"which shell? {PROGRAM} shell {arguments.action} zsh, bash or fish")
    if arguments.action == "status":
        return _run_status(context, [arguments.shell])
    file = rc_file(arguments.shell, path=arguments.rc, environment=os.environ)
    return _install(context, file) if arguments.action == "install" else _uninstall(context, file)


def _install(context: Context, file: RcFile) -> int:
    line, wanted = os.fsdecode(file.command), file.preview()
    if context.arguments.dry_run or wanted is None:
        done = False
    else:
        done = file.install()
        if not context.wants_json:
            context.say(f"{file.path}:\n  {line}  # autoloadd")
    compiled = None if context.arguments.dry_run else _compile(file.shell)
    if context.wants_json:
        context.write_json({**_describe(file, changed=done, line=line), "compiled": compiled})
    elif context.arguments.dry_run and wanted is not None:
        context.say(f"{file.path}: would add\n  {line}  # autoloadd")
    else:
        context.say(
            f"added; {_next_step(file.shell)}" if done else f"{file.path}: it is there already"
        )
        if file.shell == "zsh" and not context.arguments.dry_run:
            context.say(f"compiled: {compiled or 'no, zsh could not write it: read as text'}")
    if shutil.which(PROGRAM) is None:
        context.warn(
            f"{PROGRAM} is not in PATH: the shell will do without the cache until it is there"
        )
    elif done:
        _warn_without_daemon(context)
    return FOUND


def _warn_without_daemon(context: Context) -> None:
    """Say that no daemon answers yet: a shell would say nothing."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    try:
        path = find_socket(context.socket_path)
        connect(path, deadline, how_to_start=HOW_TO_START).close()
    except CacheError as exc:
        context.warn(f"the shell does without the cache until a daemon answers: {exc}")
    except TimeoutError:
        # One is there, and busy.
        return


def _uninstall(context: Context, file: RcFile) -> int:
    line = file.find()
    dry = context.arguments.dry_run
    done = line is not None and not dry and file.uninstall()
    if not dry:
        _remove_compiled(file.shell)
    shown = None if line is None else os.fsdecode(line)
    if context.wants_json:
        context.write_json(_describe(file, changed=done, line=shown))
    elif line is None:
        context.say(f"{file.path}: it is not there")
    else:
        context.say(f"{file.path}: {'would take out' if dry else 'taken out'}\n  {shown}")
        if done and os.path.lexists(file.backup):
            context.say(f"{file.backup}: what it was before stays, since more has changed")
    for number, line_of_use, use in file.find_uses():
        text = make_printable(os.fsdecode(line_of_use))
        context.warn(f"{file.path}:{number}: {text}\n  {_instead_of(use, file.shell)}")
    return MISS if line is None else FOUND


def _instead_of(use: bytes, shell: str) -> str:
    """Return what to write for a line that does not work without autoloadd."""
    word, *words = os.fsdecode(use).split()
    if word == "autoloadd-complete":
        return "without autoloadd: leave it out, or write what the tool's manual says"
    while words and words[0].startswith("-"):
        del words[: 1 if "=" in words[0] else 2]
    command = make_printable(" ".join(words))
    instead = f"{command} | source" if shell == "fish" else f'eval "$({command})"'
    return f"without autoloadd: {instead}"


def _compile(shell: str) -> str | None:
    """Return the compiled form of what the shell sources, made anew; None: it does without."""
    from autoloadd_client.shells.compiled import compile_beside  # noqa: PLC0415  as above
    from autoloadd_client.shells.rc_file import source_path  # noqa: PLC0415  as above

    return compile_beside(source_path(shell)) if shell == "zsh" else None


def _remove_compiled(shell: str) -> None:
    from autoloadd_client.shells.compiled import remove_compiled  # noqa: PLC0415  as above
    from autoloadd_client.shells.rc_file import source_path  # noqa: PLC0415  as above

    if shell == "zsh":
        remove_compiled(source_path(shell))


def _run_status(context: Context, shells: list[str]) -> int:
    from autoloadd_client.shells.rc_file import rc_file  # noqa: PLC0415  as above

    path = context.arguments.rc
    files = [rc_file(shell, path=path, environment=os.environ) for shell in shells]
    found = [(file, file.find()) for file in files]
    if context.wants_json:
        context.write_json([_state(file, line) for file, line in found])
    else:
        for file, line in found:
            context.say(f"{file.shell:<4}  {_word(file, line):<9}  {file.path}")
    return FOUND if any(line is not None for _, line in found) else MISS


def _word(file: RcFile, line: bytes | None) -> str:
    if line is None:
        return "off"
    # Of another installation, perhaps one that is gone.
    return "on" if line == file.command else "on, other"


def _state(file: RcFile, line: bytes | None) -> dict[str, object]:
    return {
        "shell": file.shell,
        "file": file.path,
        "installed": line is not None,
        "current": line == file.command,
        "line": None if line is None else os.fsdecode(line),
    }


def _describe(file: RcFile, *, changed: bool, line: str | None) -> dict[str, object]:
    return {"shell": file.shell, "file": file.path, "changed": changed, "line": line}


def _next_step(shell: str) -> str:
    examples = {
        "zsh": 'write `autoloadd-eval starship init zsh` behind it for `eval "$(starship init '
        'zsh)"`',
        "bash": 'write `autoloadd-eval starship init bash` behind it for `eval "$(starship init '
        'bash)"`',
        "fish": "write `autoloadd-eval starship init fish` in config.fish for `starship init fish "
        "| source`",
    }
    where = " there" if shell == "fish" else ""
    return (
        f"new shells have it. {examples[shell][0].upper()}{examples[shell][1:]}, and{where}\n"
        "`autoloadd-complete black flask npm pip aws uvicorn` (those that you have) for a fast TAB"
    )
