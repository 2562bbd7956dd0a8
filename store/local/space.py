"""Room on a full disk: how a full disk is told, and what goes so that a write fits.

What always holds:
- Everything here happens under the write lock.
- Files go before their rows: on a full disk there is no room to write that a row goes. A row whose
  file is gone is a miss, so that a death in between does no harm.
- The gentlest comes first: leftovers of the dead and the WAL, then the reserve, then the answers
  used longest ago. The reserve is for what takes away; an answer on its way in never uses it.
- An answer that the whole store in its place wouldn't make room for drives nothing out.

`reserve` is a file of `RESERVE_BYTES` beside the index. It is given up so that a delete, a clear or
a start works on a disk without any space, and made again as soon as there is some.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from llm_cache.store.local import queries
from llm_cache.store.local.blobs import SHARDS, Blobs
from llm_cache.store.local.index import Index
from llm_cache.store.local.touches import Touches
from llm_cache.store.local.transaction import Transaction

RESERVE_BYTES = 128 << 10
"""More than the WAL grows by when one entry goes, and than SQLite needs to open the index."""
_AT_ONCE = 256 << 10  # bytes that go for a write that needs next to nothing
_TURNS = 3
_BLOCK = 4096
_NONE_LEFT = 64 << 10
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SMALLEST_WAL, _LARGEST_WAL = 256 << 10, 64 << 20
_SHARE_OF_WAL = 32


def is_full(error: BaseException, root: Path) -> bool:
    """Tell whether a write in the folder `root` failed because its disk has no space left."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None) or 0
        if code & 255 == sqlite3.SQLITE_FULL:
            return True
        # What SQLite says when it can't make or grow its -shm and -wal, whatever the reason.
        return code & 255 in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _nothing_left(root)
    return isinstance(error, OSError) and error.errno in _FULL


def _nothing_left(root: Path) -> bool:
    try:
        disk = os.statvfs(root)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _NONE_LEFT or (disk.f_files > 0 and not disk.f_favail)


def wal_bytes(root: Path, max_bytes: int) -> int:
    """Return how large the WAL may be: a 32nd of what the store may hold and of what its disk can,
    256 KiB at least and 64 MiB at most."""
    sizes = [max_bytes] if max_bytes else []
    with suppress(OSError):
        disk = os.statvfs(root)
        sizes.append(disk.f_blocks * disk.f_frsize)
    share = min(sizes, default=_LARGEST_WAL * _SHARE_OF_WAL) // _SHARE_OF_WAL
    return min(max(share, _SMALLEST_WAL), _LARGEST_WAL)


class Space:
    """Makes room in the folder of one store. Its methods are for the holder of the write lock."""

    def __init__(
        self,
        root: Path,
        blobs: Blobs,
        index: Index,
        transact: Callable[[], AbstractContextManager[Transaction]],
    ) -> None:
        """`transact` begins a transaction, for who has the write lock already."""
        self._root = root
        self._reserve = root / "reserve"
        self._blobs = blobs
        self._index = index
        self._transact = transact
        self._fileless: list[int] = []  # entries whose rows couldn't be removed with their files

    def recover(self) -> None:
        """Remove the rows that are overdue, and have the reserve again, if there is space now."""
        if self._fileless:
            with self._transact() as transaction:
                for entry in self._fileless:
                    transaction.remove(entry)
            self._fileless.clear()
        try:
            if self._reserve.stat().st_size >= RESERVE_BYTES:
                return
        except OSError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            fd = os.open(self._reserve, flags, 0o600)
            try:
                os.fchmod(fd, 0o600)
                # Noise: a file system that compresses would keep no space for zeros.
                whole = os.write(fd, os.urandom(RESERVE_BYTES)) == RESERVE_BYTES
            finally:
                os.close(fd)
        except OSError:
            whole = False
        if not whole:
            self._release()

    def _release(self) -> bool:
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def made(self, needed: int, touches: Touches, *, removes: bool) -> Iterator[None]:
        """Make room for `needed` bytes, a little more at each turn, until nothing can be done.

        `removes`: it is for a write that takes away: the reserve may go, and so may every answer.
        """
        self._blobs.sweep_drafts()
        self._index.rewind()
        yield
        if removes and self._release():
            yield
        wanted = needed + _AT_ONCE
        for _ in range(_TURNS):
            if not self._drop_least_used(wanted, touches, removes):
                return
            self._index.rewind()
            yield
            wanted *= 2

    def made_blindly(self) -> Iterator[None]:
        """The same while there is no index to ask: any answers go, the oldest of their folder."""
        self._blobs.sweep_drafts()
        self._release()
        yield
        wanted = _AT_ONCE
        for _ in range(_TURNS):
            if not self._drop_any(wanted):
                return
            yield
            wanted *= 2

    def _drop_least_used(self, wanted: int, touches: Touches, all_may_go: bool) -> bool:
        freed, entries, digests = 0, [], []
        for entry, blobs in queries.least_used(self._index.write):
            if touches.of(entry) is not None and not all_may_go:
                continue  # used a moment ago
            entries.append(entry)
            for digest, disk_size in blobs:
                digests.append(digest)
                freed += -(-disk_size // _BLOCK) * _BLOCK
            if freed >= wanted:
                break
        if not entries or (freed < wanted and not all_may_go):
            return False
        for digest in digests:
            self._blobs.unlink(digest)
        try:
            with self._transact() as transaction:
                for entry in entries:
                    transaction.remove(entry)
        except (sqlite3.Error, OSError) as error:
            if not is_full(error, self._root):
                raise
            self._fileless += entries
        return True

    def forget(self) -> None:
        """Forget what was remembered of an index that isn't this one any more."""
        self._fileless.clear()

    def _drop_any(self, wanted: int) -> bool:
        freed = 0
        for number in random.sample(range(SHARDS), SHARDS):
            for digest, disk_size in self._blobs.oldest_first(number):
                self._blobs.unlink(digest)
                freed += -(-disk_size // _BLOCK) * _BLOCK
                if freed >= wanted:
                    return True
        return freed > 0
