"""The command `why`: why an answer of the cache is used, or is not."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from autoloadd_client.outputs.comparing import Difference, differences
from autoloadd_client.outputs.question import UNKEPT, Question, QuestionError, read_age
from autoloadd_client.publishing.watching import without_farms
from autoloadd_client.reaching import find_socket
from autoloadd_client.shells.errors import ShellError
from autoloadd_client.shells.zsh import find_zsh
from autoloadd_protocol.producer import TOOL_OUTPUT

from .conventions import UsageError
from .parser import add_command
from .statuses import FOUND, MISS
from .text import format_ago, format_size, make_printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autoloadd_client.entry import Entry
    from autoloadd_client.shells.zsh import Zsh

    from .context import Context
    from .parser import Subparsers

_EXAMPLES = """\
  autoloadctl why _git
  autoloadctl why starship init zsh
  autoloadctl why flask
  autoloadctl why --json pip | jq '.[] | select(.fresh | not)'
"""

_MORE = """

NAME is a function of zsh; TOOL ARGS... what was asked for with autoloadd-eval, or by a completion.
One word is looked for as both. Of each answer that is there, it says which part of its fingerprint
differs from how it is now: a file's path, size, inode or time, or a variable.

exit status: 0 all of it would be used; 1 some of it would not, or there is nothing."""

_SECOND = 10**9


@dataclass(slots=True)
class _Verdict:
    """What is cached, and what speaks against using it."""

    what: str
    shell: str
    words: list[str]
    entry: Entry | None = None
    reasons: list[Difference] = field(default_factory=list)

    @property
    def is_fresh(self) -> bool:
        return self.entry is not None and not self.reasons


def add_commands(subparsers: Subparsers) -> None:
    """Add this command to autoloadctl's."""
    why = add_command(
        subparsers,
        "why",
        run_why,
        summary="say why what is cached is used, or is not",
        operands="NAME | TOOL ARGS...",
        examples=_EXAMPLES,
        data=False,
        more=_MORE,
    )
    why.add_argument("words", metavar="NAME | TOOL ARGS", nargs="+", help="what was asked for")
    why.add_argument(
        "--max-age", metavar="AGE", help="also say what is older than this: 90, 15m, 12h, 7d"
    )
    why.add_argument(
        "--fpath", metavar="DIR", nargs="+", help="where zsh looks (default: without startup files)"
    )


def run_why(context: Context) -> int:
    """Look for a function and for outputs, compare each with how it is now, and say it."""
    words: list[str] = context.arguments.words
    max_age = _read_max_age(context)
    verdicts = list(_judge_outputs(context, words))
    if len(words) == 1 and "/" not in words[0]:
        verdicts = [*_judge_function(context, words[0]), *verdicts]
    for verdict in verdicts:
        _judge_age(verdict, max_age)
    if context.wants_json:
        context.write_json([_as_map(verdict) for verdict in verdicts])
    elif not verdicts:
        context.say(f"{make_printable(' '.join(words))}: nothing is cached for it")
    else:
        for verdict in verdicts:
            _say(context, verdict)
    return FOUND if verdicts and all(verdict.is_fresh for verdict in verdicts) else MISS


def _read_max_age(context: Context) -> int | None:
    text: str | None = context.arguments.max_age
    try:
        return None if text is None else read_age(text)
    except QuestionError as exc:
        raise UsageError(str(exc)) from exc


def _judge_function(context: Context, name: str) -> Iterator[_Verdict]:
    """Yield what is cached for a function of the zsh in PATH, if there is a zsh, and something."""
    try:
        zsh = find_zsh(context.arguments.binary)
    except ShellError:
        return
    fpath: list[str] | None = context.arguments.fpath
    if fpath and not any(map(os.path.exists, fpath)):
        raise UsageError("--fpath: none of these directories is there")
    socket = find_socket(context.socket_path)
    path = _find_function(without_farms(socket, fpath or zsh.fpath), name)
    with context.open_cache(zsh.producer) as cache:
        entry = cache.get_entry(name)
    if entry is None and path is None:
        return
    verdict = _Verdict("function", str(zsh.producer), [name], entry)
    if entry is None:
        verdict.reasons.append(Difference(name, "entry", None, path))
    else:
        verdict.reasons += _judge_bytecode(entry, zsh, path)
    yield verdict


def _judge_bytecode(entry: Entry, zsh: Zsh, path: str | None) -> Iterator[Difference]:
    if (entry.binary_mtime_ns or 0) < zsh.mtime_ns:
        stored, now = str(entry.binary_mtime_ns), str(zsh.mtime_ns)
        yield Difference(zsh.real, "binary_mtime_ns", stored, now)
    if entry.fingerprint is None:
        yield Difference("fingerprint", "fingerprint", None, path)
    else:
        yield from _compare(entry.fingerprint, path)


