"""The log: lines to a file that rotates, and to stdout, by level. Nothing secret is passed here.

Lines come in batches, one write each. A log that can't be written (disk full, folder gone, pipe
closed or read by nobody, terminal stopped) never stops the proxy: the lines are dropped.
"""

from __future__ import annotations

import errno
import os
import queue
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llm_cache.errors import SettingsError

LEVELS = {"silent": 0, "error": 1, "info": 2, "debug": 3}
ROTATE_BYTES = 10 << 20
"""Size at which `proxy.log` becomes `proxy.log.1`; one old file is kept."""
STDOUT_BACKLOG = 256
"""Batches of lines that wait for a stdout which takes nothing; what comes then is dropped."""
STDOUT_LAST_SEC = 1.0
"""How long the last lines of a run may take to be read from stdout."""


class Log:
    """Writes lines at or below a level. The file is private to its user whatever the umask."""

    def __init__(self, path: Path | None, level: str, *, stdout: bool = True) -> None:
        self._path = path
        self._level = LEVELS[level]
        self._stdout = _Stdout() if stdout else None
        self._file: int | None = None
        self._size = 0
        self._torn = False

    def check(self) -> None:
        """Raises SettingsError when the file can't be written at all, which no later line would
        tell anybody. A disk that is full isn't the setting's fault; a /dev/stdout that is a socket,
        as services have it, can't be opened, and lines go to stdout all the same."""
        if self._path is None or not self.shows("error"):
            return
        try:
            self._append(self._path, b"")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) and not self._path.is_socket():
                raise SettingsError(
                    f"CACHE_LOG_FILE={self._path}: can't be written: {error.strerror}; "
                    "name a file of your own, or none"
                ) from None

    def shows(self, level: str) -> bool:
        """True when lines of this level are written."""
        return LEVELS[level] <= self._level

    def write(self, level: str, lines: Sequence[str]) -> None:
        """Write lines of one level; each becomes one line whatever it holds."""
        if not self.shows(level):
            return
        text = "".join(" ".join(line.splitlines()) + "\n" for line in lines)
        data = text.encode("utf-8", "replace")
        if self._path is not None:
            with suppress(OSError):
                self._append(self._path, data)
        if self._stdout is not None:
            self._stdout.write(data)

    def _append(self, path: Path, data: bytes) -> None:
        if self._file is None or self._size + len(data) > ROTATE_BYTES or self._moved(path):
            self._open(path, len(data))
        assert self._file is not None
        if self._torn:
            data = b"\n" + data
        written = os.write(self._file, data)
        self._torn = written < len(data)  # a pipe took a part; the next line begins anew
        self._size += written

    def _moved(self, path: Path) -> bool:
        """True when the file was removed or renamed under us (by logrotate, by hand)."""
        assert self._file is not None
        try:
            return os.fstat(self._file).st_ino != path.stat().st_ino
        except FileNotFoundError:
            return True

    def _open(self, path: Path, more: int) -> None:
        self._close_file()
        with suppress(FileNotFoundError):
            if path.stat().st_size + more > ROTATE_BYTES:
                path.replace(path.with_name(path.name + ".1"))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not blocking: the file may be a pipe (/dev/stdout) that nobody reads.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._file = os.open(path, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the file; the next write opens it again. The last lines go to stdout."""
        if self._stdout is not None:
            self._stdout.close()
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _Stdout:
    """Writes to stdout in a thread of its own, since a pipe that nobody reads and a terminal that
    was stopped (Ctrl-S) hold up whoever writes to them."""

    def __init__(self) -> None:
        self._batches: queue.Queue[bytes] = queue.Queue(STDOUT_BACKLOG)  # b"" is the end
        self._dropped = 0  # lines
        self._gone = False
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        """Write whole lines, or drop them when too many are waiting."""
        if self._gone:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llm-cache-stdout", daemon=True)
            self._thread.start()
        lines = data.count(b"\n")
        if self._dropped:
            data = b"%d lines are missing here: stdout took none\n" % self._dropped + data
        try:
            self._batches.put_nowait(data)
        except queue.Full:
            self._dropped += lines
        else:
            self._dropped = 0

    def close(self) -> None:
        """Give what is waiting a moment."""
        thread, self._thread = self._thread, None
        if thread is not None and not self._gone:
            with suppress(queue.Full):
                self._batches.put(b"", timeout=STDOUT_LAST_SEC)
                thread.join(STDOUT_LAST_SEC)

    def _run(self) -> None:
        # Past `sys.stdout`: its lock, held by this thread when the process ends, would be fatal.
        try:
            out = sys.stdout.fileno()
            while data := self._batches.get():
                while data:
                    data = data[os.write(out, data) :]
        except (OSError, ValueError, AttributeError):  # closed, or there is none
            self._gone = True
