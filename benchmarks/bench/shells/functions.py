"""zsh's functions: out of the published file, and from their sources."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar

from bench.setting import medians_in_turn
from bench.verdicts import CannotMeasureError, Goal, PeerFailedError

from .comparing import Comparison
from .place import InPlace
from .terminals import start_zsh

if TYPE_CHECKING:
    from pathlib import Path

    from bench.verdicts import Figures

FUNCTIONS = 500

SOURCED = "zsh, 500 functions sourced, ms"
COMPILED = "zsh, 500 functions out of the farm, ms"
PLAIN = "zsh, first git TAB, ms"
PUBLISHED = "zsh, first git TAB, functions published, ms"

# A file of fpath holds what stands between a function's braces. Of files whose functions zsh makes
# otherwise (they define themselves when they are first run) `source` is no equal.
_SELECT = r"""
cd $1
for file in $^fpath/[A-Za-z_]*(N-.:A); do
  name=${file:t}
  [[ $name == [[:alnum:]_-]## && $name != *.zwc && ! -e fpath/$name ]] || continue
  print -r -- "$name () {"$'\n'"$(<$file)"$'\n'"}" >| one
  unfunction -- $name
  { source ./one && sourced=$functions[$name] && unfunction -- $name &&
    autoload -Uz +X $file && [[ $functions[$name] == $sourced ]] && unfunction -- $name
  } || continue
  cp -p $file fpath/$name && mv one sources/$name
  (( ++count < $2 )) || break
done 2>/dev/null
print $count
"""
_LOAD = r"""
zmodload zsh/datetime
names=( ${(f)"$(<$1/names)"} )
files=( $1/sources/$^names )
fpath=( ${=3} )
if [[ $2 == source ]]; then
  started=$EPOCHREALTIME
  for file in $files; do source $file; done
else
  started=$EPOCHREALTIME
  autoload -Uz $names
  autoload +X $names
fi
taken=$(( (EPOCHREALTIME - started) * 1e3 ))
functions -- $names >| $1/loaded
print -r -- $taken
"""


class Functions(InPlace):
    """Goal 5: 500 functions, loaded in a new zsh; timed by zsh itself."""

    NAME = "functions"
    TIMES = 5
    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=5, what="zsh, 500 functions, against source", unit="ms",
             ours=COMPILED, peer=SOURCED, at_most=0.1),
    )  # fmt: skip
    COMPARISONS: ClassVar[tuple[Comparison, ...]] = (
        Comparison(what="zsh, 500 functions loaded", before=SOURCED, after=COMPILED,
                   goal=GOALS[0], wanted="1/10"),
    )  # fmt: skip

    def start(self) -> None:
        """Choose the functions among zsh's own, and publish them."""
        directory = self._select()
        farm = self.place.publish(str(directory / "fpath"))
        self._fpath = {
            SOURCED: "",
            COMPILED: f"{farm.parent}/completions {farm} {directory}/fpath",
        }
        self._load(SOURCED)
        self._expected = _digest(directory / "loaded")

    def run_round(self, number: int, figures: Figures) -> None:
        """Load them in new shells, in turn; a round's figure is the median."""
        taken = medians_in_turn(self._fpath, self._time, number=number, times=self.times)
        figures.add_all(taken)

    def _select(self) -> Path:
        """Lay out the functions, to be sourced and for fpath; return where."""
        directory = self.place.directory
        for name in ("fpath", "sources"):
            (directory / name).mkdir()
        (directory / "select").write_text(_SELECT)
        (directory / "load").write_text(_LOAD)
        found = self.place.zsh(
            f"setopt extended_glob; set -- {directory} {FUNCTIONS}; source {directory}/select"
        )
        if int(found) != FUNCTIONS:
            raise CannotMeasureError(f"zsh has {found} functions here, not {FUNCTIONS}")
        names = sorted(path.name for path in (directory / "fpath").iterdir())
        (directory / "names").write_text("\n".join(names))
        return directory

    def _time(self, kind: str) -> float:
        """Return the ms. Raises PeerFailedError unless all are what they must be."""
        taken = self._load(kind)
        if _digest(self.place.directory / "loaded") != self._expected:
            raise PeerFailedError(f"{kind}: other functions than the sources have")
        return taken

    def _load(self, kind: str) -> float:
        how = "source" if kind == SOURCED else "autoload"
        directory = self.place.directory
        arguments = f"{directory} {how} '{self._fpath[kind]}'"
        return float(self.place.zsh(f"set -- {arguments}; source {directory}/load"))


class FirstGitTab(InPlace):
    """The first TAB behind git in a new shell: zsh reads a function of 300 kB for it."""

    NAME = "git-tab"
    TIMES = 3
    GOALS: ClassVar[tuple[Goal, ...]] = ()
    COMPARISONS: ClassVar[tuple[Comparison, ...]] = (
        Comparison(what="zsh, first git TAB", before=PLAIN, after=PUBLISHED),
    )
    _LINE, _COMPLETED = "git checkou", "git checkout"

    def start(self) -> None:
        """Publish the functions of zsh's own fpath, which are not compiled there."""
        fpath = self.place.copy_functions()
        self.place.publish(*fpath)
        first, last = f"fpath=({' '.join(fpath)})", self.place.compinit
        self._files = {
            PLAIN: f"{first}\n{last}",
            PUBLISHED: f"{first}\n{self.place.plugin}\n{last}",
        }
        for kind in self._files:
            self._time(kind)

    def run_round(self, number: int, figures: Figures) -> None:
        """Press TAB in new shells, in turn; a round's figure is the median."""
        taken = medians_in_turn(self._files, self._time, number=number, times=self.times)
        figures.add_all(taken)
        self.place.check_daemon()

    def _time(self, kind: str) -> float:
        directory = self.place.directory / "git"
        shell = start_zsh(directory, self._files[kind], self.place.environment)
        try:
            return shell.time_tab(self._LINE, self._COMPLETED)
        finally:
            shell.end()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
