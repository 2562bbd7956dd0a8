"""An index that is newer, foreign, corrupt or gone; no space; modes; forks."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_cache.errors import StoreError, StoreFormatError
from llm_cache.store import Limits
from llm_cache.store.local import LocalStore
from llm_cache.store.local.index import FORMAT

KEY, OTHER = b"k" * 32, b"o" * 32


def tree(path: Path) -> dict[str, tuple[int, float, int]]:
    return {
        str(p.relative_to(path)): (p.lstat().st_size, p.lstat().st_mtime, p.lstat().st_mode)
        for p in path.rglob("*")
    }


def test_a_newer_format_is_refused_by_number_and_untouched(opened: Any, tmp_path: Path) -> None:
    store = opened()
    store.put([KEY], b"", b"body")
    store.close()
    db = sqlite3.connect(store.path / "index.sqlite")
    db.execute(f"PRAGMA user_version = {FORMAT + 6}")
    db.commit()
    db.close()
    before = tree(store.path)
    with pytest.raises(StoreFormatError, match=rf"format {FORMAT + 6}.* up to {FORMAT}:"):
        opened()
    assert tree(store.path) == before


def make_unusable(kind: str, index: Path) -> None:
    data = index.read_bytes()
    if kind == "garbage":
        index.write_bytes(b"this is no database, " * 400)
    elif kind == "cut":
        index.write_bytes(data[:9_000])
    elif kind == "header only":
        index.write_bytes(data[:100])
    elif kind == "zeros":
        index.write_bytes(bytes(8_192))
    elif kind == "folder":
        index.unlink()
        index.mkdir()
        (index / "inside").touch()
    elif kind == "folder in place of its WAL":
        index.with_name("index.sqlite-wal").mkdir()
    elif kind == "an older format":
        db = sqlite3.connect(index)
        db.execute(f"PRAGMA user_version = {FORMAT - 1}")
        db.close()
    elif kind == "another user's":
        index.chmod(0)
    elif kind == "another program's":
        index.unlink()
        db = sqlite3.connect(index)
        db.execute("CREATE TABLE theirs(x)")
        db.close()
    elif kind == "a schema that can't be decoded":
        index.write_bytes(data.replace(b"CREATE TABLE entries(", b"CREATE \xff\xffBLE entries("))
    elif kind == "totals of another kind":
        db = sqlite3.connect(index, isolation_level=None)
        db.execute("UPDATE totals SET entries = 'many'")
        db.close()
    else:
        db = sqlite3.connect(index)
        db.execute("DROP TABLE keys")
        db.close()


@pytest.mark.parametrize(
    "kind",
    [
        "garbage",
        "cut",
        "header only",
        "zeros",
        "folder",
        "folder in place of its WAL",
        "an older format",
        pytest.param(
            "another user's",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may open anything"),
        ),
        "another program's",
        "table missing",
        "a schema that can't be decoded",
        "totals of another kind",
    ],
)
def test_an_unusable_index_is_set_aside_and_a_new_one_begun(
    opened: Any, log: list[str], clock: Any, kind: str, blob_files: Any
) -> None:
    store = opened()
    for number in range(60):
        store.put([b"%d" % number], b"m" * 400, b"body %d" % number)
    store.close()
    make_unusable(kind, store.path / "index.sqlite")
    store = opened()
    aside = store.path / f"index.sqlite.broken-{int(clock.now)}"
    assert aside.exists()
    assert any(aside.name in line for line in log)
    assert store.totals().entries == 0
    assert store.get(b"1") is None
    store.put([KEY], b"", b"body")
    assert store.get(KEY).body == b"body"
    store.sweep()
    assert len(blob_files()) == 1
    assert store.integrity() == []


def test_indexes_set_aside_at_one_time_all_stay(opened: Any, clock: Any) -> None:
    for _ in range(3):
        store = opened()
        store.close()
        make_unusable("garbage", store.path / "index.sqlite")
    opened()
    names = sorted(p.name for p in store.path.glob("*.broken-*"))
    first = f"index.sqlite.broken-{int(clock.now)}"
    assert names == [first, first + "-2", first + "-3"]


def corrupt_pages(index: Path) -> None:
    """Overwrite every page but the first, which holds the schema and the format."""
    size = index.stat().st_size
    with index.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_corruption_seen_later_is_a_store_error_and_set_aside_next_time(
    opened: Any, log: list[str]
) -> None:
    store = opened()
    for number in range(60):
        store.put([b"%d" % number], b"m" * 400, b"body %d" % number)
    store.close()
    store = opened()
    corrupt_pages(store.path / "index.sqlite")
    store._index.read.execute("PRAGMA shrink_memory")

    def get_all() -> None:
        for number in range(60):
            store.get(b"%d" % number)

    with pytest.raises(StoreError):
        get_all()
    assert any("corrupt" in line for line in log)
    store.close()
    again = opened()
    assert list(again.path.glob("*.broken-*"))
    again.put([KEY], b"", b"body")
    assert again.get(KEY).body == b"body"
    assert not (again.path / "index.suspect").exists()


def lose_an_entry(index: Path) -> None:
    """Take the first entry out of its table and leave it in an index of the table."""
    named = "FROM sqlite_master WHERE name = 'entries_used'"
    db = sqlite3.connect(index, isolation_level=None)
    hidden = db.execute(f"SELECT * {named}").fetchone()
    db.execute("PRAGMA writable_schema = ON")
    db.execute(f"DELETE {named}")
    db.close()
    db = sqlite3.connect(index, isolation_level=None)
    db.execute("DELETE FROM entries WHERE id = 1")
    db.execute("PRAGMA writable_schema = ON")
    db.execute("INSERT INTO sqlite_master VALUES(?, ?, ?, ?, ?)", hidden)
    db.close()


def test_an_index_that_contradicts_itself_is_corrupt(opened: Any, log: list[str]) -> None:
    """Whatever looks for a victim finds one that isn't there: it must not look for ever."""
    limits = Limits(max_entries=3)
    store = opened(limits)
    for number in range(3):
        store.put([b"%d" % number], b"", b"body %d" % number)
    store.close()
    lose_an_entry(store.path / "index.sqlite")
    store = opened(limits)
    with pytest.raises(StoreError, match="no entry 1"):
        store.put([KEY], b"", b"body")
    assert any("corrupt" in line for line in log)
    store.close()
    again = opened(limits)
    again.put([KEY], b"", b"body")
    assert again.get(KEY).body == b"body"
    assert list(again.path.glob("*.broken-*"))


