"""A process of a test's own that is gone when its block is left, however it is left.

`with subprocess.Popen(…)` waits for the process at the end of its block, without a limit: a test
that fails or runs out of time inside it would never come to its end.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start `command` with `Popen`'s options; what still runs at the block's end is killed."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()
