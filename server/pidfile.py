"""The lock of a home: the proxy of a home is the process that holds the lock on `proxy.pid`.

What always holds: a pid in a file that nobody holds means nothing, so a stale file heals itself.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_cache.errors import LlmCacheError

_NO_PID = b" " * 11  # as long as a pid can be


@contextmanager
def locked(pid_file: Path) -> Iterator[None]:
    """Hold the home's lock with our pid in the file. Raises LlmCacheError when somebody has it."""
    try:
        fd = os.open(pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LlmCacheError(f"{pid_file}: can't be opened: {error.strerror}") from None
    try:
        deadline = time.monotonic() + 1.0
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A command that looks who holds the lock takes it for a moment itself.
                if time.monotonic() > deadline:
                    pid = os.pread(fd, 16, 0).decode("ascii", "replace").strip()
                    raise running_already(pid or "unknown") from None
                time.sleep(0.02)
        # Overwritten in place, never emptied: on a full disk there is no room for it a second time.
        try:
            os.pwrite(fd, _NO_PID, 0)
            os.ftruncate(fd, os.pwrite(fd, b"%d\n" % os.getpid(), 0))
        except OSError as error:
            raise LlmCacheError(f"{pid_file}: can't be written: {error.strerror}") from None
        yield
        os.pwrite(fd, _NO_PID, 0)
    finally:
        os.close(fd)


def running_already(pid: int | str) -> LlmCacheError:
    """What to say to who wants to be a second proxy of this home."""
    return LlmCacheError(f"a proxy of this home is running already (pid {pid})")


def holder(pid_file: Path) -> int | None:
    """The pid of the process that holds the lock on `pid_file`, or None when nobody does."""
    try:
        fd = os.open(pid_file, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LlmCacheError(f"{pid_file}: can't be read: {error.strerror}") from None
    try:
        deadline = time.monotonic() + 2.0
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                written = re.fullmatch(rb"([0-9]{1,10})\n", os.pread(fd, 16, 0))
                if written:
                    return int(written[1])
            else:
                return None  # closing the file gives the lock back
            if time.monotonic() > deadline:
                raise LlmCacheError(f"{pid_file} is locked, but holds no pid")
            time.sleep(0.01)  # locked a moment ago, and its pid isn't written yet
    finally:
        os.close(fd)
