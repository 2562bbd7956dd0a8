"""The check of a whole store: does the index agree with itself and with the files?

For `verify`, the crash tests and whoever doubts. It reads everything, which takes its time, so the
write lock isn't held meanwhile: the index is searched as it is at one moment, and a file that looks
wrong is looked at once more, alone, as a writer may just have been at it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from llm_cache.store.local import queries
from llm_cache.store.local.blobs import SHARDS, BlobDamaged, Blobs
from llm_cache.store.local.index import Row, is_sealed

_FACTS = (
    (
        "SELECT 'totals say ' || t.entries || ' entries, there are ' || count(e.id)"
        " FROM totals t LEFT JOIN entries e HAVING t.entries <> count(e.id)"
    ),
    (
        "SELECT 'totals say ' || t.bytes || ' bytes, there are ' || total(b.disk_size)"
        " FROM totals t LEFT JOIN blobs b HAVING t.bytes <> total(b.disk_size)"
    ),
    (
        "SELECT 'blob ' || lower(hex(b.digest)) || ' has ' || b.refs || ' refs, needs ' || ("
        " (SELECT count(*) FROM entries WHERE digest = b.digest)"
        " + (SELECT count(*) FROM entries WHERE request = b.digest)) FROM blobs b"
        " LEFT JOIN (SELECT d, count(*) AS n FROM (SELECT digest AS d FROM entries"
        " UNION ALL SELECT request FROM entries) GROUP BY d) u ON u.d = b.digest"
        " WHERE b.refs <> coalesce(u.n, 0)"
    ),
    (
        "SELECT 'entry ' || id || ' points at a blob that has no row' FROM entries"
        " WHERE digest NOT IN (SELECT digest FROM blobs)"
        " OR (request IS NOT NULL AND request NOT IN (SELECT digest FROM blobs))"
    ),
    (
        "SELECT 'entry ' || id || ' has no key' FROM entries"
        " WHERE id NOT IN (SELECT entry FROM keys)"
    ),
    (
        "SELECT 'key ' || lower(hex(key)) || ' points at no entry' FROM keys"
        " WHERE entry NOT IN (SELECT id FROM entries)"
    ),
    "SELECT 'entry ' || id || ' is beyond the last id' FROM entries, totals WHERE id > last_id",
)


_SEALS = "SELECT k.key, k.seal, e.id, e.digest, e.meta FROM keys k JOIN entries e ON e.id = k.entry"
_BLOBS = "SELECT digest, size, disk_size FROM blobs WHERE digest > ? ORDER BY digest LIMIT ?"
_BLOB = "SELECT digest, size, disk_size FROM blobs WHERE digest = ?"


def check(
    db: sqlite3.Connection, blobs: Blobs, alone: Callable[[], AbstractContextManager[None]]
) -> list[str]:
    """Return what is wrong, one line each; nothing when all is well. `alone` is the write lock."""
    db.execute("BEGIN")  # a snapshot: nobody waits for it
    try:
        wrong = [str(line) for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
        if wrong:
            return wrong
        for query in _FACTS:
            wrong += [str(line) for (line,) in db.execute(query)]
        for key, seal, *entry in db.execute(_SEALS):
            if not is_sealed(seal, key, *entry):
                wrong.append(f"key {key.hex()} and its entry {entry[0]} are not as written")
    finally:
        db.execute("ROLLBACK")
    for row in _all_blobs(db):
        if _fault(blobs, row):
            with alone():
                again = db.execute(_BLOB, row[:1]).fetchone()
                fault = again and _fault(blobs, again)
            if fault:
                wrong.append(f"blob {row[0].hex()}: {fault}")
    for number in range(SHARDS):
        if queries.unknown(db, blobs.shard(number)):
            with alone():
                orphans = queries.unknown(db, blobs.shard(number))
            wrong += [f"orphan {digest}" for digest in orphans]
    return wrong


def _all_blobs(db: sqlite3.Connection) -> Iterator[Row]:
    last = b""
    while rows := db.execute(_BLOBS, (last, queries.PAGE_SIZE)).fetchall():
        yield from rows
        last = rows[-1][0]


def _fault(blobs: Blobs, row: Row) -> str:
    """What is wrong with the file of a blob; "" when it is sound."""
    digest, size, disk_size = row
    try:
        blobs.read(digest.hex(), size, disk_size)
    except (BlobDamaged, OSError) as error:
        return str(error)
    return ""
