"""The local store: the files and the index of one folder, behind one thread-safe object.

What always holds:
- It keeps no answers in memory: that is the memory tier's, which stands in front (memory.py).
- The way of a hit is `_get`, top to bottom. It writes nothing: uses are noted in `touches`, and
  `flush` writes them.
- Everything that changes rows or files goes through `_write`: the write lock, one transaction,
  files before the commit or after it.
- Only StoreError leaves this room; `_door` is where sqlite3, OSError and zstandard end.
- A store is closed in a child of a fork (store/forks.py says why).
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import zstandard

from llm_cache.errors import StoreBusy, StoreError, StoreFormatError
from llm_cache.store import forks
from llm_cache.store.contract import Draft
from llm_cache.store.entry import Entry, Stored, Tally, Totals
from llm_cache.store.limits import Limits
from llm_cache.store.local import integrity, queries
from llm_cache.store.local.blobs import SHARDS, BlobDamaged, BlobDraft, Blobs, Step, encode
from llm_cache.store.local.index import BUSY_SEC, MISREAD, Index, Log, Row, is_busy, is_corruption
from llm_cache.store.local.ledger import Ledger
from llm_cache.store.local.lock import WriteLock
from llm_cache.store.local.space import Space, is_full, wal_bytes
from llm_cache.store.local.touches import Touches
from llm_cache.store.local.transaction import Transaction

_TOUCHES_PER_WRITE = 1_000
_REMOVALS_PER_WRITE = 200
_HOUSEKEEPING_SEC = 0.05
_MOST_OPENINGS = 1 << 20
T = TypeVar("T")
_FOREIGN = (sqlite3.Error, OSError, zstandard.ZstdError, OverflowError)


def _no_step(name: str) -> None:
    pass


def _no_log(line: str) -> None:
    pass


class LocalStore:
    """Answers on disk by key, within limits: a `Backend`. Open one with `LocalStore.open`."""

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        clock: Callable[[], float],
        log: Log,
        step: Step,
        patience: float,
    ) -> None:
        self.path = path
        self.limits = limits
        self._clock = clock
        self._log = log
        self._step = step
        self._blobs = Blobs(path, step)
        self._lock = WriteLock(path / "lock", patience)
        self._index = Index(path, log, clock, patience, wal_bytes(path.parent, limits.max_bytes))
        self._space = Space(path, self._blobs, self._index, lambda: self._transaction(0))
        self._touches = Touches()
        self._open = False
        self._forked = False
        self._version = -1  # PRAGMA data_version of the read connection when the stamp was read
        self._stamp = 0
        self._openings = 0  # of the index, by this object
        self._unswept = list(range(SHARDS))
        random.shuffle(self._unswept)  # so that short lives sweep everything between them
        self.ledger = Ledger(self._writing, self._select)

    @classmethod
    def open(
        cls,
        path: Path,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.time,
        log: Log = _no_log,
        step: Step = _no_step,
        patience: float = BUSY_SEC,
        at_once: bool = True,
    ) -> LocalStore:
        """Open the store in the folder `path`, making it when it isn't there.

        `clock` gives unix seconds, `log` takes one line of what went wrong and was dealt with,
        `step` hears the name of each step of a write (crash tests use it). `patience` is how many
        seconds a write waits for others before it raises StoreBusy (see lock.py). Raises
        StoreFormatError, with nothing touched, when a newer llm-cache wrote the store, StoreError
        when it can't be opened. An index that can't be used is set aside and a new one begun.
        With `at_once` False, a store whose folder is one but which can't be opened now is logged
        and given back: every call raises StoreError until `flush` can open it.
        """
        store = cls(path, limits, clock=clock, log=log, step=step, patience=patience)
        try:
            with store._door():
                store._index.refuse_newer()
                store._blobs.lay_out()
                with store._lock.held(BUSY_SEC if at_once else patience):
                    store._open_index(None)
                    store._space.recover()
        except StoreFormatError:
            raise
        except StoreError as error:
            if at_once or (path.exists() and not path.is_dir()):
                raise
            log(f"store: can't be opened yet: {error}")
        store._open = True
        forks.register(store)
        try:
            with store._door():
                store._blobs.sweep_drafts()
                store._sweep_some(time.monotonic() + _HOUSEKEEPING_SEC / 5)
        except StoreError as error:
            log(f"store: not swept: {error}")
        return store

    def __repr__(self) -> str:
        return f"<LocalStore {self.path} {'open' if self._open else 'closed'}>"

    # -- reading

    def get(
        self, key: bytes, *, max_age: float | None = None, stale: bool = False
    ) -> Stored | None:
        """Return what `key` points to, whole and verified, or None.

        None when there is nothing, when it is expired or damaged (then it is dropped, and damage
        is logged), or when it is `max_age` seconds old or more. With `stale`, what is expired, or
        `max_age` old, by less than the limit `stale_sec` is returned too. Raises StoreError when
        the index can't be read.
        """
        with self._door():
            return self._get(key, max_age, stale)

    def stamp(self) -> int:
        """Return a number that is another one whenever a key was taken away or moved, by whatever
        process, or the index was opened anew. Raises StoreError when the index can't be read."""
        try:
            with self._index.read_lock:
                select = self._index.read.execute
                version = select("PRAGMA data_version").fetchone()[0]
                if version != self._version:
                    removals = select("SELECT removals FROM totals").fetchone()[0]
                    # Counted from the beginning again by an index that is begun anew.
                    self._stamp = removals * _MOST_OPENINGS + self._openings
                    self._version = version
                return self._stamp
        except (sqlite3.Error, *MISREAD) as error:
            raise self._mapped(error) from error

    def points_to(self, key: bytes, entry: Entry) -> bool:
        """Tell whether `key` points to this very entry now: its seal tells it from another one of
        that id in another index. Raises StoreError when the index can't be read."""
        with self._door(), self._index.read_lock:
            row = self._index.read.execute(queries.POINTS_TO, (key,)).fetchone()
        return row is not None and queries.is_of(key, row, entry)

    def touch(self, entry_id: int, now: float) -> None:
        """Count one use of an entry, at unix time `now`. `flush` writes it."""
        self._touches.note(entry_id, now)

    def _get(self, key: bytes, max_age: float | None, stale: bool) -> Stored | None:
        while True:
            with self._index.read_lock:
                row = self._index.read.execute(queries.BY_KEY, (key,)).fetchone()
            if row is None:
                return None
            entry = queries.entry_of(row)
            if not queries.is_sealed(key, row):
                if self._drop(entry, lambda: self._is_damaged(key)):
                    self._log(f"store: entry {entry.id} dropped, a miss: its row was altered")
                    return None
                continue
            now = self._clock()
            expires = self.limits.expires(entry)
            if expires <= self.limits.gone_at(now):
                self._drop(entry, lambda: True)
                return None
            if expires <= now and not stale:
                return None
            if entry.created > now:  # the clock was set back: its age starts now
                with self._write() as transaction:
                    transaction.arrived(entry.id, now)
                continue
            patience = self.limits.stale_sec if stale else 0
            if max_age is not None and now - entry.created >= max_age + patience:
                return None
            try:
                body = self._blobs.read(entry.digest, entry.size, entry.disk_size)
            except BlobDamaged as error:
                # A writer may have removed or replaced it since the look-up: ask again, alone.
                if self._drop(entry, lambda: self._is_damaged(key)):
                    self._log(f"store: blob {entry.digest} dropped, a miss: {error}")
                    return None
                continue
            self._touches.note(entry.id, now)
            return Stored(entry, body)

    def _is_damaged(self, key: bytes) -> bool:
        row = self._index.write.execute(queries.BY_KEY, (key,)).fetchone()
        if row is None:
            return False
        if not queries.is_sealed(key, row):
            return True
        entry = queries.entry_of(row)
        try:
            self._blobs.read(entry.digest, entry.size, entry.disk_size)
        except BlobDamaged:
            return True
        return False

    def _drop(self, entry: Entry, is_so: Callable[[], bool]) -> bool:
        """Remove an entry if `is_so` still says so under the write lock; return whether it did.

        A store that can't be written right now is logged, a busy one isn't: the next use or prune
        is soon enough. The reader's answer is the same.
        """
        try:
            return self._writing(
                lambda transaction: is_so() and (transaction.remove(entry.id) or True), removes=True
            )
        except StoreBusy:
            pass
        except StoreError as error:
            self._log(f"store: entry {entry.id} should go but can't: {error}")
        return True

    def answer_body(self, entry: Entry) -> bytes | None:
        """Return the body of `entry` without counting a use: for a look, not for an answer.

        None when it is gone or damaged; a damaged one stays for `get` to drop.
        """
        with self._door():
            try:
                return self._blobs.read(entry.digest, entry.size, entry.disk_size)
            except BlobDamaged:
                return None

    def request_body(self, entry: Entry) -> bytes | None:
        """Return the request body kept with `entry`, None when there is none (any more).

        A damaged one is logged and dropped. Raises StoreError when the index can't be read.
        """
        if entry.request_digest is None:
            return None
        digest = bytes.fromhex(entry.request_digest)
        query = "SELECT size, disk_size FROM blobs WHERE digest = ?"
        with self._door():
            with self._index.read_lock:
                row = self._index.read.execute(query, (digest,)).fetchone()
            if row is None:
                return None
            try:
                return self._blobs.read(entry.request_digest, *row)
            except BlobDamaged as error:
                with self._write() as transaction:
                    row = self._index.write.execute(query, (digest,)).fetchone()
                    if row is None:
                        return None
                    try:
                        return self._blobs.read(entry.request_digest, *row)
                    except BlobDamaged:
                        transaction.remove_request(entry.id)
                self._log(f"store: request body {entry.request_digest} dropped: {error}")
                return None

    def keys_of(self, entry: Entry) -> list[bytes]:
        """Return every key of `entry`, the primary one first; none when it is gone."""
        with self._door(), self._index.read_lock:
            rows = self._index.read.execute(queries.KEYS_OF, (entry.id,)).fetchall()
        return [row[0] for row in rows]

    def find(self, key_prefix_hex: str, limit: int) -> list[tuple[str, Entry]]:
        """Return up to `limit` entries with a key that starts so, each once, with that key.

        A prefix that isn't hex fits nothing, and expired entries are left out. Raises StoreError.
        """
        found: dict[int, tuple[str, Entry]] = {}
        with self._door(), closing(self._index.connect()) as db:
            for key, entry in queries.by_prefix(db, key_prefix_hex.lower()):
                if len(found) >= limit:
                    break
                if self.limits.expires(entry) > self._clock():
                    found.setdefault(entry.id, (key, entry))
        return list(found.values())

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield every entry that isn't expired with its primary key in hex.

        Most recently used first. Read page by page, so that a long look holds nothing up; an entry
        used meanwhile may be passed over. Raises StoreError.
        """
        with self._door():
            self._write_touches()
            db = self._index.connect()
        with closing(db):
            page: list[tuple[str, Entry]] = []
            while True:
                with self._door():
                    page = queries.page_after(db, page[-1][1] if page else None)
                    now = self._clock()
                    living = [item for item in page if self.limits.expires(item[1]) > now]
                if not page:
                    return
                yield from living

    def totals(self) -> Totals:
        """Return how much is stored. One row is read. Expired entries count until pruned."""
        ((entries, size),) = self._select("SELECT entries, bytes FROM totals")
        return Totals(entries, size)

    # -- writing

    def draft(self, body: bytes) -> Draft:
        """Write `body` to a file of its own, ahead of the `put` that it is for.

        `put` takes it, whether it succeeds or raises StoreError; a draft that isn't put is to be
        closed. Raises StoreError.
        """
        with self._door():
            return self._drafted(body)

    def _drafted(self, body: bytes) -> BlobDraft:
        """A draft, for which room is made on a full disk."""
        try:
            return self._blobs.draft(body)
        except OSError as error:
            if not is_full(error, self.path):
                raise
            full = error
        with self._lock_of_this_file(self._lock.patience()):
            for _ in self._space.made(len(encode(body)), self._touches, removes=False):
                try:
                    return self._blobs.draft(body)
                except OSError as error:
                    if not is_full(error, self.path):
                        raise
        raise full

    def put(
        self,
        keys: Sequence[bytes],
        meta: bytes,
        body: bytes,
        *,
        request: Draft | bytes | None = None,
        ttl: float | None = None,
        tallies: Mapping[str, Tally] | None = None,
        created: float | None = None,
        hits: int = 0,
    ) -> Entry:
        """Store an answer under all its keys; `keys[0]` is the primary one.

        `request`, drafted before or not, is kept with it as long as there is room. `ttl` is in
        seconds (None: the store's limit). `created` (unix seconds, None: now) and `hits` are of an
        answer that was stored before: it is brought back as old as it is. All in one transaction:
        a key that pointed elsewhere moves here, an entry without a key left goes, the limits hold
        when it returns (were they lowered, `flush` removes the excess a little at a time),
        `tallies` are in the ledger. Raises StoreError, and then nothing was changed: when it can't
        be written, or when the answer alone is larger than `max_bytes`.
        """
        keys = tuple(dict.fromkeys(keys))
        if not keys:
            raise ValueError("an entry needs a key")
        if ttl is not None and not ttl >= 0:
            raise ValueError(f"ttl is {ttl}: it must be 0 or more")
        with self._door(), ExitStack() as drafts:
            asked = None if request is None else self._draft_of(request, drafts)
            answer = self._drafted(body)
            drafts.callback(answer.close)
            self._refuse_oversized(answer.disk_size)

            def add(transaction: Transaction) -> Entry:
                # A clock read before the lock could be behind what others wrote since.
                now = self._clock()
                born = now if created is None else min(created, now)
                added, disk_size = transaction.add(keys, meta, answer, asked, ttl, born, now, hits)
                # In place may be a blob of another size than the one drafted.
                self._refuse_oversized(disk_size)
                if tallies:
                    transaction.tally(tallies)
                self._step("tallied")
                transaction.keep_within(self.limits, self._touches, added, _REMOVALS_PER_WRITE)
                kept = asked is not None and added not in transaction.without_request
                return Entry(
                    id=added,
                    meta=meta,
                    digest=answer.digest,
                    size=len(body),
                    disk_size=disk_size,
                    request_digest=asked.digest if asked is not None and kept else None,
                    created=born,
                    accessed=now,
                    hits=hits,
                    ttl=ttl,
                )

            needed = answer.disk_size + (asked.disk_size if asked is not None else 0)
            return self._writing(add, needed=needed)

    def _draft_of(self, request: Draft | bytes, drafts: ExitStack) -> BlobDraft:
        """Our own draft of it; one that another backend made is only good for its body."""
        if not isinstance(request, bytes):
            drafts.callback(request.close)
        if isinstance(request, BlobDraft):
            return request
        draft = self._drafted(request if isinstance(request, bytes) else request.body)
        drafts.callback(draft.close)
        return draft

    def _refuse_oversized(self, disk_size: int) -> None:
        if self.limits.max_bytes and disk_size > self.limits.max_bytes:
            raise StoreError(
                f"an answer of {disk_size} bytes on disk is larger than the whole store may be "
                f"({self.limits.max_bytes}): not stored"
            )

    def delete(self, key: bytes) -> bool:
        """Remove the entry any of whose keys this is; return whether there was one."""

        def remove(transaction: Transaction) -> bool:
            row = self._index.write.execute(
                "SELECT entry FROM keys WHERE key = ?", (key,)
            ).fetchone()
            return row is not None and transaction.remove(row[0])

        return self._writing(remove, removes=True)

    def clear(self) -> int:
        """Remove every entry; return how many there were. The ledger stays."""
        removed = 0

        def remove_all(transaction: Transaction) -> None:
            nonlocal removed  # with what went before, so that there is room for it on a full disk
            removed = max(removed, transaction.remove_all())

        with self._door():
            away: list[Path | None] = []
            self._writing(
                remove_all,
                removes=True,
                after=lambda: away.append(self._blobs.set_all_aside()),
            )
            for folder in away:
                if folder is not None:
                    self._blobs.discard(folder)
        return removed

    # -- housekeeping

    def flush(self) -> None:
        """Write access times, prune what is expired, keep to the limits, sweep orphans.

        Bounded: what isn't done in some hundredths of a second is left to the next call. To be
        called every second or so. Raises StoreError.
        """
        with self._door():
            until = time.monotonic() + _HOUSEKEEPING_SEC
            if self._index.replaced():
                with self._write():
                    pass
            self._index.checkpoint()
            full = self._write_touches_if_there_is_room()
            while self._needs_pruning():
                self._writing(self._pruner(), removes=True)
                if time.monotonic() >= until:
                    return
            self._sweep_some(until)
            with self._lock_of_this_file(self._lock.patience()):
                self._space.recover()
            if full is not None:
                raise full

    def _pruner(self) -> Callable[[Transaction], None]:
        """A piece of pruning, which is smaller each time that it is tried again: on a full disk."""
        most = _REMOVALS_PER_WRITE

        def prune(transaction: Transaction) -> None:
            nonlocal most
            now, count = self._clock(), most
            most = max(1, most // 8)
            transaction.from_the_future(now, count)
            for entry in transaction.expired(self.limits, now, count):
                transaction.remove_named(entry)
            transaction.shrink(self.limits, self._touches, None, count)

        return prune

    def _write_touches_if_there_is_room(self) -> Exception | None:
        """Access times drive nothing out: on a full disk they stay in memory for now."""
        try:
            self._write_touches()
        except StoreError as error:
            if not isinstance(error.__cause__, _FOREIGN) or not is_full(error.__cause__, self.path):
                raise
            return error
        return None

    def _write_touches(self) -> None:
        while batch := self._touches.batch(_TOUCHES_PER_WRITE):
            with self._write() as transaction:
                transaction.touch(batch, self._clock())

    def _needs_pruning(self) -> bool:
        """Ask without a lock whether there is anything to prune: mostly there is nothing."""
        now = self._clock()
        (facts,) = self._select(queries.EXTREMES)
        return queries.is_beyond(self.limits, now, facts)

    def _sweep_some(self, until: float) -> int:
        """Remove orphans, folder by folder, until `until` (monotonic); return how many."""
        swept = 0
        if self._unswept:
            with closing(self._index.connect()) as db:
                while self._unswept and time.monotonic() < until:
                    swept += self._sweep_shard(self._unswept.pop(), db)
        return swept

    def _sweep_shard(self, number: int, db: sqlite3.Connection) -> int:
        suspects = queries.unknown(db, self._blobs.shard(number))
        if not suspects:
            return 0
        with self._write():
            # Nobody is between a rename and its commit now: what has no row has no owner.
            swept = queries.unknown(self._index.write, suspects)
            for digest in swept:
                self._blobs.unlink(digest)
        return len(swept)

    def sweep(self) -> int:
        """Remove every file that no entry needs, at once; return how many there were."""
        with self._door(), closing(self._index.connect()) as db:
            swept = self._blobs.sweep_drafts()
            return swept + sum(self._sweep_shard(number, db) for number in range(SHARDS))

    def integrity(self) -> list[str]:
        """Compare the whole index with all files; return what is wrong, one line each.

        Reads everything, and holds nobody up: others write meanwhile.
        """
        with self._door(), closing(self._index.connect()) as db:
            return integrity.check(db, self._blobs, lambda: self._lock.held(BUSY_SEC))

    def close(self) -> None:
        """Write what is pending and let go of everything. Closing twice is fine."""
        if not self._open:
            return
        try:
            with self._door():
                self._write_touches()
        except StoreError as error:
            self._log(f"store: access times are lost: {error}")
        self._open = False
        forks.unregister(self)
        with self._index.read_lock:
            self._index.close()
        self._lock.close()

    # -- doors

    @contextmanager
    def _door(self) -> Iterator[None]:
        """Let only StoreError out."""
        try:
            yield
        except _FOREIGN as error:
            raise self._mapped(error) from error
        except MISREAD as error:
            raise StoreError(f"{self.path}: {type(error).__name__}: {error}") from error

    def _mapped(self, error: Exception) -> StoreError:
        if isinstance(error, sqlite3.ProgrammingError):
            if self._open:  # why it can't was told when it was tried
                return StoreBusy(f"{self.path}: the store can't be opened yet", repeated=True)
            why = "is closed"
            if self._forked:
                why = "was opened before a fork: the child has to open it"
            return StoreError(f"{self.path}: the store {why}")
        if is_corruption(error):
            try:
                self._index.suspect(error)
            except OSError as second:
                self._log(f"store: {second}")
        return StoreError(f"{self.path}: {error}")

    def _writing(
        self,
        work: Callable[[Transaction], T],
        *,
        removes: bool = False,
        needed: int = 0,
        after: Callable[[], object] | None = None,
    ) -> T:
        """Do `work` in a transaction under the write lock and return what it returns.

        On a full disk room is made, for `needed` bytes besides the rows, and `work` is done again.
        `removes`: it takes away (space.py). `after` runs when it is committed and the lock is still
        held.
        """
        patience = self._lock.patience()
        deadline = time.monotonic() + patience
        with self._door(), self._lock_of_this_file(patience):
            room = self._space.made(needed, self._touches, removes=removes)
            while True:
                try:
                    with self._transaction(max(0.0, deadline - time.monotonic())) as transaction:
                        done = work(transaction)
                    break
                except _FOREIGN as error:
                    if not is_full(error, self.path) or next(room, self) is self:
                        raise
            if after is not None:
                after()
            return done

    @contextmanager
    def _write(self) -> Iterator[Transaction]:
        """Open a transaction under the write lock; a full disk is an error here."""
        patience = self._lock.patience()
        deadline = time.monotonic() + patience
        with (
            self._door(),
            self._lock_of_this_file(patience),
            self._transaction(max(0.0, deadline - time.monotonic())) as transaction,
        ):
            yield transaction

    @contextmanager
    def _transaction(self, patience: float) -> Iterator[Transaction]:
        """Open a transaction, for the holder of the write lock; commit it, or undo it when the
        block raises."""
        transaction = Transaction(self._index.write, self._blobs, self._step, self._log)
        try:
            self._begin(transaction, patience)
            yield transaction
            transaction.commit(self._touches)
        except BaseException:
            transaction.rollback()
            raise

    def _begin(self, transaction: Transaction, patience: float) -> None:
        """Begin, though a program that knows nothing of `lock` may have SQLite's own lock."""
        try:
            transaction.begin(patience)
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            raise self._lock.busy() from None
        self._lock.is_free()

    @contextmanager
    def _lock_of_this_file(self, patience: float) -> Iterator[None]:
        if not self.path.is_dir():
            self._blobs.lay_out()
        with self._lock.held(patience):
            if self._open and self._index.replaced():
                self._reopen(patience)
            yield

    def _reopen(self, patience: float) -> None:
        why = (
            "was replaced by another process: opened anew" if self._index.opened else "is open now"
        )
        try:
            with self._index.read_lock:
                self._blobs.lay_out()
                self._index.close()
                self._open_index(patience)
                self._forget()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            raise self._lock.busy() from None
        self._log(f"store: {self._index.path} {why}")

    def _open_index(self, patience: float | None) -> None:
        """Open the index; where there is no space even for that, some answers go."""
        try:
            self._index.open(patience)
            return
        except _FOREIGN as error:
            if not is_full(error, self.path):
                raise
            full = error
        for _ in self._space.made_blindly():
            try:
                self._index.open(patience)
                return
            except _FOREIGN as error:
                if not is_full(error, self.path):
                    raise
        raise full

    def _forget(self) -> None:
        """Forget what was remembered of an index that isn't this one any more."""
        self._touches.forget()
        self._space.forget()
        self._version = -1
        self._openings += 1

    def _select(self, query: str) -> list[Row]:
        with self._door(), self._index.read_lock:
            return self._index.read.execute(query).fetchall()

    # -- forks (store/forks.py)

    def before_fork(self) -> None:
        """Wait for the writer and the reader of this process to finish."""
        self._lock.mutex.acquire()
        self._index.read_lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._index.read_lock.release()
        self._lock.mutex.release()

    def after_fork_in_child(self) -> None:
        """Close: the child has to open the store itself."""
        self._forked = True
        self._open = False
        self._index.close()
        self._lock.close()
        self._touches = Touches()
        self.after_fork_in_parent()
