"""A real zsh in a pseudo-terminal: what is typed, and every byte that comes back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pseudo_terminal import PseudoTerminal

if TYPE_CHECKING:
    from collections.abc import Mapping

DONE = b"\x1b]done\x07"
READY = b"\x1b]ready\x07"
"""Control sequences that a terminal would pass over, printed where the shell has come to an end."""

RC = r"""
PS1='<prompt> ' PS2= RPS1= PROMPT_EOL_MARK=
unset zle_bracketed_paste
# What was listed is on the screen when the mark is printed.
tab() { zle expand-or-complete; zle -R; printf '\e]done\a' }
line() { print -r -- "<$CURSOR:$BUFFER>" >| $ZDOTDIR/line; zle kill-buffer; printf '\e]done\a' }
zle -N tab; zle -N line
bindkey '^I' tab
bindkey '^X^X' line
zle-line-init() { printf '\e]ready\a' }; zle -N zle-line-init
"""


class Terminal(PseudoTerminal):
    """An interactive zsh. Its start-up file is `rc` behind what the tests need themselves."""

    def __init__(self, directory: Path, rc: str = "", *, environment: Mapping[str, str]) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        (directory / ".zshrc").write_text(f"{rc}\n{RC}")
        child = {**environment, "ZDOTDIR": str(directory)}
        super().__init__(["zsh", "-d", "-i"], environment=child, directory=Path.cwd())
        self.startup = self.read_until(READY)

    def run(self, command: str) -> str:
        """Run a command line; return what it printed."""
        self.send(f"{command}\n")
        read = b""
        # Before this newline is the echo of what was typed; zsh may have begun its line anew.
        while b"\r\r\n" not in read:
            read += self.read_until(READY)
        printed = read.decode(errors="replace")
        plain = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\x1b[=>]", "", printed).partition("\r\r\n")[2]
        return plain.partition("<prompt>")[0].replace("\r", "")

    def interrupt(self) -> bytes:
        """Press Ctrl-C while something runs; return all until the prompt."""
        self.send("\x03")
        return self.read_until(READY)

    def tab(self, line: str) -> tuple[bytes, str]:
        """Type a line and TAB; return what the terminal was sent, and the line as it is then."""
        self.send(line)
        self.send("\t")
        shown = self.read_until(DONE)
        self.send("\x18\x18")
        self.read_until(DONE)
        return shown, (self._directory / "line").read_text()
