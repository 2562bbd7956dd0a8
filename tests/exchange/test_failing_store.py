"""A store whose files are lost under an open cache costs entries, never an answer (SPEC 5.8).

What a store that can't be written or opened costs a running proxy is in
`tests/server/test_failing_store.py`.
"""

from __future__ import annotations

import asyncio
import base64
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.busy import write_lock
from support.replies import json_reply
from support.stage import InnerStage, assert_same, inner_stage
from support.upstream import wait_until

from llm_cache.exchange.calls import Call, Label
from llm_cache.exchange.journal import Journal
from llm_cache.store import Limits
from llm_cache.store.local import LocalStore

pytestmark = pytest.mark.usefixtures("home")

NOISE = base64.b85encode(random.Random(7).randbytes(100_000)).decode()
"""A text that compression hardly makes smaller."""


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InnerStage]:
    with inner_stage(tmp_path_factory.mktemp("failing")) as running:
        yield running
        running.wait_idle()


# Faults the store mends by itself


def remove_blobs(store: Path) -> None:
    shutil.rmtree(store / "blobs")


def remove_index(store: Path) -> None:
    for file in store.glob("index.sqlite*"):
        file.unlink()


def folder_in_place_of_the_index(store: Path) -> None:
    remove_index(store)
    (store / "index.sqlite").mkdir()


def remove_all(store: Path) -> None:
    shutil.rmtree(store)


@pytest.mark.parametrize(
    "fault", [remove_blobs, remove_index, folder_in_place_of_the_index, remove_all]
)
def test_store_that_lost_files_begins_again(
    stage: InnerStage, fault: Callable[[Path], None]
) -> None:
    """An entry may be gone; an answer never is, nor is it another's."""
    kept = stage.body()
    stage.twice(json_reply(wire.message("kept")), body=kept)
    fault(stage.cache.home / "store")
    for body in (stage.body(), stage.body(stream=True)):
        assert_same(*stage.twice(json_reply(wire.message(NOISE)), body=body))
    if stage.cache.ask(kept, {"x-cache-mode": "replay"}).status == 504:
        assert_same(*stage.twice(json_reply(wire.message("kept")), body=kept))
    assert b"kept" in stage.cache.ask(kept).body


def test_corrupt_index_is_no_obstacle_and_set_aside_at_the_next_start(stage: InnerStage) -> None:
    """Garbage under the feet of an open cache: it forwards; the next start begins anew."""
    body = stage.body()
    stage.twice(json_reply(wire.message()), body=body)
    for file in (stage.cache.home / "store").glob("index.sqlite*"):
        file.write_bytes(b"garbage" * 1000)
    for _ in range(3):
        stage.upstream.script(json_reply(wire.message("again")))
        response = stage.cache.ask(stage.body())
        assert (response.status, response.body) == (200, wire.message("again"))
        assert response.complete
    assert stage.cache.stats()["store_failures"] >= 3
    assert "ERR  store: " in stage.cache.log()
    stage.cache.stop()
    stage.cache.start()
    assert_same(*stage.twice(json_reply(wire.message("anew"))))
    assert list((stage.cache.home / "store").glob("index.sqlite.broken-*"))


async def test_a_flush_that_is_cancelled_loses_no_count(tmp_path: Path) -> None:
    """As by a client that leaves while it asks for /stats, or by a stop."""
    with closing(LocalStore.open(tmp_path / "store", Limits(), patience=0.2)) as store:
        journal = Journal(store.ledger)
        journal.note(Call(Label.HIT, "anthropic", "m", 200, 0.001))
        with write_lock(store.path):
            flush = asyncio.ensure_future(journal.flush())
            await asyncio.to_thread(wait_until, store._lock.mutex.locked, "the write has begun")
            flush.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flush
        await journal.close()
        assert store.ledger.read() == {'["anthropic", "m", "HIT"]': {"calls": 1}}
