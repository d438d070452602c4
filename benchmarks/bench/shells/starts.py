"""An interactive start of zsh: from spawning it to its prompt, ready for input."""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING, ClassVar

from bench.setting import in_turn
from bench.verdicts import Goal, PeerFailedError

from .comparing import Comparison
from .place import Place
from .terminals import start_zsh

if TYPE_CHECKING:
    from bench.setting import Setting
    from bench.verdicts import Figures

STARTS = 5
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


class ZshStart:
    """Goal 4: with 8 tool inits, against none."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=4, what="zsh, start with 8 tool inits, against none", unit="ms",
             ours=CACHED, peer=NONE, at_most=1.15, plus=10),
    )  # fmt: skip
    COMPARISONS: ClassVar[tuple[Comparison, ...]] = (
        Comparison(what="zsh, start without inits", before=NONE, after=NONE_OURS),
        Comparison(what="zsh, start with 8 tool inits", before=EVAL, after=CACHED, goal=GOALS[0],
                   wanted="1.15 of none + 10 ms"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start each kind once: the tools' output is cached then, and the functions published."""
        self._times = setting.times(STARTS)
        self._place = Place(setting, "zsh-start")
        try:
            self._place.zsh(self._place.compinit)
            self._place.publish()
            plain = "\n".join(f'eval "$({init})"' for init in INITS)
            cached = "\n".join(f"autoloadd-eval {init}" for init in INITS)
            self._files = {
                NONE: self._place.compinit,
                NONE_OURS: f"{self._place.plugin}\n{self._place.compinit}",
                EVAL: f"{self._place.compinit}\n{plain}",
                CACHED: f"{self._place.plugin}\n{self._place.compinit}\n{cached}",
            }
            self._expected: dict[str, str] = {}
            for kind in self._files:
                self._time(kind)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the daemon: no shell is open."""
        self._place.close()

    def run_round(self, number: int, figures: Figures) -> None:
        """Start each kind in turn; a round's figure is the median."""
        taken: dict[str, list[float]] = {kind: [] for kind in self._files}
        for again in range(self._times):
            for kind in in_turn(tuple(self._files), number + again):
                taken[kind].append(self._time(kind))
        for kind, times in taken.items():
            figures.add(kind, median(times))
        self._place.check_daemon()

    def _time(self, kind: str) -> float:
        """Start a shell; return the ms. Raises PeerFailedError unless it has what it must have."""
        directory = self._place.directory / "start"
        shell = start_zsh(directory, f"{self._files[kind]}\n{_SHOW}", self._place.environment)
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
