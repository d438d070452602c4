"""A program's manual page, for man: groff's or mandoc's."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import TYPE_CHECKING

from autoloadd_protocol import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .commands import Command, Option, Program

_DESCRIPTIONS = {
    "autoloadctl": """
Options may stand before the command, and before, between and behind its operands; behind `--`
everything is an operand. Only `cached` leaves all behind its first operand to the tool that it
runs. `autoloadctl help COMMAND` shows what this page says of a command.

What is read or changed are the entries of one producer: a shell, its version, and the width of its
pointers. Where only one has entries, it need not be named.
""",
    "autoloadd": """
It serves a Unix socket, keeps what shells store there, in memory and on disk, and hands it to every
shell of the same user. autoloadctl(1) talks to it; `autoloadctl shell install zsh` (or bash, or
fish) has a shell ask it by itself.

It stays in the foreground. `systemctl --user enable --now autoloadd.socket` has systemd start it
when the first shell asks.
""",
}
"""What stands behind the parser's own description."""

_FILES = """
  /run/user/UID/autoloadd/socket    The socket. Where there is no such directory:
                                    `$XDG_RUNTIME_DIR/autoloadd/socket`, or `run/socket` in the
                                    default cache directory.
  ~/.cache/autoloadd                What is cached, a directory for each producer; in
                                    `$XDG_CACHE_HOME` if that is set.
  ~/.config/autoloadd/config.toml   The daemon's configuration; in `$XDG_CONFIG_HOME` if that is
                                    set.
"""

_SEE_ALSO = {
    "autoloadctl": (("autoloadd", 1), ("systemctl", 1), ("zshcompsys", 1), ("zshmisc", 1)),
    "autoloadd": (("autoloadctl", 1), ("systemd.socket", 5), ("systemctl", 1), ("zshmisc", 1)),
}

_ESCAPES = {"\\": r"\e", "-": r"\-", "`": r"\(ga", "'": r"\(aq", "~": r"\(ti", "^": r"\(ha"}
_HEADING = re.compile(r"(?P<title>[a-z][a-z ]*):(?: (?P<text>.+))?$")


def page(program: Program) -> str:
    """Return the page's source."""
    sections = _split_epilog(program.top.epilog)
    lines = [
        f'.\\" Made by scripts/manual from the parser of {program.name}.',
        f'.TH {program.name.upper()} 1 "" "autoloadd {__version__}" "User Commands"',
        ".ad l",
        ".SH NAME",
        f"{program.name} \\- {_inline(_summary(program))}",
        ".SH SYNOPSIS",
        _synopsis(program.top.usage),
        ".SH DESCRIPTION",
        *_text(f"{program.top.description}\n\n{_DESCRIPTIONS[program.name].strip()}"),
        ".SH OPTIONS",
        *_options(program.top.options),
        *_commands(program),
        *_sections(program, sections),
        ".SH SEE ALSO",
        " ,\n".join(f".BR {name} ({number})" for name, number in _SEE_ALSO[program.name]),
    ]
    return "\n".join(lines) + "\n"


def _summary(program: Program) -> str:
    text = program.top.description.rstrip(".")
    return text[0].lower() + text[1:]


def _synopsis(usage: str) -> str:
    """Return a usage line, its capitals in italics: those stand for something."""
    name, _, rest = usage.partition(" ")
    marked = re.sub(r"[A-Z]+", r"\\fI\g<0>\\fR", _code(rest))
    return f"\\fB{name}\\fR {marked}"


def _commands(program: Program) -> Iterator[str]:
    if not program.commands:
        return
    yield ".SH COMMANDS"
    everywhere = {option.flags for option in program.top.options}
    for command in program.commands:
        yield ".SS " + _synopsis(command.usage.removeprefix(f"{program.name} "))
        yield from _text(command.description)
        yield from _operands(command)
        yield from _options(option for option in command.options if option.flags not in everywhere)
        yield from _others(program, command)
        yield ".P"
        yield from _example(command.epilog.removeprefix("examples:\n"))


def _operands(command: Command) -> Iterator[str]:
    for operand in command.operands:
        if operand.text:
            yield f".TP\n\\fI{_code(operand.value.metavar)}\\fR"
            yield _prose(operand.text)


