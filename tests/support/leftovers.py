"""What a run of the tests leaves behind: processes, files in the checkout, a home of the product's.

Every process that a test starts inherits the run's mark in its environment, however far it goes
from the test that started it, so that it is found again (Linux; elsewhere none is found). A run
that is killed can't look for itself: a watcher does, which ends what has the mark as soon as the
run is gone.

    python leftovers.py MARK    the watcher; its stdin ends with the run
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

MARK = "TESTS_RUN"
"""The environment variable that holds the run's mark."""

_ENDS_WITH_US = "multiprocessing.resource_tracker"
"""A helper of Python's own that lives as long as the process which used `multiprocessing`."""

GRACE_SEC = 10.0
"""How long what was told to end may take."""


def marked(mark: str) -> dict[int, str]:
    """The processes with this mark, but for this one and its parents: pid to command line."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    ours = _self_and_parents()
    for place in Path("/proc").glob("[0-9]*"):
        pid = int(place.name)
        with suppress(OSError):  # it has ended, or is another user's
            if pid not in ours and wanted in (place / "environ").read_bytes().split(b"\0"):
                words = (place / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                command = b" ".join(words).decode(errors="replace")
                if _ENDS_WITH_US not in command:
                    found[pid] = command
    return found


def left_running(mark: str, *, but: int, wait_sec: float = GRACE_SEC) -> dict[int, str]:
    """What still runs after a while with this mark, and now ended; `but` is the watcher."""
    until = time.monotonic() + wait_sec
    while (found := marked(mark)) and found.keys() - {but} and time.monotonic() < until:
        time.sleep(0.05)
    found.pop(but, None)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def watcher(mark: str) -> subprocess.Popen[bytes]:
    """Start the watcher of this run. It ends by itself once its stdin is closed."""
    return subprocess.Popen(
        [sys.executable, __file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def changed_files(root: Path) -> set[str] | None:
    """What git says of the checkout; None where there is no git or no checkout."""
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return set(told.stdout.splitlines()) if told.returncode == 0 else None


def _self_and_parents() -> set[int]:
    pids = set()
    pid = os.getpid()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return pids


def _watch(mark: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    left_running(mark, but=os.getpid(), wait_sec=1.0)


if __name__ == "__main__":
    _watch(sys.argv[1])
