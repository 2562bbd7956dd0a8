"""The write lock: one writer at a time among all threads and processes that use a store.

It is an exclusive `flock` on `store/lock`, with a mutex before it for the threads of one process.
The kernel frees it when its holder dies, however that happens. SQLite's own write lock is taken
inside it; this one is there because a write is more than rows: blob files are renamed into place
before the commit and unlinked after it, and nobody may look at both sides in between.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_cache.errors import StoreError

_FIRST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


class WriteLock:
    """An exclusive lock on the file `path`, for threads and processes. Not reentrant."""

    def __init__(self, path: Path, patience: float) -> None:
        """`patience`: seconds to wait for others before giving up with StoreError."""
        self._path = path
        self._patience = patience
        self.mutex = threading.Lock()
        self._fd = -1

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the length of the block.

        Raises StoreError when others keep it for longer than the patience, OSError when the lock
        file can't be opened.
        """
        if not self.mutex.acquire(timeout=self._patience):
            raise StoreError(f"{self._path}: another thread keeps the store busy")
        try:
            self._take()
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self.mutex.release()

    def _take(self) -> None:
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            if self._fd < 0:
                self._fd = _open_private(self._path)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{self._path}: another process has kept the store busy for "
                        f"{self._patience:g} s"
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if self._is_the_file():
                return
            self.close()  # the store was removed under us and made anew: lock the new file

    def _is_the_file(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def close(self) -> None:
        """Close the lock file. The next `held` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open_private(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(fd, 0o600)
    return fd
