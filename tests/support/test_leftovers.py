"""What a run leaves behind is found, and ended when the run is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from support import leftovers

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(),
    reason="processes are found in /proc",
)

DETACHED = """
import os, time
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    os.close(1)
    time.sleep(600)
"""


def detached(mark: str) -> int:
    """The pid of a process that has left its parent, as a proxy in the background has."""
    done = subprocess.run(
        [sys.executable, "-c", DETACHED],
        env={**os.environ, leftovers.MARK: mark},
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout)


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex


def test_a_process_that_left_its_parent_is_found_and_ended(mark: str) -> None:
    pid = detached(mark)
    assert set(leftovers.left_running(mark, but=0, wait_sec=0)) == {pid}
    assert leftovers.left_running(mark, but=0) == {}


def test_when_the_run_is_gone_its_processes_are_ended(mark: str) -> None:
    watcher = leftovers.watcher(mark)
    detached(mark)
    assert watcher.stdin is not None
    watcher.stdin.close()
    assert watcher.wait(30) == 0
    assert leftovers.left_running(mark, but=0) == {}
