"""The manual pages and completions: made from the parsers as they are, and readable by man."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoloadd_client.cli.run import make_parser as make_client_parser
from autoloadd_daemon.config import make_parser as make_daemon_parser
from autoloadd_daemon.config import unknown_variables

ROOT = Path(__file__).parents[2]
PAGES = ("autoloadctl.1", "autoloadd.1")
SECTIONS = [
    "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES",
    "EXAMPLES", "SEE ALSO",
]  # fmt: skip


def render(page: str, *options: str) -> str:
    """Return what a reader sees, on lines so long that none is broken. Nothing is complained of."""
    ran = subprocess.run(
        ["groff", "-man", "-ww", "-Tascii", "-rLL=4000n", "-P-c", "-P-b", "-P-u", *options,
         ROOT / "docs/man" / page],
        capture_output=True, check=True,
    )  # fmt: skip
    assert ran.stderr == b""
    return ran.stdout.decode()


def collect(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return a parser and those of its commands."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.values()
    return found


def test_the_files_are_what_the_parsers_say() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "scripts.from_parsers", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("page", PAGES)
def test_groff_has_nothing_to_complain_of_at_any_width(page: str) -> None:
    lines = render(page).splitlines()
    headings = [line for line in lines if line[:1].isalpha()][1:-1]
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    for width in ("60n", "80n"):
        assert render(page, f"-rLL={width}")


def squeeze(text: str) -> str:
    """Return a text without what setting it changes: blanks, line ends, marks of code."""
    return "".join(text.replace("`", "").split())


def blocks_of(text: str) -> list[str]:
    """Return the blocks of a help's text, each without its heading, which may be another one."""
    return [re.sub(r"^[a-z ]+:", "", block) for block in text.strip().split("\n\n")]


@pytest.mark.parametrize(
    ("page", "parser"), [(PAGES[0], make_client_parser()), (PAGES[1], make_daemon_parser())]
)
def test_a_page_says_all_that_help_says(page: str, parser: argparse.ArgumentParser) -> None:
    text = squeeze(render(page))
    for part in collect(parser):
        # The headings of commands leave the program's name out.
        assert squeeze((part.usage or "").removeprefix("autoloadctl ")) in text
        for block in (*blocks_of(part.description or ""), *blocks_of(part.epilog or "")):
            assert squeeze(block) in text
        for action in part._actions:
            if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
                continue
            said = squeeze((action.help or "").replace("program's version number", "the version"))
            value = action.metavar if action.option_strings and action.metavar else ""
            assert squeeze(f"{', '.join(action.option_strings)}{value}") in text
            assert said in text


@pytest.mark.parametrize("page", PAGES)
def test_an_example_can_be_copied_wherever_it_is_shown(page: str) -> None:
    # Debian's groff shows these as they are; others make quotes and hyphens of them that no shell
    # knows, unless they are escaped.
    source = (ROOT / "docs/man" / page).read_text()
    examples = re.findall(r"^\.EX\n(.*?)^\.EE\n", source, re.DOTALL | re.MULTILINE)
    assert examples
    for line in "".join(examples).splitlines():
        assert not set(re.sub(r"\\(\(..|.)", "", line)) & set("'`~^-"), line


def test_the_variables_are_those_that_the_daemon_knows() -> None:
    section = render("autoloadd.1").partition("\nENVIRONMENT\n")[2].partition("\nFILES\n")[0]
    named = [word for word in section.split() if word.startswith("AUTOLOADD_")]
    assert len(named) == 6
    assert unknown_variables(dict.fromkeys(named, "")) == []


def test_man_finds_the_page_and_shows_its_name() -> None:
    shown = subprocess.run(
        ["man", "--local-file", ROOT / "docs/man/autoloadd.1"],
        capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )  # fmt: skip
    assert "autoloadd - a cache daemon, one per user" in shown.stdout
    assert shown.stderr == ""
