"""Bugs to plant in what shells start and read: see `mutations`."""

from __future__ import annotations

from .mutation import Mutation

_CLIENT = "client/autoloadd_client"
_SHELLS = f"{_CLIENT}/shells"
_BASH = f"{_SHELLS}/autoloadd.bash"
_FISH = f"{_SHELLS}/autoloadd.fish"
CACHED = "tests/shells/outputs/test_cached.py"
RUNS = "tests/shells/outputs/test_faithful_runs.py"
WHY = "tests/shells/outputs/test_why.py"
FARM = "tests/shells/publish/test_farm.py"
SELECTION = "tests/shells/publish/test_selection.py"
INSTALL = "tests/shells/install/test_install.py"
RC_LINE = "tests/shells/install/test_rc_line.py"
BASH = "tests/shells/bash/test_bash.py"
BASHES = "tests/shells/bash/test_users_bashes.py"
FISH = "tests/shells/fish/test_fish.py"

SHELL_MUTATIONS: tuple[Mutation, ...] = (
    # What an output depends on
    Mutation(
        "shells: fingerprint without the inode",
        f"{_SHELLS}/fingerprint.py",
        "found.st_ino",
        "0",
        (CACHED,),
    ),
    Mutation(
        "shells: fingerprint without the time",
        f"{_SHELLS}/fingerprint.py",
        "found.st_mtime_ns",
        "0",
        (CACHED,),
    ),
    Mutation(
        "shells: link's own path forgotten",
        f"{_CLIENT}/outputs/question.py",
        "        if found != os.path.realpath(program):\n",
        "        if False:\n",
        (CACHED,),
    ),
    Mutation(
        "shells: variable that is not set taken for an empty one",
        f"{_CLIENT}/outputs/question.py",
        '            text = variable if value is None else f"{variable}={value}"\n',
        "            text = f\"{variable}={value or ''}\"\n",
        (CACHED,),
    ),
    Mutation(
        "shells: file of a relative path the same in all directories",
        f"{_CLIENT}/outputs/question.py",
        "[_describe_file(os.path.abspath(file)) for file in self.files]",
        "[_describe_file(file) for file in self.files]",
        (RUNS,),
    ),
    Mutation(
        "shells: link in a directory of shims taken for a program",
        f"{_CLIENT}/outputs/question.py",
        "_is_shim(os.path.abspath(path)) or ",
        "",
        (CACHED,),
    ),
    # What is kept, and for how long
    Mutation(
        "shells: output kept although stderr had something",
        f"{_CLIENT}/outputs/answering.py",
        "        if not ran.is_silent or ran.status",
        "        if ran.status",
        (CACHED,),
    ),
    Mutation(
        "shells: what is written to stderr behind the output not counted",
        f"{_CLIENT}/outputs/running.py",
        "_relay_rest(process.stderr.fileno()) and is_silent",
        "(_relay_rest(process.stderr.fileno()) or True) and is_silent",
        (CACHED,),
    ),
    Mutation(
        "shells: output kept although the tool failed",
        f"{_CLIENT}/outputs/answering.py",
        "not ran.is_silent or ran.status != self._question.status:",
        "not ran.is_silent:",
        (CACHED,),
    ),
    Mutation(
        "shells: output of a tool that was replaced meanwhile kept",
        f"{_CLIENT}/outputs/answering.py",
        "        is_same = self._read_fingerprint() == self._fingerprint\n",
        "        is_same = True\n",
        (CACHED,),
    ),
    Mutation(
        "shells: --max-age not looked at",
        f"{_CLIENT}/outputs/answering.py",
        "        if max_age is None or _is_young(entry, max_age):\n",
        "        if max_age is None or entry:\n",
        (CACHED,),
    ),
    Mutation(
        "shells: what is too old is there for the lease",
        f"{_CLIENT}/outputs/answering.py",
        "        cache.delete([self._name])\n        return None\n",
        "        return None\n",
        (CACHED,),
    ),
    Mutation(
        "shells: lease held through a run that is not kept",
        f"{_CLIENT}/outputs/answering.py",
        "            got.release()\n            got = None\n            self._is_marked = True\n",
        "            self._is_marked = True\n",
        (CACHED,),
    ),
    # A daemon that does not answer
    Mutation(
        "shells: wait as long as for a write",
        f"{_CLIENT}/outputs/answering.py",
        "timeout=_ask_seconds()",
        "timeout=STORE_SECONDS",
        (CACHED, RUNS),
    ),
    Mutation(
        "shells: absence forgotten",
        f"{_CLIENT}/outputs/answering.py",
        "                note_absence(path, shell, now)\n",
        "                pass\n",
        (CACHED,),
    ),
    Mutation(
        "shells: daemon that was started since not asked",
        f"{_CLIENT}/outputs/away.py",
        "        if os.stat(socket).st_mtime_ns > noted_ns:\n",
        "        if False:\n",
        (RUNS,),
    ),
    # What the tool has
    Mutation(
        "shells: descriptor of ours left to the tool",
        f"{_CLIENT}/outputs/running.py",
        "    pipe = subprocess.PIPE\n",
        "    pipe = subprocess.PIPE\n    os.set_inheritable(os.dup(_STDERR), True)\n"
        "    os.dup2(_STDERR, 9)\n",
        (RUNS,),
    ),
    Mutation(
        "shells: the shell's descriptors kept from the tool",
        f"{_CLIENT}/outputs/running.py",
        "close_fds=False",
        "close_fds=True",
        (RUNS,),
    ),
    # What is published
    Mutation(
        "shells: no farm for a moment",
        f"{_CLIENT}/publishing/farm.py",
        "    os.replace(link, place)\n",
        "    if os.path.islink(place):\n        os.unlink(place)\n    os.replace(link, place)\n",
        (FARM,),
    ),
    Mutation(
        "shells: digest has the time of its writing",
        f"{_CLIENT}/publishing/farm.py",
        "    return max(at_rest, default=before)\n",
        "    return now_ns\n",
        (FARM,),
    ),
    Mutation(
        "shells: bytecode of an earlier text published",
        f"{_CLIENT}/cli/publish_zsh.py",
        "        if entry.fingerprint != by_name[name].fingerprint:\n            continue\n",
        "",
        (FARM,),
    ),
    Mutation(
        "shells: two fpaths share a farm",
        f"{_CLIENT}/publishing/farm.py",
        'f"{len(text)}-{hashlib.sha256(text).hexdigest()[:16]}"',
        'f"0-{hashlib.sha256(text[:1]).hexdigest()[:16]}"',
        (FARM,),
    ),
    Mutation(
        "shells: new farm removed by a signal behind the change",
        f"{_CLIENT}/publishing/farm.py",
        "        if not _is_in_place(place, fresh):\n",
        "        if True:\n",
        (FARM,),
    ),
    Mutation(
        "shells: function of another style published",
        f"{_CLIENT}/publishing/selection.py",
        "        if head.flags or head.name not in sources:\n",
        "        if head.name not in sources:\n",
        (SELECTION,),
    ),
    # A start-up file
    Mutation(
        "shells: line added once more",
        f"{_SHELLS}/rc_line.py",
        "    if content is not None and found is not None:\n",
        "    if content is not None and found is None and not content:\n",
        (RC_LINE,),
    ),
    Mutation(
        "shells: no copy of the file as it was",
        f"{_SHELLS}/rc_file.py",
        "            if keep and find_line(content) is None:\n",
        "            if False:\n",
        (INSTALL,),
    ),
    Mutation(
        "shells: newline left behind",
        f"{_SHELLS}/rc_line.py",
        '        before = before.removesuffix(found["end"])\n',
        "        pass\n",
        (RC_LINE,),
    ),
    Mutation(
        "shells: half a line left by a full disk",
        f"{_SHELLS}/rc_file.py",
        "                _overwrite(file, content)\n                raise\n",
        "                raise\n",
        (INSTALL,),
    ),
    # Why
    Mutation(
        "shells: why calls used what differs",
        f"{_CLIENT}/cli/why.py",
        "        return self.entry is not None and not self.reasons\n",
        "        return self.entry is not None\n",
        (WHY,),
    ),
    Mutation(
        "shells: why calls used what is not found",
        f"{_CLIENT}/cli/why.py",
        '([Difference(question.tool, "program", None, None)] if path is None else [])',
        "[]",
        (WHY,),
    ),
    # bash
    Mutation(
        "shells: bash takes a client from where it stands",
        _BASH,
        "_autoloadd_search autoloadctl && [[ $REPLY == /* ]] || return 0",
        "_autoloadd_search autoloadctl || return 0",
        (BASH,),
    ),
    Mutation(
        "shells: bash loses the text's status",
        _BASH,
        '  _autoloadd_rewrap "$?" || return\n  return\n',
        '  _autoloadd_rewrap "$?"\n  return 0\n',
        (BASH,),
    ),
    Mutation(
        "shells: bash leaves its functions behind",
        _BASH,
        '  unset -f env "$1"\n',
        "",
        (BASH,),
    ),
    Mutation(
        "shells: bash caches an empty answer of argcomplete's",
        _BASH,
        " || ! -p /dev/stdout ]]; then\n",
        " ]]; then\n",
        (BASHES,),
    ),
    Mutation(
        "shells: bash forgets what an application is named by",
        _BASH,
        "[[ -z ${FLASK_APP-} && ",
        "[[ ",
        (BASH,),
    ),
    Mutation(
        "shells: bash forgets the packages of a tool",
        _BASH,
        "options=(--env PYTHONPATH --packages python)",
        "options=()",
        (BASH, BASHES),
    ),
    # fish
    Mutation(
        "shells: fish sets the text's variables where nobody sees them",
        _FISH,
        "function autoloadd-eval --no-scope-shadowing",
        "function autoloadd-eval",
        (FISH,),
    ),
    Mutation(
        "shells: fish asks for a function of the user's",
        _FISH,
        "not functions -q -- $argv[1]; and not builtin",
        "not builtin",
        (FISH,),
    ),
    Mutation(
        "shells: fish caches what pip has installed",
        _FISH,
        "            test $COMP_CWORD -eq 1; or string match -q -- '-*' (commandline -t)\n",
        "            true\n",
        (FISH,),
    ),
    Mutation(
        "shells: fish forgets the packages of a tool",
        _FISH,
        "options --env PYTHONPATH --packages python",
        "options",
        (FISH,),
    ),
)
