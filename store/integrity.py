"""The check of a whole store: does the index agree with itself and with the files?

For `verify`, the crash tests and whoever doubts. It reads everything, so it isn't for a hot path.
"""

from __future__ import annotations

import sqlite3

from llm_cache.store.blobs import SHARDS, BlobDamaged, Blobs

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


def check(db: sqlite3.Connection, blobs: Blobs) -> list[str]:
    """Return what is wrong, one line each; nothing when all is well. Under the write lock."""
    wrong = [str(line) for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
    if wrong:
        return wrong
    for query in _FACTS:
        wrong += [str(line) for (line,) in db.execute(query)]
    known = set()
    for raw_digest, size, disk_size in db.execute("SELECT digest, size, disk_size FROM blobs"):
        digest = raw_digest.hex()
        known.add(digest)
        try:
            blobs.read(digest, size, disk_size)
        except BlobDamaged as error:
            wrong.append(f"blob {digest}: {error}")
    for number in range(SHARDS):
        wrong += [f"orphan {digest}" for digest in blobs.shard(number) if digest not in known]
    return wrong