@pytest.mark.parametrize(
    "altered",
    [
        "entries SET request = 7",
        "entries SET created = 'yesterday'",
        "entries SET accessed = 'yesterday'",
        "entries SET ttl = 'long'",
        "blobs SET size = 'small'",
        "blobs SET disk_size = 'small'",
        "blobs SET refs = 'few'",
        "totals SET bytes = 'many'",
        "totals SET removals = x'00'",
    ],
)
def test_rows_of_another_kind_are_a_store_error_at_most(opened: Any, altered: str) -> None:
    store = opened(Limits(max_entries=2))
    for number in range(2):
        store.put([b"%d" % number], b"", b"body %d" % number)
    db = sqlite3.connect(store.path / "index.sqlite", isolation_level=None)
    db.execute(f"UPDATE {altered}")
    db.close()
    for use in (
        lambda: store.get(b"1"),
        lambda: list(store.entries()),
        lambda: store.find("31", 2),
        lambda: store.put([b"1"], b"", b"new", tallies={"all": {"calls": 1}}),
        lambda: store.put([KEY], b"", b"body"),
        store.totals,
        store.flush,
        store.integrity,
        lambda: store.delete(b"0"),
    ):
        with contextlib.suppress(StoreError):
            use()


@pytest.mark.parametrize(
    "altered",
    [
        "keys SET entry = 3 - entry",
        "entries SET meta = CAST('x' || meta AS BLOB)",
        "entries SET meta = 'a text'",
        "entries SET digest = (SELECT digest FROM entries ORDER BY digest LIMIT 1)",
        "keys SET key = x'31' WHERE key = x'32'",
    ],
)
def test_a_key_whose_row_was_altered_is_a_miss_dropped_and_logged(
    opened: Any, log: list[str], altered: str
) -> None:
    store = opened()
    for number in (1, 2):
        store.put([b"%d" % number], b"meta of %d" % number, b"body %d" % number)
    if "keys SET key" in altered:
        store.delete(b"1")
    with contextlib.closing(sqlite3.connect(store.path / "index.sqlite")) as db, db:
        db.execute(f"UPDATE {altered}")
    assert any("not as written" in line for line in store.integrity())
    for number in (1, 2):
        stored = store.get(b"%d" % number)
        assert stored is None or (stored.entry.meta, stored.body) == (
            b"meta of %d" % number,
            b"body %d" % number,
        )
    assert any("dropped, a miss: its row was altered" in line for line in log)
    store.put([b"1"], b"", b"again")
    assert store.get(b"1").body == b"again"
    assert not any("not as written" in line for line in store.integrity())


