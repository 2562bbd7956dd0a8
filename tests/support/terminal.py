"""A real terminal for a command: a pty with a screen that can be read, and keys that can be typed.

What always holds here: waiting is for what is on the screen, with a deadline; the command is gone
when the block ends; every byte it wrote is kept in `written`.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import pyte

KEYS: Mapping[str, str] = {
    **{"up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D"},
    **{"home": "\x1b[H", "end": "\x1b[F", "pageup": "\x1b[5~", "pagedown": "\x1b[6~"},
    **{"enter": "\r", "escape": "\x1b", "tab": "\t", "backspace": "\x7f", "ctrl+c": "\x03"},
}
"""What a terminal sends for keys with a name (xterm's control sequences)."""

DEADLINE = 20.0
"""Seconds until what is waited for must be on the screen. Generous: the machine may be busy."""


class Terminal:
    """One command on a terminal of its own, of `columns` by `lines`."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self.written = b""
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        self._resize_to(columns, lines)
        env = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", **environment}
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._ours >= 0:
            os.close(self._ours)

    @property
    def text(self) -> str:
        """The screen, line by line, without spaces at the ends."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def pid(self) -> int:
        """The command's process."""
        return self._process.pid

    def type(self, *keys: str) -> None:
        """Press keys: names of `KEYS`, or text as it is."""
        for key in keys:
            os.write(self._ours, KEYS.get(key, key).encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; the command hears of it."""
        self.screen.resize(lines, columns)
        self._resize_to(columns, lines)
        self._process.send_signal(signal.SIGWINCH)

    def wait(self, *wanted: str | Callable[[str], bool]) -> str:
        """Block until the screen holds all of `wanted`, or makes it true; the screen's text."""
        deadline = time.monotonic() + DEADLINE
        while not all(w in self.text if isinstance(w, str) else w(self.text) for w in wanted):
            if not self._read(deadline):
                raise AssertionError(f"{wanted} isn't on the screen:\n{self.text}")
        return self.text

    def wait_gone(self, *unwanted: str) -> str:
        """Block until the screen holds none of `unwanted`; the screen's text."""
        return self.wait(lambda text: not any(word in text for word in unwanted))

    def look(self, seconds: float) -> str:
        """Take what is written within `seconds`, if anything is; the screen's text."""
        self._read(time.monotonic() + seconds)
        return self.text

    def hang_up(self) -> None:
        """Close the terminal, as a window is closed."""
        os.close(self._ours)
        self._ours = -1

    def exit_code(self) -> int:
        """Block until the command has ended, without reading; its exit code."""
        return self._process.wait(DEADLINE)

    def rest(self, seconds: float = 0.3) -> None:
        """Block until the command writes nothing for a while: for pictures, not for tests."""
        while self._read(time.monotonic() + seconds):
            pass

    def ended(self) -> int:
        """Block until the command has ended; its exit code."""
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline):
            pass
        return self._process.wait(max(1.0, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """Take what the command writes next; False at its end or the deadline."""
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux tells the end of a terminal so
            return False
        self.written += data
        self._stream.feed(data)
        return bool(data)

    def _resize_to(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def _take_terminal() -> None:
    """Make stdin the controlling terminal, so that Ctrl-C and SIGWINCH reach the command."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