def _others(program: Program, command: Command) -> Iterator[str]:
    """Say which of the options above this command takes no notice of."""
    own = {option.flags for option in command.options}
    absent = [o for o in program.top.options if o.flags not in own and not o.ends]
    if absent:
        names = [f"`{option.flags[-1]}`" for option in absent]
        yield ".P"
        yield _prose(f"Makes no use of {', '.join(names[:-1])} and {names[-1]}.")


def _options(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        flags = ", ".join(f"\\fB{_code(flag)}\\fR" for flag in option.flags)
        value = "" if option.value is None else f" \\fI{_code(option.value.metavar)}\\fR"
        more = "..." if option.value and option.value.many else ""
        yield f".TP\n{flags}{value}{more}"
        yield _prose(option.text)


def _sections(program: Program, sections: dict[str, list[str]]) -> Iterator[str]:
    examples = sections.pop("EXAMPLES")
    if not program.commands:
        sections["ENVIRONMENT"] = [_daemon_environment(program.top.options)]
    for title, blocks in sections.items():
        yield f".SH {title}"
        yield from _paragraphs(blocks)
    yield ".SH FILES"
    yield from _paragraphs([_FILES])
    yield ".SH EXAMPLES"
    for block in examples:
        yield from _example(block)


def _daemon_environment(options: Iterable[Option]) -> str:
    """Return a row for each variable: every setting has one of its name."""
    flags = [option.flags[-1] for option in options if option.value]
    names = {flag: f"AUTOLOADD_{flag[2:].replace('-', '_').upper()}" for flag in flags}
    return "\n".join(f"  {name}  as `{flag}`" for flag, name in names.items())


def _split_epilog(epilog: str) -> dict[str, list[str]]:
    """Return the blocks below each heading, `heading:` or `heading: text`, of a help's end."""
    sections: dict[str, list[str]] = {}
    title = "CONFIGURATION"
    for block in epilog.split("\n\n"):
        first, _, rest = block.partition("\n")
        match = _HEADING.match(first)
        if match:
            title = match["title"].upper()
        body = "\n".join(part for part in (match["text"], rest) if part) if match else block
        sections.setdefault(title, []).append(body)
    return sections


def _text(description: str) -> Iterator[str]:
    yield from _paragraphs(description.split("\n\n"))


def _paragraphs(blocks: Iterable[str]) -> Iterator[str]:
    """Return paragraphs: filled, or a list of rows, or as it stands where that is indented."""
    for number, block in enumerate(blocks):
        lines = block.strip("\n").split("\n")
        if not all(line.startswith("  ") for line in lines):
            yield from ([".P"] if number else [])
            yield _prose(" ".join(line.strip() for line in lines))
        elif rows := _rows(lines):
            for key, text in rows:
                yield f".TP\n\\fB{_code(key)}\\fR"
                yield _prose(text)
        else:
            yield ".P"
            yield from _example(block)


def _rows(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Return `key  text` of each line, continued by lines without a key; none where one is not."""
    found: list[tuple[str, str]] = []
    for line in lines:
        key, _, text = line[2:].partition("  ")
        if not text:
            return []
        if key:
            found.append((key, text.strip()))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {text.strip()}")
    return found


def _example(block: str) -> Iterator[str]:
    yield ".RS 4\n.EX"
    for line in block.strip("\n").split("\n"):
        yield _guard(_code(line.removeprefix("  ")))
    yield ".EE\n.RE"


def _code(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


def _prose(text: str) -> str:
    """Return a filled text, in short lines: `code` in bold, and apostrophes as they are."""
    lines = wrap(_inline(text), 80, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_guard, lines))


def _inline(text: str) -> str:
    parts = text.split("`")
    shown = [
        f"\\fB{_whole(part)}\\fR" if number % 2 else _code(part).replace(r"\(aq", "'")
        for number, part in enumerate(parts)
    ]
    return "".join(shown)


def _whole(code: str) -> str:
    """Return code whose words are never divided at a line's end."""
    return " ".join(f"\\%{_code(word)}" for word in code.split(" "))


def _guard(line: str) -> str:
    """Return a line that is text even where it begins as a request does."""
    return f"\\&{line}" if line.startswith((".", "'")) else line
