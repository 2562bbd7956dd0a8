"""A look at a store from outside: what is in it and whether it is sound, with nothing changed.

No lock is taken, no file is made, nothing is mended; it is safe beside any number of users. A look
is bounded in time, so it finds what is plainly wrong; `integrity` reads everything.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from llm_cache.errors import StoreError, StoreFormatError
from llm_cache.store.local.blobs import BlobDamaged, Blobs
from llm_cache.store.local.index import APPLICATION_ID, FORMAT, MISREAD

LOOK_SEC = 2.0
"""How long the index is searched for damage."""
_SAMPLE = 50
_SAMPLE_BYTES = 64 << 20
_OPS_PER_ASKING = 20_000


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. `whole`: the index was searched to its end; `blobs`: how many were read."""

    format: int
    entries: int
    bytes: int
    whole: bool
    blobs: int
    faults: tuple[str, ...]


def look(root: Path) -> Look | None:
    """What is in the store in the folder `root`; None when there is no index yet.

    Raises StoreFormatError when a newer llm-cache wrote it, StoreError when it can't be read.
    """
    path = root / "index.sqlite"
    try:
        with path.open("rb") as file:
            header = file.read(72)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: can't be read: {error.strerror}") from None
    if not header:
        return None
    found = int.from_bytes(header[60:64], "big")
    if not header.startswith(b"SQLite format 3\0"):
        raise StoreError(f"{path}: isn't an index of a store")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise StoreError(f"{path}: belongs to another program")
    if found > FORMAT:
        raise StoreFormatError(
            f"{path} has format {found}, this llm-cache knows formats up to {FORMAT}"
        )
    try:
        with _reading(path) as db:
            return _seen(db, Blobs(root, lambda _step: None), found)
    except (sqlite3.Error, *MISREAD) as error:
        raise StoreError(f"{path}: can't be read: {error}") from None


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    # SQLite makes a WAL for whoever opens a file that has none, even to read. Without one nobody
    # has the store open, and what is in the file is all there is.
    quiet = not path.with_name(path.name + "-wal").exists()
    address = f"file:{quote(os.fsencode(path))}?mode=ro" + ("&immutable=1" if quiet else "")
    with closing(sqlite3.connect(address, uri=True, timeout=1.0, isolation_level=None)) as db:
        yield db


def _seen(db: sqlite3.Connection, blobs: Blobs, found: int) -> Look:
    entries, size = db.execute("SELECT entries, bytes FROM totals").fetchone() or (0, 0)
    whole, faults = _searched(db)
    rows = db.execute(
        "SELECT b.digest, b.size, b.disk_size FROM entries e INDEXED BY entries_used"
        " JOIN blobs b ON b.digest = e.digest ORDER BY e.accessed DESC LIMIT ?",
        (_SAMPLE,),
    )
    read, amount = 0, 0
    for digest, length, disk_size in dict.fromkeys(rows.fetchall()):
        if amount and amount + length > _SAMPLE_BYTES:
            break
        read, amount = read + 1, amount + length
        try:
            blobs.read(digest.hex(), length, disk_size)
        except (BlobDamaged, OSError) as error:
            if _is_still_named(db, digest):
                faults.append(f"blob {digest.hex()}: {error}")
    return Look(found, entries, size, whole, read, tuple(faults))


def _searched(db: sqlite3.Connection) -> tuple[bool, list[str]]:
    """Whether the index was searched to its end, and what is wrong with it."""
    deadline = time.monotonic() + LOOK_SEC
    db.set_progress_handler(lambda: time.monotonic() > deadline, _OPS_PER_ASKING)
    try:
        lines = [str(line) for (line,) in db.execute("PRAGMA quick_check(5)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return False, []
    finally:
        db.set_progress_handler(None, 0)
    return True, [f"index: {line}" for line in lines if line != "ok"]


def _is_still_named(db: sqlite3.Connection, digest: bytes) -> bool:
    """False when the blob went meanwhile, as blobs do."""
    query = "SELECT 1 FROM blobs WHERE digest = ?"
    return db.execute(query, (digest,)).fetchone() is not None
