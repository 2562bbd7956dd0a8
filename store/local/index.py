"""The index: one SQLite file that knows every entry, key and blob, and holds the ledger.

Format 2: `PRAGMA application_id` is 0x6C6C6D63 ("llmc"), `PRAGMA user_version` is the format's
number, the journal is a WAL, and the tables are those of `SCHEMA`:

- entries: one row per answer. Digests are the 16 bytes of an XXH3-128, times are unix seconds.
  The indexes are what makes every limit a look-up: the least recently used entry, the least
  recently used one with a request body, the oldest without a ttl, the first due with one.
- keys: every key of every entry; `rank` is its place among them, 0 is the primary one; `seal` is
  the `seal_of` it and its entry. SQLite has no checksums: an altered byte could make a key point at
  another entry, which would be a wrong answer in silence.
- blobs: every blob file with the size of its body, its size on disk and how many times entries
  point at it.
- totals: one row. `entries` and `bytes` are exact at every commit; `last_id` gives ids that are
  never used twice; `removals` moves with every commit that took away or repointed a key, and with
  no other, so that who remembers it knows whether anything read before may have gone.
- ledger: counters by scope and name.

Promises:
- Changes happen in IMMEDIATE transactions under the write lock, on one connection per process.
- A connection is never used in a child of a fork (forks.py) and never outlives the file it was
  opened on.
- A format newer than this one is refused with nothing touched. A file that isn't a usable index
  is set aside as `index.sqlite.broken-<unix time>` and a new one is begun; its ledger is taken
  over as far as it can be read. Corruption seen later leaves a mark (`index.suspect`), and the
  next open sets that index aside.
- synchronous=NORMAL: a killed process loses no commit; a power cut may lose the last ones, but
  leaves a sound file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias

import xxhash

from llm_cache.errors import StoreError, StoreFormatError

FORMAT = 2
APPLICATION_ID = 0x6C6C6D63

BUSY_SEC = 10.0
_CORRUPTION = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
MISREAD = (TypeError, ValueError, AttributeError, LookupError)
"""What comes of an index with an altered byte that makes a text or a number of a digest, or a
message of SQLite's undecodable."""

