"""Which functions a farm may hold: those that zsh would take from the same file without it.

The farm stands first in fpath, so a name in it wins. What zsh would take from something else than
the file that `find_functions` found must not be in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autoloadd_client.shells.errors import BytecodeError
from autoloadd_client.shells.zwc import NamedHead, metafy, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from autoloadd_client.shells.zsh import Found, Function

_SUFFIX = ".zwc"


def select_functions(
    found: Found, directories: Iterable[str], *, version: str
) -> tuple[Function, ...]:
    """Return what may be published of what was found in these elements of fpath, in their order.

    Left to zsh is a name that an earlier or the same element has only compiled, or compiled so that
    it is loaded in a style of its own (`zcompile -k`, `-z`), or that cannot be cached there.
    """
    by_directory: dict[str, list[Function]] = {}
    for function in found.functions:
        by_directory.setdefault(os.path.dirname(function.path), []).append(function)
    hidden = {os.path.basename(left.path) for left in found.left_out}
    taken: set[bytes] = set()
    selected: list[Function] = []
    for directory in directories:
        here = by_directory.get(os.path.abspath(directory), ())
        taken.update(_names_left_to_zsh(directory, here, version))
        selected += [
            function
            for function in here
            if metafy(os.fsencode(function.name)) not in taken and function.name not in hidden
        ]
    return tuple(selected)


def _names_left_to_zsh(
    directory: str, functions: Sequence[Function], version: str
) -> Iterator[bytes]:
    if directory.endswith(_SUFFIX):
        yield from (head.name for head in _heads_of(directory, version))
        return
    sources = {metafy(os.fsencode(function.name)) for function in functions}
    for head in _compiled_heads(directory, version):
        if head.flags or head.name not in sources:
            yield head.name


def _compiled_heads(directory: str, version: str) -> Iterator[NamedHead]:
    """Yield what zsh finds compiled for a directory: in the digest beside it, and file by file."""
    yield from _heads_of(directory + _SUFFIX, version)
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if name.endswith(_SUFFIX):
            function = metafy(os.fsencode(name.removesuffix(_SUFFIX)))
            heads = _heads_of(f"{directory}/{name}", version)
            yield from (head for head in heads if head.name == function)


def _heads_of(path: str, version: str) -> list[NamedHead]:
    try:
        with open(path, "rb") as file:
            return read_header(file.read(), version=version)
    except (OSError, BytecodeError):
        return []  # zsh passes over it, too
