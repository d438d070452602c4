"""What the two programs take on their command lines, read from their parsers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from autoloadd_client.cli.run import make_parser as make_client_parser
from autoloadd_daemon.config import make_parser as make_daemon_parser
from autoloadd_daemon.log import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable


class Kind(Enum):
    """What a TAB offers for a value."""

    NOTHING = "nothing"
    WORDS = "words"
    FILE = "file"
    DIRECTORY = "directory"
    ENTRY = "entry"
    SHARD = "shard"
    PRODUCER = "producer"
    VARIABLE = "variable"
    PROCESS = "process"
    COMMAND = "command"
    ENTRY_OR_COMMAND = "entry_or_command"
    COMMAND_LINE = "command_line"


_BY_METAVAR = {
    **dict.fromkeys(("SECONDS", "NS", "N", "AGE", "SIZE", "NAME/VERSION"), Kind.NOTHING),
    **dict.fromkeys(("PATH", "FILE"), Kind.FILE),
    **dict.fromkeys(("NAME", "PREFIX"), Kind.ENTRY),
    **dict.fromkeys(("ID", "SHARD"), Kind.SHARD),
    "DIR": Kind.DIRECTORY,
    "NAME/VERSION/WIDTH[/BUILD]": Kind.PRODUCER,
    "PID": Kind.PROCESS,
    "TOOL ARGS...": Kind.COMMAND,
    "NAME | TOOL ARGS": Kind.ENTRY_OR_COMMAND,
}

_BY_OPTION = {"--env": Kind.VARIABLE}
"""Where the metavar stands for something else elsewhere."""

_WORDS = {"LEVEL": tuple(LEVELS), "zsh": ("zsh",)}
"""Metavars whose words the parser leaves to the command."""

_FIRST_WORDS = {"import": ("zshrs",), "export": ("zshrs",)}
"""Words that may stand before a command's first operand."""


@dataclass(frozen=True)
class Value:
    """What an option or an operand takes: `metavar` names it, `many` says that more may follow."""

    metavar: str
    kind: Kind
    words: tuple[str, ...]
    many: bool


@dataclass(frozen=True)
class Option:
    """An option; one without `value` is a switch. `rivals` cannot stand beside it."""

    flags: tuple[str, ...]
    text: str
    value: Value | None
    repeats: bool
    rivals: tuple[str, ...]

    @property
    def ends(self) -> bool:
        """Whether it is all that is done: --help, --version."""
        return self.flags[-1] in ("--help", "--version")


@dataclass(frozen=True)
class Operand:
    """An operand. `place` is its number from 0 on, `*` for all from there on."""

    place: str
    text: str
    value: Value
    may_miss: bool


@dataclass(frozen=True)
class Command:
    """A command, or a program's own part. `usage`, `description`, `epilog` as in its help."""

    name: str
    summary: str
    usage: str
    description: str
    epilog: str
    options: tuple[Option, ...]
    operands: tuple[Operand, ...]
    first_words: tuple[str, ...]

    @property
    def ends_options(self) -> bool:
        """Whether all behind the first operand belongs to another program."""
        return any(operand.value.kind is Kind.COMMAND for operand in self.operands)


@dataclass(frozen=True)
class Program:
    """A program: its own options in `top`, and its commands, where it has some."""

    name: str
    top: Command
    commands: tuple[Command, ...]

    def everything(self) -> tuple[Command, ...]:
        """Return the program's own part and all its commands."""
        return (self.top, *self.commands)

    def valued_options(self) -> dict[str, Value]:
        """Return what each option takes that takes a value, whatever the command.

        Raises ValueError for one that takes this here and that there: the completions of bash and
        fish do not tell them apart.
        """
        found: dict[str, Value] = {}
        for command in self.everything():
            for option in command.options:
                if option.value is None:
                    continue
                flag = option.flags[-1]
                if found.setdefault(flag, option.value) != option.value:
                    raise ValueError(f"{flag} takes something else in `{command.name}`")
        return found


def both_programs() -> tuple[Program, Program]:
    """Return autoloadctl and autoloadd."""
    return _read_program(make_client_parser()), _read_program(make_daemon_parser())


def _read_program(parser: argparse.ArgumentParser) -> Program:
    commands: list[Command] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                commands.append(_read_command(name, summaries[name], sub))
    top = _read_command(parser.prog, parser.description or "", parser)
    return Program(parser.prog, top, tuple(commands))


def _read_command(name: str, summary: str, parser: argparse.ArgumentParser) -> Command:
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    own = [action for action in actions if not isinstance(action, argparse._SubParsersAction)]
    rivals = _find_rivals(parser)
    return Command(
        name=name,
        summary=summary,
        usage=parser.usage or f"{name} [OPTION]...",
        description=(parser.description or "").strip(),
        epilog=(parser.epilog or "").strip("\n"),
        options=tuple(_read_option(action, rivals) for action in own if action.option_strings),
        operands=tuple(_read_operands(action for action in own if not action.option_strings)),
        first_words=_FIRST_WORDS.get(name, ()),
    )


def _find_rivals(parser: argparse.ArgumentParser) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for group in parser._mutually_exclusive_groups:
        flags = tuple(flag for action in group._group_actions for flag in action.option_strings)
        found.update(dict.fromkeys(flags, flags))
    return found


def _read_option(action: argparse.Action, rivals: dict[str, tuple[str, ...]]) -> Option:
    flag = action.option_strings[-1]
    return Option(
        flags=tuple(action.option_strings),
        text=_expand(action),
        value=None if action.nargs == 0 else _read_value(action),
        repeats=isinstance(action, argparse._AppendAction),
        rivals=tuple(other for other in rivals.get(flag, ()) if other != flag),
    )


def _read_operands(actions: Iterable[argparse.Action]) -> Iterable[Operand]:
    for number, action in enumerate(actions):
        value = _read_value(action)
        may_miss = action.nargs in ("?", "*")
        yield Operand("*" if value.many else str(number), _expand(action), value, may_miss)


def _read_value(action: argparse.Action) -> Value:
    words = tuple(str(choice) for choice in action.choices or ())
    metavar = action.metavar if isinstance(action.metavar, str) else "|".join(words)
    words = words or _WORDS.get(metavar, ())
    many = action.nargs in ("*", "+", argparse.REMAINDER)
    return Value(metavar, Kind.WORDS if words else _find_kind(action, metavar), words, many)


def _find_kind(action: argparse.Action, metavar: str) -> Kind:
    for flag in action.option_strings:
        if flag in _BY_OPTION:
            return _BY_OPTION[flag]
    if metavar not in _BY_METAVAR:
        raise ValueError(f"what does a TAB offer for {metavar}? Say so in {__file__}")
    return _BY_METAVAR[metavar]


def _expand(action: argparse.Action) -> str:
    """Return an option's help as argparse prints it."""
    values = {**vars(action), "prog": "autoloadctl"}
    text = (action.help or "") % values
    return {"show program's version number and exit": "show the version and exit"}.get(text, text)
