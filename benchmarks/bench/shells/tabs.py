"""TAB where the completion runs a tool: from the key to the completed line on the screen.

The shells are open all the time, and have completed each line once: what is timed is every further
TAB. Without autoloadd that makes no difference to the tool, which is started each time.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from bench.setting import medians_in_turn
from bench.verdicts import Goal

from .comparing import Comparison
from .place import SHELLS, InPlace
from .terminals import start_bash, start_fish, start_zsh

if TYPE_CHECKING:
    from pathlib import Path

    from bench.setting import Setting
    from bench.verdicts import Figures

    from .terminals import Shell

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Tab:
    """A line, what TAB makes of it, and the line of the start-up file that has it completed."""

    line: str
    completed: str
    loaded_by: str


def _compare(
    shell: str, tab: Tab, *, number: int, part: int, or_at_most: float | None = None
) -> Comparison:
    key = f"TAB in {shell}, {tab.line!r}, ms"
    goal = Goal(
        number=number, what=f"TAB in {shell}: {tab.line}", unit="ms", at_most=1 / part,
        or_at_most=or_at_most, ours=f"{key}: {AFTER}", peer=f"{key}: {BEFORE}",
    )  # fmt: skip
    wanted = f"1/{part}" if or_at_most is None else f"1/{part}, or {or_at_most:g} ms"
    return Comparison(
        what=goal.what, before=f"{key}: {BEFORE}", after=goal.ours, goal=goal, wanted=wanted
    )


class Tabs(InPlace):
    """TABs of one shell, of which one has autoloadd and the other has not."""

    TABS: ClassVar[tuple[Tab, ...]]
    COMPARISONS: ClassVar[tuple[Comparison, ...]]
    GOALS: ClassVar[tuple[Goal, ...]]
    TIMES = 5

    def __init__(self, setting: Setting) -> None:
        """Raise BenchError where it cannot be measured."""
        self._shells: dict[str, Shell] = {}
        super().__init__(setting)

    @abstractmethod
    def start_up_file(self, which: str) -> str:
        """Return what the shell without autoloadd (BEFORE), or with it, reads."""

    @abstractmethod
    def start_shell(self, directory: Path, rc: str) -> Shell:
        """Return a shell that has read `rc`."""

    def start(self) -> None:
        """Start both shells, and have each complete each line once."""
        for which in (BEFORE, AFTER):
            directory = self.place.directory / which
            self._shells[which] = self.start_shell(directory, self.start_up_file(which))
            for tab in self.TABS:
                self._time(tab, which)

    def run_round(self, number: int, figures: Figures) -> None:
        """Press TAB in each in turn; a round's figure is the median."""
        for tab, comparison in zip(self.TABS, self.COMPARISONS, strict=True):
            taken = medians_in_turn(
                self._shells, partial(self._time, tab), number=number, times=self.times
            )
            figures.add(comparison.before, taken[BEFORE])
            figures.add(comparison.after, taken[AFTER])
        self.place.check_daemon()

    def close(self) -> None:
        """End the shells and the daemon."""
        for shell in self._shells.values():
            shell.end()
        super().close()

    def _time(self, tab: Tab, which: str) -> float:
        return self._shells[which].time_tab(tab.line, tab.completed)


class ZshTabs(Tabs):
    """Goal 1: four tools in zsh."""

    NAME = "zsh-tabs"
    TABS = (
        Tab("flask rou", "flask routes", 'eval "$(_FLASK_COMPLETE=zsh_source flask)"'),
        Tab("black --fas", "black --fast", 'eval "$(_BLACK_COMPLETE=zsh_source black)"'),
        Tab("npm unins", "npm uninstall", 'eval "$(npm completion)"'),
        Tab("aws s3 sy", "aws s3 sync",
            "autoload -Uz bashcompinit; bashcompinit; complete -C aws_completer aws"),
    )  # fmt: skip
    COMPARISONS = tuple(_compare("zsh", tab, number=1, part=20, or_at_most=10) for tab in TABS)
    GOALS = tuple(each.goal for each in COMPARISONS if each.goal)

    def start(self) -> None:
        """Publish the functions before, as they are after the first shell."""
        self.place.zsh(self.place.compinit)
        self.place.publish()
        super().start()

    def start_shell(self, directory: Path, rc: str) -> Shell:
        """Return an interactive zsh."""
        return start_zsh(directory, rc, self.place.environment)

    def start_up_file(self, which: str) -> str:
        """Load the completions."""
        lines = [self.place.compinit, *(tab.loaded_by for tab in self.TABS)]
        return "\n".join(lines if which == BEFORE else [self.place.plugin, *lines])


class BashTab(Tabs):
    """Goal 2: one in bash."""

    NAME = "bash-tab"
    TABS = (Tab("flask rou", "flask routes", 'eval "$(_FLASK_COMPLETE=bash_source flask)"'),)
    COMPARISONS = tuple(_compare("bash", tab, number=2, part=6) for tab in TABS)
    GOALS = tuple(each.goal for each in COMPARISONS if each.goal)

    def start_shell(self, directory: Path, rc: str) -> Shell:
        """Return an interactive bash."""
        return start_bash(directory, rc, self.place.environment)

    def start_up_file(self, which: str) -> str:
        """Load the completion, and autoloadd behind it."""
        lines = [tab.loaded_by for tab in self.TABS]
        return "\n".join(lines if which == BEFORE else [*lines, f". {SHELLS}/autoloadd.bash"])


class FishTab(Tabs):
    """Goal 3: one in fish."""

    NAME = "fish-tab"
    TABS = (Tab("flask rou", "flask routes", "env _FLASK_COMPLETE=fish_source flask | source"),)
    COMPARISONS = tuple(_compare("fish", tab, number=3, part=6) for tab in TABS)
    GOALS = tuple(each.goal for each in COMPARISONS if each.goal)

    def start_shell(self, directory: Path, rc: str) -> Shell:
        """Return an interactive fish."""
        return start_fish(directory, rc, self.place.environment)

    def start_up_file(self, which: str) -> str:
        """Load the completion, and autoloadd behind it."""
        lines = [tab.loaded_by for tab in self.TABS]
        return "\n".join(lines if which == BEFORE else [*lines, f"source {SHELLS}/autoloadd.fish"])
