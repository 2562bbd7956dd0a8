"""A store that another process keeps busy, as one that was stopped in the middle of a write."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_lock(store: Path) -> Iterator[None]:
    """Hold the write lock of the store in the folder `store`."""
    fd = os.open(store / "lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