def _find_function(fpath: Sequence[str], name: str) -> str | None:
    paths = (os.path.join(directory, name) for directory in fpath)
    return next(filter(os.path.isfile, paths), None)


def _judge_outputs(context: Context, words: list[str]) -> Iterator[_Verdict]:
    with context.open_cache(TOOL_OUTPUT) as cache:
        for name, _ in cache.names():
            kind, _, rest = name.partition("\0")
            if kind == UNKEPT:
                continue
            shell, _, stored = rest.partition("\0")
            question = Question()
            question.words = stored.split("\0")
            entry = cache.get_entry(name) if _is_meant(question, words) else None
            if entry is not None:
                verdict = _Verdict(kind, shell, question.words, entry)
                verdict.reasons += _judge_output(entry, question)
                yield verdict


def _is_meant(question: Question, words: list[str]) -> bool:
    """Tell whether a stored question is this one, or one of a tool that was named alone."""
    if len(words) > 1:
        return question.words == words
    tool = os.path.basename(question.tool).removesuffix("_completer")
    return words[0] in (tool, question.tool)


def _judge_output(entry: Entry, question: Question) -> list[Difference]:
    if entry.fingerprint is None:
        return [Difference("fingerprint", "fingerprint", None, None)]
    path = question.find_program(os.environ)
    found = _compare(entry.fingerprint, path, found_as=path)
    return found or ([Difference(question.tool, "program", None, None)] if path is None else [])


def _compare(
    fingerprint: bytes, path: str | None, *, found_as: str | None = None
) -> list[Difference]:
    try:
        return differences(fingerprint, os.environ, program=path, found_as=found_as)
    except ValueError:
        # Another client's, of a form of its own.
        return [Difference("fingerprint", "fingerprint", repr(fingerprint), None)]


def _judge_age(verdict: _Verdict, max_age: int | None) -> None:
    if verdict.entry is None or max_age is None:
        return
    age = (time.time_ns() - (verdict.entry.cached_at_ns or 0)) // _SECOND
    if not 0 <= age <= max_age:
        verdict.reasons.append(Difference("age", "age", f"{age}", f"{max_age}"))


def _say(context: Context, verdict: _Verdict) -> None:
    paint = context.palette.good if verdict.is_fresh else context.palette.bad
    words = make_printable(" ".join(verdict.words))
    word = "is used" if verdict.is_fresh else "is not used"
    asked_by = f"{verdict.what} {verdict.shell}".rstrip()
    context.say(f"{asked_by}: {words}: {paint(word)}")
    if verdict.entry is not None:
        age = format_ago(time.time_ns() - (verdict.entry.cached_at_ns or 0))
        context.say(f"  stored {age}, {format_size(len(verdict.entry.blob))}")
    for reason in verdict.reasons:
        context.say(f"  {make_printable(_explain(reason))}")


def _explain(reason: Difference) -> str:
    match reason:
        case Difference(subject, "path", _, None):
            return f"{subject}: it is not there any more"
        case Difference(subject, "path", None, _):
            return f"{subject}: it was not there"
        case Difference(subject, "path", _, now):
            return f"path: it was {subject}, it is {now}"
        case Difference(subject, "variable", stored, now):
            return f"${subject}: it was {_quote(stored)}, it is {_quote(now)}"
        case Difference(subject, "program", _, _):
            return f"{subject}: no program of that name is found now, or only a shim"
        case Difference(_, "entry", _, path):
            return f"it is not cached; the function is {path}"
        case Difference(_, "age", age, _) if age is not None and age.startswith("-"):
            return "it is from later than now, and --max-age was given"
        case Difference(_, "age", age, limit):
            return f"it is {age} s old, more than {limit}"
        case Difference(_, "fingerprint", None, _):
            return "it was stored without a fingerprint"
        case Difference(_, "fingerprint", stored, _):
            return f"its fingerprint is of another form: {stored:.80}"
        case Difference(subject, "binary_mtime_ns", stored, now):
            return f"{subject} is newer than the one that compiled it: {now}, not {stored}"
        case _:
            return f"{reason.subject}: its {reason.part} was {reason.stored}, it is {reason.now}"


def _quote(value: str | None) -> str:
    return "not set" if value is None else repr(value)


def _as_map(verdict: _Verdict) -> dict[str, object]:
    entry = verdict.entry
    return {
        "what": verdict.what,
        "shell": verdict.shell,
        "words": verdict.words,
        "cached": entry is not None,
        "fresh": verdict.is_fresh,
        "cached_at_ns": None if entry is None else entry.cached_at_ns,
        "blob_bytes": None if entry is None else len(entry.blob),
        "reasons": [asdict(reason) for reason in verdict.reasons],
    }