@pytest.mark.parametrize("seed", range(4))
def test_altered_bytes_of_an_index_serve_no_wrong_answer(tmp_path: Path, seed: int) -> None:
    """A miss or a StoreError each, whatever was altered, and never a loop."""
    dice = random.Random(seed)
    whole = tmp_path / "whole"
    store = LocalStore.open(whole, Limits())
    answers = {
        b"%032d" % number: (b"meta %d" % number, b"body %d" % number) for number in range(40)
    }
    for key, (meta, body) in answers.items():
        store.put([key], meta, body, request=key, ttl=dice.choice((None, 1e6)))
    store.close()
    good = (whole / "index.sqlite").read_bytes()
    for turn in range(10):
        path = tmp_path / str(turn)
        shutil.copytree(whole, path)
        raw = bytearray(good)
        for _ in range(dice.choice((1, 3, 30))):
            raw[dice.randrange(100, len(raw))] ^= 1 << dice.randrange(8)
        (path / "index.sqlite").write_bytes(raw)
        with contextlib.suppress(StoreError):
            store = LocalStore.open(path, Limits(max_entries=35))
            for key, answer in answers.items():
                with contextlib.suppress(StoreError):
                    stored = store.get(key)
                    assert stored is None or (stored.entry.meta, stored.body) == answer
            for use in (
                lambda store: store.put([KEY], b"", b"body"),
                lambda store: list(store.entries()),
                lambda store: store.flush(),
                lambda store: store.integrity(),
                lambda store: store.clear(),
            ):
                with contextlib.suppress(StoreError):
                    use(store)
            store.close()


def test_the_ledger_of_an_index_set_aside_is_taken_over(opened: Any) -> None:
    store = opened()
    store.ledger.add({"a": {"calls": 3, "usd": 0.5}})
    store.close()
    make_unusable("table missing", store.path / "index.sqlite")
    assert opened().ledger.read() == {"a": {"calls": 3, "usd": 0.5}}


def test_an_index_replaced_under_a_running_store_is_followed(opened: Any, log: list[str]) -> None:
    one = opened()
    one.put([KEY], b"", b"old")
    (one.path / "index.sqlite").rename(one.path / "elsewhere")
    two = opened()
    two.put([OTHER], b"", b"new")
    one.flush()
    assert one.get(KEY) is None
    assert one.get(OTHER).body == b"new"
    one.put([KEY], b"", b"again")
    assert two.get(KEY).body == b"again"


def test_a_store_removed_while_open_is_made_anew(opened: Any) -> None:
    store = opened()
    store.put([KEY], b"", b"old")
    shutil.rmtree(store.path)
    store.put([OTHER], b"", b"new")
    assert store.get(KEY) is None
    assert store.get(OTHER).body == b"new"
    assert store.integrity() == []


def test_no_space_for_the_blob_leaves_the_store_as_it_was(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    store.put([KEY], b"", b"body")
    real_write = os.write
    room = [7]

    def write(fd: int, data: Any) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        part = data[: room[0]]
        room[0] -= len(part)
        return real_write(fd, part)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StoreError, match="No space"):
        store.put([KEY, OTHER], b"", b"other body", request=b"r", tallies={"s": {"n": 1}})
    monkeypatch.undo()
    assert list((store.path / "tmp").iterdir()) == []
    assert store.ledger.read() == {}
    assert store.integrity() == []
    assert store.get(KEY).body == b"body"
    store.put([OTHER], b"", b"other body")
    assert store.get(OTHER).body == b"other body"


def test_no_space_for_the_index_leaves_the_store_as_it_was(opened: Any) -> None:
    store = opened()
    store.put([KEY], b"", b"body")
    db = store._index.write
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for number in range(500):
            store.put([b"%d" % number], b"m" * 3_000, b"body %d" % number)

    with pytest.raises(StoreError, match="full"):
        fill()
    assert store.integrity() == []
    assert store.get(KEY).body == b"body"
    db.execute("PRAGMA max_page_count = 1073741823")
    store.put([OTHER], b"", b"more")
    assert store.get(OTHER).body == b"more"
    assert store.integrity() == []


def test_everything_is_private_whatever_the_umask(tmp_path: Path) -> None:
    for number, umask in enumerate((0o000, 0o022, 0o277)):
        before = os.umask(umask)
        try:
            store = LocalStore.open(tmp_path / f"store{number}", Limits())
            store.put([KEY], b"", b"body", request=b"asked")
            store.get(KEY)
            store.flush()
            for path in (store.path, *store.path.rglob("*")):
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), path
            store.close()
        finally:
            os.umask(before)


