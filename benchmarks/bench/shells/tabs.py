"""TAB where the completion runs a tool: from the key to the completed line on the screen.

The shells are open all the time, and have completed each line once: what is timed is every further
TAB. Without autoloadd that makes no difference to the tool, which is started each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, ClassVar

from bench.setting import in_turn
from bench.verdicts import Goal

from .comparing import Comparison
from .place import SHELLS, Place
from .terminals import start_bash, start_fish, start_zsh

if TYPE_CHECKING:
    from pathlib import Path

    from bench.setting import Setting
    from bench.verdicts import Figures

    from .terminals import Shell

TABS = 5
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


class Tabs:
    """TABs of one shell, of which one has autoloadd and the other has not."""

    TABS: ClassVar[tuple[Tab, ...]]
    COMPARISONS: ClassVar[tuple[Comparison, ...]]
    GOALS: ClassVar[tuple[Goal, ...]]
    NAME: ClassVar[str]

    def __init__(self, setting: Setting) -> None:
        """Start both shells, and have each complete each line once."""
        self._times = setting.times(TABS)
        self.place = Place(setting, self.NAME)
        self._shells: dict[str, Shell] = {}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def start_up_file(self, which: str) -> str:
        """Return what the shell without autoloadd (BEFORE), or with it, reads."""
        raise NotImplementedError

    def start_shell(self, directory: Path, rc: str) -> Shell:
        """Return a shell that has read `rc`."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Do what autoloadd's user has had done by then."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Press TAB in each in turn; a round's figure is the median."""
        for tab, comparison in zip(self.TABS, self.COMPARISONS, strict=True):
            taken: dict[str, list[float]] = {which: [] for which in self._shells}
            for again in range(self._times):
                for which in in_turn(tuple(self._shells), number + again):
                    taken[which].append(self._shells[which].time_tab(tab.line, tab.completed))
            figures.add(comparison.before, median(taken[BEFORE]))
            figures.add(comparison.after, median(taken[AFTER]))
        self.place.check_daemon()

    def close(self) -> None:
        """End the shells and the daemon."""
        for shell in self._shells.values():
            shell.end()
        self.place.close()

    def _start(self) -> None:
        self.prepare()
        for which in (BEFORE, AFTER):
            directory = self.place.directory / which
            shell = self.start_shell(directory, self.start_up_file(which))
            self._shells[which] = shell
            for tab in self.TABS:
                shell.time_tab(tab.line, tab.completed)


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

    def prepare(self) -> None:
        """The functions are published, as they are after the first shell."""
        self.place.zsh(self.place.compinit)
        self.place.publish()

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
