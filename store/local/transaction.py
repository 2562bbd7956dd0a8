"""One write to the store: rows and files changed together.

Used only under the write lock. The order that keeps a crash harmless: a blob's file is in place
before the commit that names it, and is unlinked after the commit that forgets it. A writer that
dies in between leaves a file nobody names, and never a name without its file.

Totals are read once, changed in memory and written with the commit, so that nothing is counted
by looking at all of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llm_cache.errors import StoreError
from llm_cache.store.entry import Tally
from llm_cache.store.limits import Limits
from llm_cache.store.local.blobs import BlobDraft, Blobs, Step
from llm_cache.store.local.index import Contradiction, Log, seal_of
from llm_cache.store.local.touches import Touches

_EVERYTHING = (0.0, 1 << 62)  # of what is pending for an entry that is gone


class Transaction:
    """An IMMEDIATE transaction, files included: `begin`, changes, then `commit` or `rollback`."""

    def __init__(self, db: sqlite3.Connection, blobs: Blobs, step: Step, log: Log) -> None:
        self._db = db
        self._blobs = blobs
        self._step = step
        self._log = log
        self._placed: list[str] = []  # digests of files that have no row but in this transaction
        self._freed: list[str] = []  # digests of files that have no row any more
        self._touched: dict[int, tuple[float, int]] = {}
        self.entries = self.bytes = self.last_id = self.removals = 0
        self._took_keys = False
        self.without_request: set[int] = set()  # entries whose request body was taken away

    # -- beginning and ending it

    def begin(self, patience: float) -> None:
        """Take SQLite's write lock, waiting up to `patience` seconds, and read the totals."""
        self._db.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}").fetchall()
        self._db.execute("BEGIN IMMEDIATE")
        self._was: tuple[int, int, int, int] = self._db.execute(
            "SELECT entries, bytes, last_id, removals FROM totals"
        ).fetchone()
        self.entries, self.bytes, self.last_id, self.removals = self._was

    def commit(self, touches: Touches) -> None:
        """Commit, then unlink what nobody points at any more. Raises only when not committed."""
        if self._took_keys:
            self.removals += 1
        totals = (self.entries, self.bytes, self.last_id, self.removals)
        if totals != self._was:
            self._db.execute(
                "UPDATE totals SET entries = ?, bytes = ?, last_id = ?, removals = ?", totals
            )
        self._step("totals-written")
        self._db.execute("COMMIT")
        self._placed.clear()
        self._step("committed")
        touches.written(self._touched)
        for digest in self._freed:
            try:
                self._blobs.unlink(digest)
            except OSError as error:
                self._log(f"store: a blob nobody needs stays until it is swept: {error}")
            self._step("unlinked")

    def rollback(self) -> None:
        """Undo the rows and remove the files that only this transaction knew."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        for digest in self._placed:
            self._blobs.unlink(digest)

    # -- adding

    def add(
        self,
        keys: Sequence[bytes],
        meta: bytes,
        answer: BlobDraft,
        request: BlobDraft | None,
        ttl: float | None,
        created: float,
        accessed: float,
        hits: int,
    ) -> tuple[int, int]:
        """Add an entry and point all its keys at it; return its id and its blob's size on disk."""
        digest = bytes.fromhex(answer.digest)
        disk_size = self._refer(answer, digest)
        request_digest = None
        if request is not None:
            request_digest = bytes.fromhex(request.digest)
            self._refer(request, request_digest)
        self._step("blobs-placed")
        self.last_id += 1
        entry = self.last_id
        self._db.execute(
            "INSERT INTO entries VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            (entry, digest, request_digest, created, accessed, hits, ttl, meta),
        )
        self.entries += 1
        self._step("entry-inserted")
        left: set[int] = set()
        for rank, key in enumerate(keys):
            before = self._db.execute("SELECT entry FROM keys WHERE key = ?", (key,)).fetchone()
            if before is not None:
                left.add(before[0])
            seal = seal_of(key, entry, digest, meta)
            self._db.execute(
                "INSERT OR REPLACE INTO keys VALUES(?, ?, ?, ?)", (key, entry, rank, seal)
            )
        self._step("keys-pointed")
        for other in left:
            self._took_keys = True
            has_key = self._db.execute("SELECT 1 FROM keys WHERE entry = ? LIMIT 1", (other,))
            if has_key.fetchone() is None:
                self.remove(other)
        return entry, disk_size

    def _refer(self, draft: BlobDraft, digest: bytes) -> int:
        row = self._db.execute(
            "SELECT size, disk_size FROM blobs WHERE digest = ?", (digest,)
        ).fetchone()
        size = len(draft.body)
        if row is None:
            self._placed.append(draft.digest)
            disk_size = self._blobs.place(draft)
            self._step("blob-renamed")
            self._db.execute("INSERT INTO blobs VALUES(?, ?, ?, 1)", (digest, size, disk_size))
            self.bytes += disk_size
            return disk_size
        if row[0] != size:
            raise StoreError(f"another body has the digest {draft.digest}: not stored")
        disk_size = self._blobs.place(draft)
        self._step("blob-renamed")
        self._db.execute(
            "UPDATE blobs SET refs = refs + 1, disk_size = ? WHERE digest = ?", (disk_size, digest)
        )
        self.bytes += disk_size - int(row[1])
        return disk_size

    def tally(self, tallies: Mapping[str, Tally]) -> None:
        """Add to the ledger."""
        self._db.executemany(
            "INSERT INTO ledger VALUES(?, ?, ?) ON CONFLICT(scope, name)"
            " DO UPDATE SET value = value + excluded.value",
            [
                (scope, name, amount)
                for scope, counters in tallies.items()
                for name, amount in counters.items()
            ],
        )

    # -- taking away

    def remove(self, entry: int) -> bool:
        """Remove an entry with its keys; return whether it was there."""
        row = self._db.execute(
            "DELETE FROM entries WHERE id = ? RETURNING digest, request", (entry,)
        ).fetchone()
        if row is None:
            return False
        self._db.execute("DELETE FROM keys WHERE entry = ?", (entry,))
        self._took_keys = True
        self.entries -= 1
        for digest in row:
            if digest is not None:
                self._release(digest)
        self._touched[entry] = _EVERYTHING
        self._step("entry-removed")
        return True

    def remove_named(self, entry: int) -> None:
        """Remove an entry that an index of the table has just named. Raises Contradiction."""
        if not self.remove(entry):
            raise Contradiction(f"no entry {entry}, but in an index of them")

    def remove_request(self, entry: int) -> bool:
        """Remove the request body kept with an entry; return whether there was one."""
        row = self._db.execute("SELECT request FROM entries WHERE id = ?", (entry,)).fetchone()
        if row is None or row[0] is None:
            return False
        self._db.execute("UPDATE entries SET request = NULL WHERE id = ?", (entry,))
        self.without_request.add(entry)
        self._release(row[0])
        self._step("request-removed")
        return True

    def _release(self, digest: bytes) -> None:
        row = self._db.execute(
            "UPDATE blobs SET refs = refs - 1 WHERE digest = ? RETURNING refs, disk_size", (digest,)
        ).fetchone()
        if row is not None and row[0] <= 0:
            self._db.execute("DELETE FROM blobs WHERE digest = ?", (digest,))
            self.bytes -= row[1]
            self._freed.append(digest.hex())

    def remove_all(self) -> int:
        """Remove every entry, not the ledger; return how many there were. Leaves the files."""
        removed = self.entries
        for table in ("keys", "entries", "blobs"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 (names from the line above)
        self.entries = self.bytes = 0
        self._took_keys = True
        self._step("all-removed")
        return removed

    # -- keeping to the limits

    def keep_within(self, limits: Limits, touches: Touches, keep: int, most: int) -> None:
        """Have the limits hold after a put.

        Where they didn't hold before (they were lowered), no more than `most` of that excess is
        taken away: one answer isn't to wait for all of it.
        """
        entries, size = self._was[:2]
        now = replace(
            limits,
            max_entries=limits.max_entries and max(limits.max_entries, entries),
            max_bytes=limits.max_bytes and max(limits.max_bytes, size),
        )
        self.shrink(now, touches, keep, None)
        if now != limits:
            self.shrink(limits, touches, keep, most)

    def shrink(self, limits: Limits, touches: Touches, keep: int | None, most: int | None) -> bool:
        """Take away until the limits hold; return whether they do.

        Too many entries: the least recently used go. Too many bytes: the request bodies of the
        least recently used entries go first, answers only when there are none left. `keep` is an
        entry that stays whatever the clock says. `most` bounds the work; None: as much as needed.
        """
        while limits.max_entries and self.entries > limits.max_entries:
            if most == 0:
                return False
            most = None if most is None else most - 1
            victim = self._least_used("entries_used", "1", touches, keep)
            if victim is None:
                break
            self.remove_named(victim)
        while limits.max_bytes and self.bytes > limits.max_bytes:
            if most == 0:
                return False
            most = None if most is None else most - 1
            victim = self._least_used("entries_requests", "request IS NOT NULL", touches, keep)
            if victim is not None:
                if not self.remove_request(victim):
                    raise Contradiction(f"no entry {victim} with a request, but in an index of it")
                continue
            if keep is not None and self.remove_request(keep):
                continue
            victim = self._least_used("entries_used", "1", touches, keep)
            if victim is None:
                break
            self.remove_named(victim)
        return True

    def _least_used(
        self, index: str, condition: str, touches: Touches, keep: int | None
    ) -> int | None:
        """Return the entry whose last use is longest ago, pending touches counted."""
        query = (
            f"SELECT id, accessed FROM entries INDEXED BY {index}"  # noqa: S608 (our own words)
            f" WHERE {condition} AND id IS NOT ? ORDER BY accessed LIMIT 1"
        )
        while True:
            row = self._db.execute(query, (keep,)).fetchone()
            if row is None:
                return None
            entry = int(row[0])
            accessed = float(row[1])
            touch = touches.of(entry)
            if touch is None or entry in self._touched or touch[0] <= accessed:
                return entry
            self.touch({entry: touch}, touch[0])

    def touch(self, batch: Mapping[int, tuple[float, int]], now: float) -> None:
        """Write access times, none of them later than `now`, and hit counts."""
        self._db.executemany(
            "UPDATE entries SET accessed = max(accessed, min(?, ?)), hits = hits + ? WHERE id = ?",
            [(accessed, now, hits, entry) for entry, (accessed, hits) in batch.items()],
        )
        self._touched.update(batch)

    def expired(self, limits: Limits, now: float, most: int) -> list[int]:
        """Return up to `most` entries that are expired and not kept any more, by index."""
        gone = limits.gone_at(now)
        due = [
            row[0]
            for row in self._db.execute(
                "SELECT id FROM entries INDEXED BY entries_due"
                " WHERE ttl IS NOT NULL AND created + ttl <= ? LIMIT ?",
                (gone, most),
            )
        ]
        if limits.ttl_sec and len(due) < most:
            # In order, by the sum in `Limits.expires`: a bound of `now - ttl` rounds otherwise.
            for entry, created in self._db.execute(
                "SELECT id, created FROM entries INDEXED BY entries_aging"
                " WHERE ttl IS NULL ORDER BY created LIMIT ?",
                (most - len(due),),
            ):
                if created + limits.ttl_sec > gone:
                    break
                due.append(entry)
        return due

    def from_the_future(self, now: float, most: int) -> int:
        """Give entries made or used after `now` (the clock was set back) the time `now`."""
        changed = 0
        for index, condition, column in (
            ("entries_aging", "ttl IS NULL", "created"),
            ("entries_timed", "ttl IS NOT NULL", "created"),
            ("entries_used", "1", "accessed"),
        ):
            changed += self._db.execute(
                f"UPDATE entries SET {column} = ?1 WHERE id IN (SELECT id FROM entries"  # noqa: S608
                f" INDEXED BY {index} WHERE {condition} AND {column} > ?1 LIMIT ?2)",
                (now, most),
            ).rowcount
        return changed

    def arrived(self, entry: int, now: float) -> None:
        """Give one entry from the future the time `now`."""
        self._db.execute(
            "UPDATE entries SET created = ?1, accessed = min(accessed, ?1)"
            " WHERE id = ?2 AND created > ?1",
            (now, entry),
        )
