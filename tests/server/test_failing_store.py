"""A store that fails under a running proxy costs a log line and a counter, never an answer.

SPEC 5.8. Each fault is done to the files of a running proxy; it is undone, and storing goes on.
Those that the store mends by itself are in `tests/exchange/test_failing_store.py`.
"""

from __future__ import annotations

import base64
import random
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.busy import write_lock
from support.proxy import Proxy, anthropic_headers
from support.replies import Gate, json_reply, sse_reply
from support.stage import Stage, assert_same, running_stage
from support.upstream import wait_until

from llm_cache.store.local.lock import AFTER_BUSY_SEC

pytestmark = pytest.mark.usefixtures("home")

Undo = Callable[[], None]

NOISE = base64.b85encode(random.Random(7).randbytes(100_000)).decode()
"""A text that compression hardly makes smaller."""


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(tmp_path_factory.mktemp("failing")) as running:
        yield running
        running.wait_idle()


# Faults that last


def file_in_place_of(place: Path, *, folder: bool = False) -> Undo:
    aside = place.with_name("aside")
    place.rename(aside)
    if folder:
        place.mkdir()
    else:
        place.write_text("not what it should be")

    def undo() -> None:
        if folder:
            place.rmdir()
        else:
            place.unlink()
        aside.rename(place)

    return undo


def folder_in_place_of_the_lock(store: Path, proxy: Proxy) -> Undo:
    (store / "lock").unlink()
    (store / "lock").mkdir()
    return (store / "lock").rmdir


def no_space(store: Path, proxy: Proxy) -> Undo:
    """As on a full disk, the write of a blob ends early (EFBIG in place of ENOSPC)."""
    limit = resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (50_000, limit[1]))

    def undo() -> None:
        resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, limit)

    return undo


LASTING: dict[str, Callable[[Path, Proxy], Undo]] = {
    "a file in place of the blobs": lambda store, proxy: file_in_place_of(store / "blobs"),
    "a file in place of the store": lambda store, proxy: file_in_place_of(store),
    "a folder in place of the lock": folder_in_place_of_the_lock,
    "no space": no_space,
}


@pytest.fixture(params=list(LASTING.values()), ids=list(LASTING))
def lasting(request: pytest.FixtureRequest) -> Callable[[Path, Proxy], Undo]:
    if request.param is no_space and sys.platform != "linux":
        pytest.skip("limits of another process can be set on Linux only")
    fault: Callable[[Path, Proxy], Undo] = request.param
    return fault


def test_failing_store_costs_a_line_and_a_counter(
    stage: Stage, lasting: Callable[[Path, Proxy], Undo]
) -> None:
    """Answers go on, streamed and not, each a miss; when the fault is gone, storing goes on."""
    kept = stage.body()
    kept_miss, _ = stage.twice(json_reply(wire.message("kept")), body=kept)
    undo = lasting(stage.proxy.home / "store", stage.proxy)
    replies = (json_reply(wire.message(NOISE)), sse_reply(wire.stream(NOISE, piece=4000)))
    bodies = [stage.body(), stage.body(stream=True)]
    failures = stage.proxy.stats()["store_failures"]
    for reply, body in zip(replies, bodies, strict=True):
        sent = b"".join(step for step in reply.body if isinstance(step, bytes))
        for _ in range(2):
            stage.upstream.script(reply)
            response = stage.proxy.ask(body)
            assert (response.status, response.body, response.complete) == (200, sent, True)
            assert response.header("x-cache") == "MISS"
            failures += 1
            assert stage.proxy.stats()["store_failures"] >= failures
    assert stage.proxy.healthy()
    assert_same(kept_miss, stage.proxy.ask(kept))
    log = stage.proxy.log()
    assert log.count("ERR  store: ") >= 4
    assert log.count("[not stored: ") == 4
    figures = stage.proxy.stats()
    assert (figures["misses"], figures["errors"]) == (5, 0)
    assert any("store: " in line for line in figures["recent_errors"])
    undo()
    for reply, body in zip(replies, bodies, strict=True):
        assert_same(*stage.twice(reply, body=body))
    assert_same(kept_miss, stage.proxy.ask(kept))
    assert stage.proxy.stats()["misses"] == 7


def test_store_that_fails_in_the_middle_of_an_answer_does_not_cut_it(
    stage: Stage, lasting: Callable[[Path, Proxy], Undo]
) -> None:
    events = wire.stream(NOISE, piece=4000)
    gate = Gate()
    stage.upstream.script(sse_reply([*events[:5], gate, *events[5:]]))
    with stage.proxy.connect() as connection:
        response = connection.request(
            "POST", "/v1/messages", anthropic_headers(), stage.body(stream=True)
        )
        gate.wait_reached()
        response.read(1)
        undo = lasting(stage.proxy.home / "store", stage.proxy)
        gate.release()
        assert (response.read_all(), response.complete) == (b"".join(events), True)
    undo()
    assert stage.proxy.stats()["store_failures"] >= 1
    assert "[not stored: " in stage.proxy.log()


# A store that can't be opened


def folder_in_place_of_the_note(store: Path) -> Undo:
    (store / "index.suspect").mkdir()
    return (store / "index.suspect").rmdir


