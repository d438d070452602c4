"""An interactive start of zsh: from spawning it to its prompt, ready for input."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from bench.setting import medians_in_turn
from bench.verdicts import Goal, PeerFailedError

from .comparing import Comparison
from .place import InPlace
from .terminals import start_zsh

if TYPE_CHECKING:
    from bench.verdicts import Figures

INITS = (
    "env _FLASK_COMPLETE=zsh_source flask",
    "env _BLACK_COMPLETE=zsh_source black",
    "env _UVICORN_COMPLETE=zsh_source uvicorn",
    "env _TYPER_COMPLETE=source_zsh typer",
    "env _HATCH_COMPLETE=zsh_source hatch",
    "npm completion",
    "pip completion --zsh",
    "register-python-argcomplete --shell zsh pipx",
)
"""What these tools' manuals have users write in .zshrc, each as eval "$(...)"."""

NONE = "zsh start, no inits, ms"
NONE_OURS = "zsh start, no inits, with the plugin, ms"
EVAL = "zsh start, 8 inits, eval, ms"
CACHED = "zsh start, 8 inits, autoloadd-eval, ms"

_SHOW = r"""
shown() {
  {
    functions -- ${(ok)functions:#(_|)autoloadd*}; alias; setopt; zstyle -L; bindkey -L; zle -lL
    typeset -p _comps _patcomps _postpatcomps; export; trap; umask
  } >| $ZDOTDIR/shown
}
"""
_OURS = re.compile(
    r"_autoloadd_tab \S+ |^(alias )?autoloadd-eval=.*\n|^\tbuiltin autoload -\w+ /.*\n",
    re.MULTILINE,
)
_QUOTED = re.compile(r"'(_\w+)'")
_VOLATILE = re.compile(r"^(ZDOTDIR|SHLVL|OLDPWD|_)=.*\n", re.MULTILINE)


class ZshStart(InPlace):
    """Goal 4: with 8 tool inits, against none."""

    NAME = "zsh-start"
    TIMES = 5
    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=4, what="zsh, start with 8 tool inits, against none", unit="ms",
             ours=CACHED, peer=NONE, at_most=1.15, plus=10),
    )  # fmt: skip
    COMPARISONS: ClassVar[tuple[Comparison, ...]] = (
        Comparison(what="zsh, start without inits", before=NONE, after=NONE_OURS),
        Comparison(what="zsh, start with 8 tool inits", before=EVAL, after=CACHED, goal=GOALS[0],
                   wanted="1.15 of none + 10 ms"),
    )  # fmt: skip

    def start(self) -> None:
        """Start each kind once: the tools' output is cached then, and the functions published."""
        self.place.zsh(self.place.compinit)
        self.place.publish()
        plain = "\n".join(f'eval "$({init})"' for init in INITS)
        cached = "\n".join(f"autoloadd-eval {init}" for init in INITS)
        self._files = {
            NONE: self.place.compinit,
            NONE_OURS: f"{self.place.plugin}\n{self.place.compinit}",
            EVAL: f"{self.place.compinit}\n{plain}",
            CACHED: f"{self.place.plugin}\n{self.place.compinit}\n{cached}",
        }
        self._expected: dict[str, str] = {}
        for kind in self._files:
            self._time(kind)

    def run_round(self, number: int, figures: Figures) -> None:
        """Start each kind in turn; a round's figure is the median."""
        taken = medians_in_turn(self._files, self._time, number=number, times=self.times)
        figures.add_all(taken)
        self.place.check_daemon()

    def _time(self, kind: str) -> float:
        """Start a shell; return the ms. Raises PeerFailedError unless it has what it must have."""
        directory = self.place.directory / "start"
        shell = start_zsh(directory, f"{self._files[kind]}\n{_SHOW}", self.place.environment)
        try:
            shell.run("shown")
        finally:
            shell.end()
        shown = _plain((directory / "shown").read_text(errors="replace"))
        as_without = NONE if kind in (NONE, NONE_OURS) else EVAL
        expected = self._expected.setdefault(as_without, shown)
        if shown != expected:
            raise PeerFailedError(f"{kind}: another shell than without: {_first(expected, shown)}")
        return shell.start_ms


def _plain(shown: str) -> str:
    """Return what a shell is like, without what is autoloadd's or differs each time."""
    return _QUOTED.sub(r"\1", _VOLATILE.sub("", _OURS.sub("", shown)))


def _first(expected: str, shown: str) -> str:
    pairs = zip(expected.splitlines(), shown.splitlines(), strict=False)
    return next((f"{a[:200]!r}, {b[:200]!r}" for a, b in pairs if a != b), "one has more lines")