def in_child(work: Callable[[], bool]) -> bool:
    """Fork, do the work, and return whether it went well."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.process
def test_a_store_is_closed_in_a_forked_child_and_goes_on_in_the_parent(opened: Any) -> None:
    store = opened()
    store.put([KEY], b"", b"body")

    def work() -> bool:
        for call in (lambda: store.get(KEY), lambda: store.put([KEY], b"", b""), store.totals):
            with pytest.raises(StoreError, match="before a fork"):
                call()
        store.close()
        return True

    assert in_child(work)
    assert store.get(KEY).body == b"body"
    store.put([OTHER], b"", b"more")
    assert store.integrity() == []


@pytest.mark.process
def test_a_forked_child_opens_the_store_for_itself(opened: Any, clock: Any, tmp_path: Path) -> None:
    store = opened()
    store.put([KEY], b"", b"body")
    to_child, by_parent = os.pipe()
    to_parent, by_child = os.pipe()

    def work() -> bool:
        os.close(by_parent)  # a parent that fails ends the wait, too
        own = LocalStore.open(tmp_path / "store", Limits(), clock=clock)
        own.put([OTHER], b"", b"from the child")
        os.write(by_child, b"x")
        os.read(to_child, 1)  # until the parent has closed its store
        own.put([b"third"], b"", b"after the parent")
        own.delete(KEY)
        stored = own.get(OTHER)
        fine = stored is not None and stored.body == b"from the child" and not own.integrity()
        own.close()
        return fine

    child = os.fork()
    if not child:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    os.close(by_child)
    try:
        assert os.read(to_parent, 1) == b"x"
        assert store.get(OTHER).body == b"from the child"
        store.close()
    finally:
        os.close(by_parent)
        status = os.waitpid(child, 0)[1]
        os.close(to_child)
        os.close(to_parent)
    assert status == 0
    again = opened()
    assert again.get(KEY) is None
    assert again.get(b"third").body == b"after the parent"
    assert again.integrity() == []


@pytest.mark.process
def test_a_fork_waits_for_the_threads_at_work(opened: Any) -> None:
    store = opened()
    stop = threading.Event()
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            for number in itertools.count():
                if stop.is_set():
                    return
                store.put([b"%d" % (number % 9)], b"", b"body %d" % number)
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    done = [in_child(lambda: True) for _ in range(10)]
    stop.set()
    thread.join()
    assert wrong == []
    assert all(done)
    assert store.integrity() == []


FILE_SIZE = """
import resource, signal, sys
from pathlib import Path
from llm_cache.errors import StoreError
from llm_cache.store import Limits
from llm_cache.store.local import LocalStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = LocalStore.open(Path(sys.argv[1]), Limits())
store.put([b"first"], b"", b"first body")
for limit in (40, 5_000, 50_000, 200_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    refused = 0
    for number in range(200):
        try:
            store.put([b"%d" % number], b"m" * 3_000, b"body %d " % number * 50)
        except StoreError:
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert refused, limit
    assert store.integrity() == [], (limit, store.integrity())
    store.put([b"after"], b"", b"after %d" % limit)
    assert store.get(b"after").body == b"after %d" % limit
    assert store.get(b"first").body == b"first body"
store.close()
"""


@pytest.mark.process
def test_files_that_may_not_grow_refuse_puts_and_harm_nothing(tmp_path: Path) -> None:
    """The kernel itself refuses the writes here, to blobs and to the WAL alike."""
    command = [sys.executable, "-W", "error", "-c", FILE_SIZE, str(tmp_path / "store")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_flush_empties_the_wal_so_that_no_put_has_to(tmp_path: Path) -> None:
    store = LocalStore.open(tmp_path / "store", Limits())
    wal = tmp_path / "store" / "index.sqlite-wal"
    number = 0
    while not wal.exists() or wal.stat().st_size < 1 << 20:
        number += 1
        store.put([number.to_bytes(32)], b"m" * 2000, b"body %d" % number)
    store.flush()
    before = wal.stat().st_size
    for _ in range(20):  # they begin the WAL anew, over what was moved into the index
        number += 1
        store.put([number.to_bytes(32)], b"m" * 2000, b"body %d" % number)
    assert wal.stat().st_size == before
    assert all(store.get(n.to_bytes(32)) for n in range(1, number + 1))
    store.close()