SCHEMA = (
    """CREATE TABLE entries(
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL,
        request BLOB,
        created REAL NOT NULL,
        accessed REAL NOT NULL,
        hits INTEGER NOT NULL,
        ttl REAL,
        meta BLOB NOT NULL)""",
    "CREATE INDEX entries_used ON entries(accessed)",
    "CREATE INDEX entries_requests ON entries(accessed) WHERE request IS NOT NULL",
    "CREATE INDEX entries_aging ON entries(created) WHERE ttl IS NULL",
    "CREATE INDEX entries_timed ON entries(created) WHERE ttl IS NOT NULL",
    "CREATE INDEX entries_due ON entries(created + ttl) WHERE ttl IS NOT NULL",
    """CREATE TABLE keys(
        key BLOB PRIMARY KEY,
        entry INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        seal INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX keys_entry ON keys(entry, rank)",
    """CREATE TABLE blobs(
        digest BLOB PRIMARY KEY,
        size INTEGER NOT NULL,
        disk_size INTEGER NOT NULL,
        refs INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE totals(
        one INTEGER PRIMARY KEY CHECK (one = 1),
        entries INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        last_id INTEGER NOT NULL,
        removals INTEGER NOT NULL)""",
    "INSERT INTO totals VALUES(1, 0, 0, 0, 0)",
    """CREATE TABLE ledger(
        scope TEXT NOT NULL,
        name TEXT NOT NULL,
        value NUMERIC NOT NULL,
        PRIMARY KEY (scope, name)) WITHOUT ROWID""",
)
_TABLES = {"entries", "keys", "blobs", "totals", "ledger"}
_CHECKPOINT_BYTES = 1 << 20
_PAGE_BYTES = 4096
_SIDE_FILES = ("", "-wal", "-shm", "-journal")

Row: TypeAlias = tuple[Any, ...]
Log: TypeAlias = Callable[[str], None]


class Unusable(Exception):
    """The file isn't an index of ours that can be worked with."""


class Contradiction(sqlite3.DatabaseError):
    """The index contradicts itself: it is corrupt, though SQLite can read every page."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def seal_of(key: bytes, entry: int, digest: bytes, meta: bytes) -> int:
    """Return what a key's row holds to tell that it and its entry are as they were written: XXH3-64
    of the key's length, the entry's id (8 bytes each), the key, the digest and the meta, halved to
    fit SQLite's integers."""
    head = len(key).to_bytes(8) + entry.to_bytes(8)
    return xxhash.xxh3_64_intdigest(head + key + digest + meta) >> 1


def is_sealed(seal: object, key: bytes, entry: int, digest: bytes, meta: bytes) -> bool:
    """Tell whether a key's row and its entry are as they were written."""
    try:
        return seal == seal_of(key, entry, digest, meta)
    except (TypeError, AttributeError, OverflowError):
        return False  # not even what they should be


def is_corruption(error: BaseException) -> bool:
    """Tell whether SQLite says that the file itself is bad (not busy, not full)."""
    code = getattr(error, "sqlite_errorcode", None)
    return (
        isinstance(error, sqlite3.DatabaseError) and code is not None and code & 255 in _CORRUPTION
    )


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether SQLite says that somebody else has a lock it needs."""
    return getattr(error, "sqlite_errorcode", 0) & 255 == sqlite3.SQLITE_BUSY


def _decoded(text: bytes) -> str:
    """A text of SQLite's, an altered byte in it notwithstanding: the rows around it are good."""
    return text.decode("utf-8", "replace")


class Index:
    """The connections of this process to one index file.

    `read` is for short look-ups under `read_lock`, by any thread. `write` is used only inside the
    store's write lock. `open` and `reopen` are to be called with that lock held.
    """

    def __init__(
        self, root: Path, log: Log, now: Callable[[], float], patience: float, wal_bytes: int
    ) -> None:
        """`patience`: seconds that SQLite waits for others. `wal_bytes`: how large the WAL may be,
        but for a single transaction that is larger."""
        self.path = root / "index.sqlite"
        self.read_lock = threading.Lock()
        self._suspect = root / "index.suspect"
        self._log = log
        self._now = now
        self._patience = patience
        self._wal_bytes = wal_bytes
        self._file: os.stat_result | None = None
        self.read = self.write = sqlite3.connect(":memory:", check_same_thread=False)
        self.read.close()  # until `open`, whoever asks is told that it is closed

    def refuse_newer(self) -> None:
        """Raise StoreFormatError when the file's header names a newer format. Touches nothing."""
        try:
            with self.path.open("rb") as file:
                header = file.read(72)
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            return
        ours = int.from_bytes(header[68:72], "big") == APPLICATION_ID
        if header.startswith(b"SQLite format 3\0") and ours:
            self._check_format(int.from_bytes(header[60:64], "big"))

    def _check_format(self, found: int) -> None:
        if found > FORMAT:
            raise StoreFormatError(
                f"{self.path} has format {found}, this llm-cache knows formats up to {FORMAT}: "
                "use a newer llm-cache, or another LLM_CACHE_HOME"
            )

    @property
    def opened(self) -> bool:
        """True once it could be opened."""
        return self._file is not None

    def open(self, patience: float | None = None) -> None:
        """Open the index: made when it isn't there, set aside and made when it is unusable.

        `patience`: seconds to wait for others here; None: as long as always.
        """
        self.refuse_newer()
        ledger: list[Row] = []
        if self._is_suspect():
            self._log(f"store: {self.path} was found corrupt earlier")
            ledger = self._set_aside()
        try:
            self._open(patience)
        except (Unusable, UnicodeDecodeError, PermissionError, sqlite3.DatabaseError) as error:
            # SQLite quotes a broken schema in its message, and Python can't decode that.
            if not self._is_unusable(error):
                raise
            self._log(f"store: {self.path} can't be used ({error})")
            ledger = self._set_aside()
            self._open(patience)
        self._suspect.unlink(missing_ok=True)
        if ledger:
            self.write.executemany("INSERT OR IGNORE INTO ledger VALUES(?, ?, ?)", ledger)

    def _is_unusable(self, error: Exception) -> bool:
        """Tell whether the file itself is to blame: not a full disk, not somebody who has it."""
        if isinstance(error, (Unusable, UnicodeDecodeError)) or is_corruption(error):
            return True
        if isinstance(error, PermissionError) and Path(error.filename or "") == self.path:
            return True
        sides = [self.path.with_name(self.path.name + suffix) for suffix in _SIDE_FILES]
        return any(side.exists() and not side.is_file() for side in sides)

    def _open(self, patience: float | None) -> None:
        fd = -1
        if not self.path.is_dir():
            # SQLite gives its -wal and -shm the mode of the file itself.
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(fd, 0o600)
            os.close(fd)
        write = self.connect(patience)
        try:
            self._prepare(write)
            read = self.connect()
        except BaseException:
            write.close()
            raise
        self.write, self.read = write, read
        self._file = self.path.stat()

    def _prepare(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        self._check_format(found)
        tables = {
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if not tables and not found:
            # Before the WAL, so that the header in the file itself tells the format from the start.
            db.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
        elif db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise Unusable("it belongs to another program")
        elif found != FORMAT or not tables >= _TABLES:
            raise Unusable(f"format {found} with tables {', '.join(sorted(tables)) or 'none'}")
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(f"{self.path}: this file system can't hold a WAL (got {mode})")
        totals = db.execute("SELECT entries, bytes, last_id, removals FROM totals").fetchall()
        if len(totals) != 1 or not all(isinstance(value, int) for value in totals[0]):
            raise Unusable("it has no totals")

    def checkpoint(self) -> None:
        """Move what has gathered in the WAL into the index, if it is worth it. It waits for nobody
        and nobody waits for it; left to SQLite, a put would do it, some milliseconds long."""
        wal = self.path.with_name(self.path.name + "-wal")
        worth_it = min(_CHECKPOINT_BYTES, self._wal_bytes // 2)
        if wal.exists() and wal.stat().st_size >= worth_it:
            with closing(self.connect()) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def rewind(self) -> None:
        """Move all of the WAL into the index, so that the next write begins it anew in the space it
        has, as far as a full disk and others let us. Under the write lock."""
        with suppress(sqlite3.Error):
            self.write.execute("PRAGMA busy_timeout = 0").fetchall()
            self.write.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def connect(self, patience: float | None = None) -> sqlite3.Connection:
        """Return a new connection, for whoever reads at length. The caller closes it."""
        db = sqlite3.connect(
            self.path,
            timeout=self._patience if patience is None else patience,
            isolation_level=None,
            check_same_thread=False,
        )
        db.text_factory = _decoded
        try:
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA cache_size = -4000")
            db.execute(f"PRAGMA journal_size_limit = {self._wal_bytes}")
            # Where the WAL may be large, `checkpoint` comes long before.
            db.execute(f"PRAGMA wal_autocheckpoint = {self._wal_bytes // _PAGE_BYTES}")
        except BaseException:
            db.close()
            raise
        return db

    def replaced(self) -> bool:
        """Tell whether another file than the one that is open is at the index's path now."""
        try:
            return self._file is None or not os.path.samestat(self.path.stat(), self._file)
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Close both connections; the last process to close folds the WAL into the file."""
        self.read.close()
        self.write.close()

    def suspect(self, error: BaseException) -> None:
        """Leave word for the next open that this file is corrupt."""
        if self._file is None:
            return
        self._log(f"store: {self.path} is corrupt ({error}); the next start sets it aside")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(self._suspect, flags, 0o600)
        try:
            os.write(fd, str(self._file.st_ino).encode())
        finally:
            os.close(fd)

    def _is_suspect(self) -> bool:
        try:
            return self._suspect.read_bytes() == str(self.path.stat().st_ino).encode()
        except FileNotFoundError:
            return False

    def _set_aside(self) -> list[Row]:
        """Rename the index and its side files; return what of its ledger can still be read."""
        ledger = self._salvage()
        name = f"{self.path.name}.broken-{int(self._now())}"
        count = 1
        while self.path.with_name(name).exists():
            count += 1
            name = f"{self.path.name}.broken-{int(self._now())}-{count}"
        for suffix in _SIDE_FILES:
            side = self.path.with_name(self.path.name + suffix)
            if side.exists():
                side.rename(self.path.with_name(name + suffix))
        self._log(f"store: set aside as {name}; a new index is begun, its answers start over")
        return ledger

    def _salvage(self) -> list[Row]:
        if not self.path.is_file():
            return []
        try:
            db = sqlite3.connect(self.path, timeout=BUSY_SEC, isolation_level=None)
        except sqlite3.Error:
            return []
        db.text_factory = _decoded
        rows: list[Row] = []
        try:
            for row in db.execute(
                "SELECT scope, name, value FROM ledger WHERE typeof(scope) = 'text'"
                " AND typeof(name) = 'text' AND typeof(value) IN ('integer', 'real')"
            ):
                rows.append(row)
        except (sqlite3.Error, UnicodeDecodeError):
            pass
        finally:
            db.close()
        return rows
