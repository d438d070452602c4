"""What a shell pays for: a get loads nothing heavy. Looked at in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import autoloadd_client

from .scripted import Peer, entry_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., str]

HEAVY = (
    "argparse", "asyncio", "collections", "dataclasses", "inspect", "json", "msgpack", "pathlib",
    "platformdirs", "re", "select", "selectors", "socket", "subprocess", "tempfile", "threading",
    "trio", "typing", "zlib",
)  # fmt: skip

REPORT = "\nimport sys; print([name for name in HEAVY if name in sys.modules])"


def loaded_by(code: str) -> str:
    """Return which heavy modules a program has loaded that bare Python has not."""
    environment = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    # -S: without what other packages' .pth files load. -P: not from the current directory.
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", f"HEAVY = {HEAVY!r}\n{code}{REPORT}"],
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_loads_nothing() -> None:
    assert loaded_by("import autoloadd_client") == "[]"


def test_a_get_and_a_put_load_nothing_heavy(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), entry_answer("name", b"blob"))
        peer.answer(peer.read_request("get"), entry_answer("name", b"blob"))
        peer.answer(peer.read_request("get"), None)
        peer.answer(peer.read_request("put"), 1)

    code = f"""
from autoloadd_client import Cache
with Cache("zsh/5.9/8", socket_path={serve(script)!r}, binary="/bin/sh") as cache:
    assert cache.get("name") == b"blob"
    assert cache.get_entry("name").cached_at_ns == 8
    assert cache.get("name") is None
    assert cache.put("name", b"blob") == 1
"""
    assert loaded_by(code) == "[]"


def test_no_daemon_loads_nothing_heavy() -> None:
    code = """
from autoloadd_client import facade
assert facade.configure("zsh/5.9/8", socket_path="/nowhere/socket")
assert facade.try_load("name") is None
"""
    assert loaded_by(code) == "[]"


def test_every_export_is_there_and_no_method_loads_trio(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("status"), {})

    code = f"""
import autoloadd_client
from autoloadd_client import *
import autoloadd_client.bulk, autoloadd_client.listing
with Cache(None, socket_path={serve(script)!r}) as cache:
    assert cache.status() == {{}}
"""
    loaded = loaded_by(code)
    assert "msgpack" in loaded
    assert "trio" not in loaded
    assert "'socket'" not in loaded


def test_only_who_exchanges_files_pays_for_it() -> None:
    code = """
import sys
from autoloadd_client.cli.run import run
try:
    run(["--version"])
except SystemExit:
    pass
ours = [name.split(".")[-1] for name in sys.modules if name.startswith("autoloadd")]
assert {"run", "exchange"} <= set(ours)
assert not {"zshrs", "merging", "portable", "importing", "exporting", "beside"} & set(ours)
"""
    assert "msgpack" not in loaded_by(code)


def test_exports() -> None:
    for name in autoloadd_client.__all__:
        assert getattr(autoloadd_client, name) is getattr(autoloadd_client, name)
        assert name in dir(autoloadd_client)
    with pytest.raises(AttributeError, match="no attribute 'Cash'"):
        autoloadd_client.Cash  # noqa: B018
