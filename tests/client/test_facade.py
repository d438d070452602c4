"""The functions for shells: whatever happens, a miss, in time, and no exception."""

from __future__ import annotations

import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client import facade

from ..running import takes_less_than
from .scripted import Peer, entry_answer, serve_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..running import Daemon

    Serve = Callable[..., str]

PRODUCER = "zsh/5.9/8"


DEADLINES = (facade.READ_SECONDS, facade.WRITE_SECONDS)


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    facade.close()
    # Where a test is about what comes, a busy machine may take its time.
    monkeypatch.setattr(facade, "READ_SECONDS", 10.0)
    monkeypatch.setattr(facade, "WRITE_SECONDS", 10.0)
    yield
    facade.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines as shells have them."""
    assert DEADLINES == (0.05, 0.25)
    monkeypatch.setattr(facade, "READ_SECONDS", DEADLINES[0])
    monkeypatch.setattr(facade, "WRITE_SECONDS", DEADLINES[1])


@pytest.fixture
def configured(daemon: Daemon) -> Daemon:
    assert facade.configure(PRODUCER, socket_path=daemon.socket_path, binary_mtime_ns=10)
    return daemon


def everything_misses() -> bool:
    """Tell whether each function gives what it gives without a cache."""
    return (
        facade.try_load("name") is None
        and facade.try_save_one("name", b"blob") is False
        and facade.try_replace_all({"name": b"blob"}) is False
        and facade.try_merge_in([("name", b"blob")]) is False
        and facade.cached_names() == set()
        and facade.entry_count() == 0
        and facade.stats() == {}
        and facade.clear() is False
    )


def test_what_was_saved_is_loaded(configured: Daemon) -> None:
    assert facade.try_load("name") is None
    assert facade.try_save_one("name", b"blob", fingerprint=b"print")
    assert facade.try_load("name") == b"blob"
    assert facade.try_load("name", fingerprint=b"print") == b"blob"
    assert facade.try_load("name", fingerprint=b"other") is None


def test_merge_keeps_and_replace_does_not(configured: Daemon) -> None:
    assert facade.try_merge_in({"a": b"1"})
    assert facade.try_merge_in([("b", b"2")])
    assert facade.cached_names() == {"a", "b"}
    assert facade.try_replace_all({"c": b"3"})
    assert facade.cached_names() == {"c"}
    assert facade.entry_count() == 1
    assert facade.stats()["fresh"] == 1
    assert facade.clear()
    assert facade.entry_count() == 0


def test_names_of_stale_entries_are_left_out(configured: Daemon) -> None:
    with configured.cache(binary_mtime_ns=9) as older:
        older.put("stale", b"")
    facade.try_save_one("fresh", b"")
    assert facade.cached_names() == {"fresh"}
    assert facade.entry_count() == 2


def test_before_it_is_configured_everything_misses() -> None:
    assert everything_misses()


@pytest.mark.parametrize("producer", ["zsh", "zsh/5.9/8/", 5, ("zsh", "5.9", 8)], ids=str)
def test_a_producer_that_cannot_be_is_told(producer: Any) -> None:
    assert facade.configure(producer) is False
    assert everything_misses()


def test_a_binary_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert facade.configure(PRODUCER, binary=tmp_path / "none") is False
    assert everything_misses()


def test_without_a_daemon_everything_misses(tmp_path: Path) -> None:
    assert facade.configure(PRODUCER, socket_path=f"{tmp_path}/socket")
    assert everything_misses()


@pytest.mark.parametrize("variable", ["AUTOLOADD_CACHE", "ZSHRS_CACHE"])
def test_the_off_switch_is_looked_at_in_each_call(
    configured: Daemon, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    assert facade.try_save_one("name", b"blob")
    monkeypatch.setenv(variable, "false")
    assert everything_misses()
    monkeypatch.setenv(variable, "1")
    assert facade.try_load("name") == b"blob"


def test_what_cannot_be_stored_is_false_and_costs_no_later_call(configured: Daemon) -> None:
    anything: Any = facade
    assert anything.try_save_one("", b"") is False
    assert anything.try_save_one("name", "text") is False
    assert anything.try_save_one("name", bytes((4 << 20) + 1)) is False
    assert anything.try_save_one("\ud800", b"") is False
    assert anything.try_merge_in(None) is False
    assert anything.try_merge_in([1, 2]) is False
    assert anything.try_replace_all([("a",)]) is False
    assert anything.try_load(None) is None
    assert facade.try_save_one("name", b"blob")
    assert facade.cached_names() == {"name"}


@pytest.mark.usefixtures("hurried")
def test_a_hung_daemon_is_paid_for_once(daemon: Daemon) -> None:
    assert daemon.process is not None
    with daemon.cache() as patient:
        patient.put("name", b"blob")

    def pay_once() -> None:
        assert facade.configure(PRODUCER, socket_path=daemon.socket_path)
        started = time.monotonic()
        assert facade.try_load("name") is None
        assert time.monotonic() - started >= facade.READ_SECONDS
        assert everything_misses()

    daemon.process.send_signal(signal.SIGSTOP)
    try:
        takes_less_than(facade.AVOID_SECONDS, pay_once)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while facade.try_load("name") != b"blob":
        assert time.monotonic() < deadline


@pytest.mark.usefixtures("hurried")
def test_a_write_to_a_hung_daemon_has_a_deadline_of_its_own(daemon: Daemon) -> None:
    assert daemon.process is not None

    def save() -> None:
        assert facade.configure(PRODUCER, socket_path=daemon.socket_path)
        started = time.monotonic()
        assert facade.try_save_one("name", b"blob") is False
        assert time.monotonic() - started >= facade.WRITE_SECONDS

    daemon.process.send_signal(signal.SIGSTOP)
    try:
        takes_less_than(facade.AVOID_SECONDS, save)
    finally:
        daemon.process.send_signal(signal.SIGCONT)


def test_after_a_moment_a_new_daemon_is_found(home: Path, idle_daemon: Daemon) -> None:
    assert facade.configure(PRODUCER, socket_path=idle_daemon.socket_path)
    started = time.monotonic()
    assert facade.try_save_one("name", b"blob") is False
    idle_daemon.start()
    while not facade.try_save_one("name", b"blob"):
        assert time.monotonic() - started < 20
    assert time.monotonic() - started >= facade.AVOID_SECONDS
    assert facade.try_load("name") == b"blob"


def test_a_restart_is_not_noticed(configured: Daemon) -> None:
    assert facade.try_save_one("name", b"blob")
    configured.kill()
    configured.start()
    assert facade.try_load("name") == b"blob"


def test_a_lying_server_is_a_miss(serve: Serve) -> None:
    def lies(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), entry_answer("other", b"wrong"))
        peer.wait_for_end()

    assert facade.configure(PRODUCER, socket_path=serve(lies))
    assert facade.try_load("name") is None


def test_a_refusal_is_a_miss_but_no_reason_to_stay_away(serve: Serve) -> None:
    def refuses(peer: Peer) -> None:
        peer.greet()
        peer.refuse(peer.read_request("get").id, "busy")
        peer.answer(peer.read_request("get"), entry_answer("name", b"blob"))

    assert facade.configure(PRODUCER, socket_path=serve(refuses))
    assert facade.try_load("name") is None
    assert facade.try_load("name") == b"blob"


def test_configured_anew_it_asks_at_once(serve: Serve, tmp_path: Path) -> None:
    assert facade.configure(PRODUCER, socket_path=f"{tmp_path}/socket")
    assert facade.try_load("name") is None
    assert facade.configure(PRODUCER, socket_path=serve(serve_one("name", b"blob")))
    assert facade.try_load("name") == b"blob"
    facade.close()


def test_reads_do_not_wait_for_a_bulk_of_another_thread(configured: Daemon) -> None:
    assert facade.try_save_one("name", b"blob")
    reached, release = threading.Event(), threading.Event()

    def entries() -> Iterator[tuple[str, bytes]]:
        for number in range(8):
            if number == 6:
                reached.set()
                release.wait(20)
            yield f"bulk{number}", bytes(400_000)

    done: list[bool] = []
    bulk = threading.Thread(target=lambda: done.append(facade.try_merge_in(entries())))
    bulk.start()
    assert reached.wait(20)
    assert facade.try_load("name") == b"blob"
    assert facade.try_save_one("other", b"1")
    release.set()
    bulk.join()
    assert done == [True]
    assert len(facade.cached_names()) == 10


@pytest.mark.usefixtures("hurried")
def test_a_full_backlog_costs_no_more_than_the_deadline(run_directory: Path) -> None:
    path = f"{run_directory}/full"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        other.connect(path)

        def load() -> None:
            assert facade.configure(PRODUCER, socket_path=path)
            assert facade.try_load("name") is None

        takes_less_than(facade.AVOID_SECONDS, load)
