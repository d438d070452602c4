"""Bugs to plant in zsh's plugin: see `mutations`."""

from __future__ import annotations

from .mutation import Mutation

_PLUGIN = "client/autoloadd_client/shells/autoloadd.plugin.zsh"
_TESTS = "tests/shells/zsh"
EVAL = f"{_TESTS}/test_eval.py"
EARLY = f"{_TESTS}/test_early.py"
READ_ON = f"{_TESTS}/test_read_on.py"
COPY = f"{_TESTS}/test_copy.py"
ROBUST = f"{_TESTS}/test_robust.py"
FAITHFUL = f"{_TESTS}/test_faithful.py"
STARTUP = f"{_TESTS}/test_startup.py"
COMPLETION = f"{_TESTS}/test_completion.py"
ZSH_VECTORS = f"{_TESTS}/test_vectors.py"


def _bug(name: str, before: str, after: str, *tests: str) -> Mutation:
    return Mutation(f"zsh: {name}", _PLUGIN, before, after, tests)


PLUGIN_MUTATIONS: tuple[Mutation, ...] = (
    # What tells one run of a tool from another
    _bug(
        "a tool of another inode is the same",
        "$real$'\\0'$size$'\\0'$inode",
        "$real$'\\0'$size$'\\0'",
        EVAL,
        FAITHFUL,
    ),
    _bug(
        "a tool of another time is the same",
        "$inode$'\\0'$mtime$'\\0'\n",
        "$inode$'\\0'$'\\0'\n",
        EVAL,
        FAITHFUL,
    ),
    _bug(
        "a link's own path is left out",
        "  [[ ${_autoloadd_path:a} == ${_autoloadd_path:P} ]] ||\n",
        "  true ||\n",
        EVAL,
        FAITHFUL,
        COMPLETION,
    ),
    _bug(
        "a variable that is not exported counts",
        "== *export* ]]; then",
        "== * ]]; then",
        EVAL,
        FAITHFUL,
    ),
    _bug(
        "another version of zsh has the same texts",
        "      eval$'\\0'zsh/$ZSH_VERSION$'\\0'",
        "      eval$'\\0'zsh$'\\0'",
        EVAL,
        EARLY,
    ),
    _bug(
        "an entry for another file is used",
        '[[ $_autoloadd_stored == "$_autoloadd_fingerprint" ]] || { _autoloadd_close; return 1 }',
        ":",
        ROBUST,
        EVAL,
        FAITHFUL,
    ),
    _bug(
        "an age is not looked at",
        "_autoloadd_is_young && return 0; _autoloadd_lease delete; return ;;",
        "return 0 ;;",
        EVAL,
    ),
    # What is kept
    _bug(
        "kept although it failed",
        "_autoloadd_is_clean && _autoloadd_status == _autoloadd_expected &&",
        "_autoloadd_is_clean &&",
        EVAL,
    ),
    _bug(
        "kept although it wrote to stderr",
        "  if (( _autoloadd_is_clean && _autoloadd_status",
        "  if (( _autoloadd_status",
        EVAL,
    ),
    _bug(
        "kept although the tool was replaced while it ran",
        '    [[ $_autoloadd_fingerprint != "$_autoloadd_before" ]] ||\n',
        "",
        FAITHFUL,
        EVAL,
    ),
    _bug(
        "who waits for what is not kept waits in turn",
        "    (3) _autoloadd_yield && return 1 ;;\n",
        "    (3) return 1 ;;\n",
        EVAL,
    ),
    # What a start asks for
    _bug(
        "early: what came is used for another file",
        '$_autoloadd_early_fingerprints[$_autoloadd_name] == "$_autoloadd_fingerprint" ]]',
        "-n x ]]",
        EARLY,
    ),
    _bug(
        "early: what came is used at any age",
        "  _autoloadd_blob=$_autoloadd_early_blobs[$_autoloadd_name]\n  _autoloadd_is_young\n",
        "  _autoloadd_blob=$_autoloadd_early_blobs[$_autoloadd_name]\n",
        EARLY,
    ),
    _bug(
        "early: what is no request is sent",
        "    [[ $said[number+3,number+4] == $'\\xc0\\xc0' ]] || break\n",
        "",
        EARLY,
    ),
    _bug(
        "early: a hung daemon is asked once more",
        "    ! _autoloadd_is_away || return 1\n",
        "",
        EARLY,
    ),
    _bug(
        "early: all that was ever asked for",
        '  _autoloadd_asked_for=( "${(@)_autoloadd_asked_for[1,16]}" )\n',
        "",
        EARLY,
    ),
    _bug(
        "early: fetched for whom it is not",
        "  (( ${_autoloadd_announced[(Ie)$_autoloadd_name]} )) || return 0\n",
        "  (( $#_autoloadd_announced )) || return 0\n",
        EARLY,
    ),
    _bug(
        "early: texts of any size",
        "(( ! _autoloadd_is_starting || $#_autoloadd_text > 131072 )) ||",
        "(( ! _autoloadd_is_starting )) ||",
        EARLY,
    ),
    _bug(
        "early: the list is written by each shell",
        """_autoloadd_asked_for} == "${(pj:\\0\\0:)_autoloadd_announced}" ]] ||""",
        "_autoloadd_asked_for} == x ]] ||",
        EARLY,
    ),
    _bug(
        "early: kept for the shell's life",
        "  _autoloadd_is_starting=0\n  _autoloadd_early_blobs=() ",
        "  _autoloadd_is_starting=0\n  ",
        EARLY,
    ),
    _bug(
        "early: also in scripts",
        "  [[ -o interactive ]] || return 0\n  _autoloadd_is_starting=2\n",
        "  _autoloadd_is_starting=2\n  [[ -o interactive ]] || return 0\n",
        EARLY,
    ),
    # What is read later
    _bug(
        "a function is forgotten that has to be read first",
        "_autoloadd_is_absent _autoloadd_is_stopped",
        "_autoloadd_is_absent",
        READ_ON,
    ),
    _bug(
        "the rest is read from what the file is by then",
        '  local -a parts=( "${(@ps:',
        '  _autoloadd_source=$(<$_autoloadd_file)\n  local -a parts=( "${(@ps:',
        READ_ON,
    ),
    _bug("the last part is never read", "(( $#parts == 2 )) ||", "true ||", READ_ON),
    _bug(
        "Ctrl-C while a part is read",
        "  trap '' INT\n  builtin eval \"# $parts[2]\"\n",
        '  builtin eval "# $parts[2]"\n',
        READ_ON,
    ),
    _bug(
        "a shell that asks nothing reads on",
        "_autoloadd_publish() {\n",
        "_autoloadd_publish() {\n  _autoloadd_is_stopped\n",
        READ_ON,
    ),
    # The compiled copy
    _bug(
        "a copy of a file of another time is read", "$size-$inode-$mtime\n", "$size-$inode\n", COPY
    ),
    _bug("a copy of another file is read", "$size-$inode-$mtime\n", "$size-$mtime\n", COPY),
    _bug("a copy of another text is read", "$size-$inode-$mtime\n", "$inode-$mtime\n", COPY),
    _bug(
        "a damaged copy is taken for the file",
        "[[ $_autoloadd_inner == whole ]] || { _auto",
        "[[ -n $_autoloadd_copy ]] || { _auto",
        COPY,
    ),
    _bug("a copy is mapped", "zcompile -UR --", "zcompile -UM --", COPY),
    _bug(
        "a copy that may not be on the disk is put in place",
        "creat,excl,sync -m 400",
        "creat,excl -m 400",
        COPY,
    ),
    _bug(
        "a copy of which zcompile wrote a part is put in place",
        "    (( $#compiled == 2 * number )) || return\n",
        "",
        COPY,
    ),
    _bug(
        "a copy of what was read before the file was replaced",
        "    _autoloadd_place_copy && [[ $_autoloadd_copy:t == $name ]] || return\n",
        "",
        COPY,
    ),
    _bug(
        "a file is copied that may change without a new time",
        "(( _autoloadd_is_text )) && [[ -n $_autoloadd_file(#qNms+1) ]]",
        "(( _autoloadd_is_text ))",
        COPY,
    ),
    _bug(
        "a compiled file of another version counts",
        "      zcompile -t $_autoloadd_file.zwc ${_autoloadd_file:t} 2>/dev/null\n",
        "      true\n",
        COPY,
    ),
    _bug(
        "a restricted shell asks",
        "    [[ ! -o restricted ]] || builtin return 1\n",
        "",
        ROBUST,
    ),
    _bug("copies are kept for ever", "plugin-*.zwc(N.om[5,-1])", "plugin-*.zwc(N.om[50,-1])", COPY),
    _bug(
        "a copy is left where there is no daemon",
        "  _autoloadd_is_there && _autoloadd_modules || return 0\n  # What was",
        "  _autoloadd_place && _autoloadd_modules || return 0\n  # What was",
        COPY,
    ),
    _bug(
        "a copy is read where autoloadd is switched off",
        "    [[ ${(L)AUTOLOADD_CACHE-} != ${~off} ]] || builtin return 1\n",
        "",
        COPY,
        ROBUST,
    ),
    # Who is asked
    _bug(
        "a directory of others is trusted",
        "is_private='(N/Uf:go-rwx:)'\n",
        "is_private='(N/U)'\n",
        ROBUST,
    ),
    _bug(
        "a path is cut",
        "(( $#socket <= 106 ))",
        "(( $#socket <= 200 ))",
        ROBUST,
    ),
    _bug("a hung daemon is asked each time", "  _autoloadd_away_until=now+30\n", "", ROBUST),
    _bug(
        "other shells are not told of a hung daemon",
        "      print -r -- $now $$ >| $_autoloadd_path\n",
        "      :\n",
        ROBUST,
    ),
    _bug(
        "an answer's name is not compared",
        "[[ $bytes == $1(#b)(",
        "[[ ${bytes[$#1+1,-1]} == (#b)(",
        ROBUST,
        ZSH_VECTORS,
    ),
    _bug(
        "an answer's id is not compared",
        "$bytes[5,11] != $'\\x94\\x01\\xce'$1 ]] ||",
        "$bytes[5,7] != $'\\x94\\x01\\xce' ]] ||",
        ROBUST,
    ),
    _bug(
        "a descriptor stays open",
        "is asked to run the tool.\n    (( _autoloadd_fd < 0 )) || exec {_autoloadd_fd}>&-\n",
        "is asked to run the tool.\n",
        EVAL,
        ROBUST,
        STARTUP,
    ),
    _bug(
        "the tool inherits the connection",
        "  _autoloadd_text=$(\n    exec {_autoloadd_fd}>&-\n",
        "  _autoloadd_text=$(\n",
        EVAL,
    ),
    # Completion
    _bug(
        "completion: what is asked besides is answered, too",
        "  (( is_question && $# == 1 )) && [[",
        "  (( $# == 1 )) && [[",
        COMPLETION,
        FAITHFUL,
    ),
    _bug(
        "completion: flask's application may change",
        "    _autoloadd_files=( $PWD/{app.py,wsgi.py,.env,.flaskenv} )\n",
        "",
        COMPLETION,
        "tests/shells/completions/test_tab.py",
    ),
    _bug(
        "completion: pip's file names are kept",
        "-z ${(M)given:#(install|show|uninstall)}",
        "-n pip",
        COMPLETION,
        FAITHFUL,
    ),
    _bug(
        "completion: our functions stay",
        "  (( $#_autoloadd_watched < 2 )) || unfunction -- $_autoloadd_watched[2,-1]\n",
        "",
        COMPLETION,
    ),
    # The farm
    _bug(
        "a farm for another fpath is taken",
        "      [[ $said == $mine && -O $_autoloadd_path ]] || continue\n",
        "      [[ -O $_autoloadd_path ]] || continue\n",
        STARTUP,
    ),
    _bug(
        "a farm hides relative directories",
        "-z ${(M)_autoloadd_others[first,last]:#[^/]*} ]]",
        "-n x ]]",
        STARTUP,
    ),
    _bug(
        "a changed directory is not published",
        "  (( times[1] < newest[1] ))\n",
        "  false\n",
        STARTUP,
    ),
    _bug(
        "a directory that changed in the same second is not published",
        "for format in %s %s%9.; do",
        "for format in %s; do",
        STARTUP,
    ),
)
