"""The log: lines to a file that rotates, and to stdout, by level. Nothing secret is passed here.

Lines come in batches, one write each. A log that can't be written (disk full, folder gone, pipe
closed) never stops the proxy: the lines are dropped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

LEVELS = {"silent": 0, "error": 1, "info": 2, "debug": 3}
ROTATE_BYTES = 10 << 20
"""Size at which `proxy.log` becomes `proxy.log.1`; one old file is kept."""


class Log:
    """Writes lines at or below a level. The file is private to its user whatever the umask."""

    def __init__(self, path: Path | None, level: str, *, stdout: bool = True) -> None:
        self._path = path
        self._level = LEVELS[level]
        self._stdout = stdout
        self._file: int | None = None
        self._size = 0

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
        if self._stdout:
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except (OSError, ValueError):
                self._stdout = False

    def _append(self, path: Path, data: bytes) -> None:
        if self._file is None or self._size + len(data) > ROTATE_BYTES or self._moved(path):
            self._open(path, len(data))
        assert self._file is not None
        self._size += os.write(self._file, data)

    def _moved(self, path: Path) -> bool:
        """True when the file was removed or renamed under us (by logrotate, by hand)."""
        assert self._file is not None
        try:
            return os.fstat(self._file).st_ino != path.stat().st_ino
        except FileNotFoundError:
            return True

    def _open(self, path: Path, more: int) -> None:
        self.close()
        with suppress(FileNotFoundError):
            if path.stat().st_size + more > ROTATE_BYTES:
                path.replace(path.with_name(path.name + ".1"))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
