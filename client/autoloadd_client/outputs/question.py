"""What is asked when a shell wants a tool's output: the entry's name, and its fingerprint.

name         KIND NUL SHELL/VERSION NUL WORD NUL WORD ...
fingerprint  the program's canonical text, `PATH NUL` where it was found at another path than its
             real one (absolute, links not followed), then `NAME=value NUL` for each variable
             (`NAME NUL` where it is not set), then each file's canonical text (`path NUL NUL NUL
             NUL` where there is none)

The zsh plugin makes the same of the same question. A shell waits for this: nothing heavy is loaded.
"""

from __future__ import annotations

import os

from autoloadd_client.shells.fingerprint import fingerprint_file
from autoloadd_protocol.limits import FINGERPRINT_BYTES, NAME_BYTES

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EVAL = "eval"
COMPLETE = "complete"

UNKEPT = "unkept"
"""An entry `unkept NUL NAME` says that the last run for NAME failed, or wrote to stderr."""

_OPTIONS = ("--max-age", "--env", "--file", "--shell", "--kind", "--status", "--pid", "--packages")
_PACKAGES = ("site", "dist")
_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class QuestionError(Exception):
    """The options cannot be understood. The message is for the user."""


class Question:
    """A tool with its arguments, and what its output depends on.

    `words` is `TOOL ARGS...` or `env NAME=VALUE... TOOL ARGS...`. `max_age` is in seconds, None for
    any. `status` is the exit status of a run that may be kept. `asker` is the shell's process id.
    """

    __slots__ = (
        "asker", "files", "has_packages", "kind", "max_age", "shell", "status", "variables",
        "words",
    )  # fmt: skip

    def __init__(self) -> None:
        self.kind = EVAL
        self.shell = ""
        self.words: list[str] = []
        self.max_age: int | None = None
        self.variables: list[str] = []
        self.files: list[str] = []
        self.has_packages = False
        self.status = 0
        self.asker = os.getppid()

    @property
    def name(self) -> str | None:
        """The entry's name; None for what no name can hold: then it is not cached."""
        name = "\0".join((self.kind, self.shell, *self.words))
        try:
            return name if len(name.encode()) <= NAME_BYTES else None
        except UnicodeEncodeError:
            return None

    def fingerprint(self, program: str, environment: Mapping[str, str]) -> bytes | None:
        """Return the fingerprint as it is now; None where it is longer than one can be.

        Raises OSError where the program is gone, or the directory that we are in.
        """
        texts = [fingerprint_file(program)]
        # A program may do something else for each of its names.
        found = os.path.abspath(program)
        if found != os.path.realpath(program):
            texts.append(os.fsencode(found) + b"\0")
        for variable in self.variables:
            value = environment.get(variable)
            text = variable if value is None else f"{variable}={value}"
            texts.append(os.fsencode(text) + b"\0")
        texts += [_describe_file(os.path.abspath(file)) for file in self.files]
        if self.has_packages:
            texts += map(_describe_file, _find_packages(program))
        fingerprint = b"".join(texts)
        return fingerprint if len(fingerprint) <= FINGERPRINT_BYTES else None

    def find_program(self, environment: Mapping[str, str]) -> str | None:
        """Return the file that the words run; None where none is found, or it must not be cached.

        A version manager's shim is none: which program it runs depends on more than can be seen.
        So does what a word like `/dev/fd/63` gives to it: bash has that for `<(COMMAND)`.
        """
        tool = self.tool
        if not tool or any(place in word for word in self.words for place in _DESCRIPTORS):
            return None
        path = find_in_path(tool, environment)
        if path is None or _is_shim(os.path.abspath(path)) or _is_shim(os.path.realpath(path)):
            return None
        return path

    @property
    def tool(self) -> str:
        """The word that names the program; empty where there is none, or `env` decides which."""
        if not self.words or not _is_env(self.words[0]):
            return self.words[0] if self.words else ""
        for word in self.words[1:]:
            name, equals, _ = word.partition("=")
            if not equals:
                return "" if word.startswith("-") or _is_env(word) else word
            if name == "PATH" or not (name.isascii() and name.isidentifier()):
                return ""
        return ""


def read_question(arguments: Sequence[str]) -> Question:
    """Read `[OPTION...] [--] TOOL ARGS...`; what follows TOOL is TOOL's. Raises QuestionError."""
    question = Question()
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        option, equals, value = arguments[position].partition("=")
        position += 1
        if arguments[position - 1] == "--":
            break
        if option not in _OPTIONS:
            raise QuestionError(f"{option}: no such option; see `autoloadctl cached --help`")
        if not equals:
            if position == len(arguments):
                raise QuestionError(f"{option}: its value is missing")
            value = arguments[position]
            position += 1
        _set_option(question, option, value)
    question.words = list(arguments[position:])
    if not question.words:
        raise QuestionError("which tool? Give TOOL and its arguments behind the options")
    return question


def read_age(text: str) -> int:
    """Return an age in seconds: 90, 90s, 15m, 12h, 7d. Raises QuestionError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdigit()):
        raise QuestionError(f"--max-age {text}: give 90 or 90s, 15m, 12h, 7d")
    return int(number) * _UNITS[unit]


def _set_option(question: Question, option: str, value: str) -> None:
    match option:
        case "--max-age":
            question.max_age = read_age(value)
        case "--env" if value and "=" not in value:
            question.variables.append(value)
        case "--file":
            question.files.append(value)
        case "--shell":
            question.shell = value
        case "--kind" if value in (EVAL, COMPLETE):
            question.kind = value
        case "--status" if value.isascii() and value.isdigit():
            question.status = int(value)
        case "--packages" if value == "python":
            question.has_packages = True
        case "--pid" if value.isascii() and value.isdigit():
            question.asker = int(value)
        case _:
            raise QuestionError(f"{option} {value}: see `autoloadctl cached --help`")


def find_in_path(tool: str, environment: Mapping[str, str]) -> str | None:
    """Return the file that a shell runs for a word; None: there is none."""
    if "/" in tool:
        return tool if _is_program(tool) else None
    path = environment.get("PATH", os.defpath)
    candidates = (f"{directory or '.'}/{tool}" for directory in path.split(":"))
    return next(filter(_is_program, candidates), None)


def _find_packages(program: str) -> list[str]:
    """Return where the Python of a program finds its packages, as venvs and systems have it."""
    base = os.path.dirname(os.path.dirname(os.path.realpath(program))) + "/lib"
    try:
        versions = sorted(name for name in os.listdir(base) if name.startswith("python3"))
    except OSError:
        return []
    places = (f"{base}/{version}/{kind}-packages" for version in versions for kind in _PACKAGES)
    return list(filter(os.path.isdir, places))


def _is_env(word: str) -> bool:
    return os.path.basename(word) == "env"


def _is_shim(path: str) -> bool:
    return "/shims/" in path


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and os.path.isfile(path)


def _describe_file(path: str) -> bytes:
    try:
        return fingerprint_file(path)
    except OSError:
        return os.fsencode(path) + b"\0\0\0\0"