@pytest.mark.parametrize(
    "fault",
    [
        lambda store: file_in_place_of(store / "blobs"),
        lambda store: file_in_place_of(store / "lock", folder=True),
        folder_in_place_of_the_note,
    ],
    ids=["blobs", "lock", "note"],
)
def test_a_store_that_cannot_be_opened_keeps_no_proxy_from_starting(
    stage: Stage, fault: Callable[[Path], Undo]
) -> None:
    """It answers without, says so once, and opens the store when that is possible again."""
    kept = stage.body()
    kept_miss, _ = stage.twice(json_reply(wire.message("kept")), body=kept)
    stage.proxy.stop()
    undo = fault(stage.proxy.home / "store")
    stage.proxy.start()
    for number in range(2):
        stage.upstream.script(json_reply(wire.message(f"unstored {number}")))
        response = stage.proxy.ask(stage.body())
        assert (response.status, response.header("x-cache")) == (200, "MISS")
        assert response.complete
    assert stage.proxy.log().count("can't be opened yet: ") == 1
    undo()
    stage.proxy.wait_logged("index.sqlite is open now")
    assert_same(kept_miss, stage.proxy.ask(kept))
    assert_same(*stage.twice(json_reply(wire.message("stored"))))
    assert stage.proxy.stats()["misses"] == 4


def test_a_store_that_others_keep_busy_keeps_no_proxy_from_starting(stage: Stage) -> None:
    kept = stage.body()
    kept_miss, _ = stage.twice(json_reply(wire.message("kept")), body=kept)
    stage.proxy.stop()
    with write_lock(stage.proxy.home / "store"):
        stage.proxy.start()
        stage.upstream.script(json_reply(wire.message("unstored")))
        assert stage.proxy.ask(stage.body()).header("x-cache") == "MISS"
    stage.proxy.wait_logged("index.sqlite is open now")
    assert_same(kept_miss, stage.proxy.ask(kept))


def test_a_store_that_is_locked_at_the_start_is_waited_for_once(stage: Stage) -> None:
    """By SQLite's own lock, which a program that knows nothing of ours may hold."""
    stage.twice(json_reply(wire.message("kept")))
    stage.proxy.stop()
    index = stage.proxy.home / "store" / "index.sqlite"
    with closing(sqlite3.connect(index, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        stage.proxy.start()
        for number in range(20):
            stage.upstream.script(json_reply(wire.message(f"unstored {number}")))
            assert stage.proxy.ask(stage.body()).header("x-cache") == "MISS"
        assert stage.proxy.stats()["misses"] == 20  # and now they are all in the log
        log = stage.proxy.log()
        assert log.count("[not stored: ") == 20
        assert log.count("ERR  store: ") <= 10, log  # a wait and a line every few seconds
        other.execute("ROLLBACK")
    stage.proxy.wait_logged("index.sqlite is open now")
    assert_same(*stage.twice(json_reply(wire.message("stored"))))


# A store that others keep busy


def test_a_busy_store_holds_no_answer_up_and_misses_are_counted_when_it_is_back(
    stage: Stage,
) -> None:
    kept = stage.body()
    kept_miss, _ = stage.twice(json_reply(wire.message("kept")), body=kept)
    bodies = [stage.body(stream=number % 2 == 0) for number in range(30)]
    with write_lock(stage.proxy.home / "store"):
        began = time.monotonic()
        for body in bodies:
            stage.upstream.script(json_reply(wire.message("unstored")))
            response = stage.proxy.ask(body)
            assert (response.status, response.complete) == (200, True)
            assert (response.header("x-cache"), response.body) == ("MISS", wire.message("unstored"))
        assert time.monotonic() - began < 10
        assert_same(kept_miss, stage.proxy.ask(kept))
        figures = stage.proxy.stats()
        assert (figures["misses"], figures["hits"], figures["errors"]) == (31, 2, 0)
        assert figures["store_failures"] >= 30
        assert stage.proxy.log().count("[not stored: ") == 30
        lines = stage.proxy.log().count("ERR  store: ")
        assert 1 <= lines <= 1 + (time.monotonic() - began) / AFTER_BUSY_SEC

    def in_ledger() -> bool:
        store = sqlite3.connect(stage.proxy.home / "store" / "index.sqlite")
        try:
            return store.execute(
                "SELECT sum(value) FROM ledger WHERE name = 'calls'"
            ).fetchone() == (33,)
        finally:
            store.close()

    wait_until(in_ledger, "all calls in the ledger, with nobody asking for anything")
    for body in bodies[:2]:
        assert_same(*stage.twice(json_reply(wire.message("stored")), body=body))
    assert stage.proxy.stats()["misses"] == 33


def test_a_stop_waits_for_a_busy_store_to_take_the_last_counts(stage: Stage) -> None:
    with write_lock(stage.proxy.home / "store"):
        for _ in range(3):
            stage.upstream.script(json_reply(wire.message()))
            stage.proxy.ask(stage.body())
        stage.proxy.signal(signal.SIGTERM)
        wait_until(lambda: not stage.proxy.healthy(), "nothing new is accepted")
    stage.proxy.wait_exit()
    stage.proxy.start()
    assert stage.proxy.stats()["misses"] == 3
