"""What is asked of the index: each question is a look-up or a page, none is a scan.

The functions take a connection and leave no transaction open behind them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from llm_cache.store.entry import Entry
from llm_cache.store.limits import Limits
from llm_cache.store.local.index import Row
from llm_cache.store.local.index import is_sealed as sealed

PAGE_SIZE = 200

_ENTRY = (
    "e.id, e.meta, e.digest, b.size, b.disk_size, e.request, e.created, e.accessed, e.hits, e.ttl"
)
BY_KEY = (
    f"SELECT {_ENTRY}, k.seal FROM keys k JOIN entries e ON e.id = k.entry"  # noqa: S608
    " JOIN blobs b ON b.digest = e.digest WHERE k.key = ?"
)
POINTS_TO = "SELECT entry, seal FROM keys WHERE key = ?"
_BY_PREFIX = (
    f"SELECT {_ENTRY}, k.key FROM keys k JOIN entries e ON e.id = k.entry"  # noqa: S608
    " JOIN blobs b ON b.digest = e.digest WHERE k.key >= ? ORDER BY k.key LIMIT ?"
)
KEYS_OF = "SELECT key FROM keys WHERE entry = ? ORDER BY rank"
_PAGE = (
    f"SELECT {_ENTRY}, (SELECT key FROM keys WHERE entry = e.id ORDER BY rank LIMIT 1)"  # noqa: S608
    " FROM entries e INDEXED BY entries_used JOIN blobs b ON b.digest = e.digest"
    " WHERE {} ORDER BY e.accessed DESC, e.id DESC LIMIT ?"
)
# Two look-ups, because SQLite can't seek to (accessed, id) < (?, ?) in one.
_PAGE_OF_THAT_TIME = _PAGE.format("e.accessed = ? AND e.id < ?")
_PAGE_BEFORE = _PAGE.format("e.accessed < ?")

_LEAST_USED = (
    "SELECT e.id, e.digest, b.disk_size, b.refs, e.request, r.disk_size, r.refs"
    " FROM entries e INDEXED BY entries_used LEFT JOIN blobs b ON b.digest = e.digest"
    " LEFT JOIN blobs r ON r.digest = e.request ORDER BY e.accessed"
)
EXTREMES = (
    "SELECT entries, bytes,"
    " (SELECT min(created) FROM entries WHERE ttl IS NULL),"
    " (SELECT min(created + ttl) FROM entries WHERE ttl IS NOT NULL),"
    " (SELECT max(created) FROM entries WHERE ttl IS NULL),"
    " (SELECT max(created) FROM entries WHERE ttl IS NOT NULL),"
    " (SELECT max(accessed) FROM entries) FROM totals"
)


def entry_of(row: Row) -> Entry:
    """Return the entry in a row of `BY_KEY` or one of the functions here."""
    id_, meta, digest, size, disk_size, request, created, accessed, hits, ttl = row[:10]
    return Entry(
        id=id_,
        meta=meta,
        digest=digest.hex(),
        size=size,
        disk_size=disk_size,
        request_digest=None if request is None else request.hex(),
        created=created,
        accessed=accessed,
        hits=hits,
        ttl=ttl,
    )


def is_sealed(key: bytes, row: Row) -> bool:
    """Tell whether a row of `BY_KEY` is as it was written."""
    return sealed(row[10], key, entry=row[0], digest=row[2], meta=row[1])


def is_of(key: bytes, row: Row, entry: Entry) -> bool:
    """Tell whether a row of `POINTS_TO` is the one that was written for this entry."""
    digest = bytes.fromhex(entry.digest)
    return bool(row[0] == entry.id and sealed(row[1], key, entry.id, digest, entry.meta))


def by_prefix(db: sqlite3.Connection, prefix: str) -> Iterator[tuple[str, Entry]]:
    """Yield the keys that start with `prefix` (lower-case hex) in order, with their entries."""
    if prefix.strip("0123456789abcdef"):
        return
    start = bytes.fromhex(prefix + "0" * (len(prefix) % 2))
    while True:
        rows = db.execute(_BY_PREFIX, (start, PAGE_SIZE)).fetchall()
        for row in rows:
            key = row[-1].hex()
            if not key.startswith(prefix):
                return
            yield key, entry_of(row)
        if len(rows) < PAGE_SIZE:
            return
        start = rows[-1][-1] + b"\0"


def page_after(db: sqlite3.Connection, last: Entry | None) -> list[tuple[str, Entry]]:
    """Return the next entries after `last`, most recently used first; none at the end."""
    rows: list[Row] = []
    accessed = float("inf")
    if last is not None:
        accessed = last.accessed
        rows = db.execute(_PAGE_OF_THAT_TIME, (accessed, last.id, PAGE_SIZE)).fetchall()
    if len(rows) < PAGE_SIZE:
        rows += db.execute(_PAGE_BEFORE, (accessed, PAGE_SIZE - len(rows))).fetchall()
    return [(row[-1].hex(), entry_of(row)) for row in rows]


def is_beyond(limits: Limits, now: float, extremes: Row) -> bool:
    """Tell whether the row of `EXTREMES` breaks a limit, or has a time that is yet to come."""
    gone = limits.gone_at(now)
    entries, size, oldest, due, *latest = extremes
    return bool(
        (limits.max_entries and entries > limits.max_entries)
        or (limits.max_bytes and size > limits.max_bytes)
        or (limits.ttl_sec and oldest is not None and oldest + limits.ttl_sec <= gone)
        or (due is not None and due <= gone)
        or any(time is not None and time > now for time in latest)
    )


def least_used(db: sqlite3.Connection) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Yield entries, least recently used first, with the digests and the sizes on disk of what only
    they point at."""
    with closing(db.execute(_LEAST_USED)) as rows:
        for entry, *blobs in rows:
            own = (blobs[:3], blobs[3:])
            yield entry, [(digest.hex(), size) for digest, size, refs in own if refs == 1]


def unknown(db: sqlite3.Connection, digests: list[str]) -> list[str]:
    """Return those of the digests that no blob of the index has."""
    query = "SELECT 1 FROM blobs WHERE digest = ?"
    return [
        digest
        for digest in digests
        if db.execute(query, (bytes.fromhex(digest),)).fetchone() is None
    ]
