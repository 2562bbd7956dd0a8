"""The write lock: one writer at a time among all threads and processes that use a store.

It is an exclusive `flock` on `store/lock`, with a mutex before it for the threads of one process.
The kernel frees it when its holder dies, however that happens. SQLite's own write lock is taken
inside it; this one is there because a write is more than rows: blob files are renamed into place
before the commit and unlinked after it, and nobody may look at both sides in between.

Others may keep the lock for long (a process that is stopped, a slow disk). Once somebody has waited
in vain, those who come after look once and don't wait; every `AFTER_BUSY_SEC` one of them waits
again. So a store that is busy costs few of them their patience and the others nothing. The first
that gets in ends that.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_cache.errors import StoreBusy

AFTER_BUSY_SEC = 5.0
"""How long nobody waits after somebody has waited in vain, in seconds."""

_FIRST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


class WriteLock:
    """An exclusive lock on the file `path`, for threads and processes. Not reentrant."""

    def __init__(self, path: Path, patience: float) -> None:
        """`patience`: seconds to wait for others before giving up with StoreBusy."""
        self._path = path
        self._patience = patience
        self._wait_again = 0.0  # monotonic; 0: nobody has waited in vain
        self._told = -AFTER_BUSY_SEC
        self.mutex = threading.Lock()
        self._fd = -1

    def patience(self) -> float:
        """How many seconds whoever asks is to wait for others now."""
        now = time.monotonic()
        if now < self._wait_again:
            return 0.0
        if self._wait_again:
            self._wait_again = now + AFTER_BUSY_SEC
        return self._patience

    def busy(self) -> StoreBusy:
        """The error of somebody whose patience is at its end."""
        now = time.monotonic()
        self._wait_again = self._wait_again or now + AFTER_BUSY_SEC
        repeated = now < self._told + AFTER_BUSY_SEC
        if not repeated:
            self._told = now
        return StoreBusy(f"{self._path}: others keep the store busy", repeated=repeated)

    def is_free(self) -> None:
        """Somebody got in: from now on it is worth waiting again."""
        self._wait_again = 0.0
        self._told = -AFTER_BUSY_SEC

    @contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Hold the lock for the length of the block.

        Raises StoreBusy when others keep it for longer than `patience` seconds, OSError when the
        lock file can't be opened.
        """
        deadline = time.monotonic() + patience
        if not self.mutex.acquire(timeout=patience):
            raise self.busy()
        try:
            self._take(deadline)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self.mutex.release()

    def _take(self, deadline: float) -> None:
        pause = _FIRST_PAUSE
        while True:
            if self._fd < 0:
                self._fd = _open_private(self._path)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self.busy() from None
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
