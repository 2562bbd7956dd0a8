"""The fixture of the command tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Cli
from support.upstream import Upstream, unused_port


@pytest.fixture
def cli(home: Path, upstream: Upstream) -> Iterator[Cli]:
    """The command with a fresh home, a free port and an upstream; its proxy is gone at the end."""
    port = str(unused_port())
    one = Cli(home, {"CACHE_PORT": port, "CACHE_UPSTREAM_ANTHROPIC": upstream.url})
    yield one
    pid = one.pid()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    log = home / "proxy.log"
    assert not log.exists() or "Traceback" not in log.read_text()
