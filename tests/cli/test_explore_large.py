"""explore with 100,000 entries: nothing a person presses waits for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Cli
from large_store import fill
from support.terminal import Terminal

COUNT = 100_000
LINES = 24
ROWS = LINES - 4
PATIENCE = 0.5
"""Seconds a key may take, on a machine that is busy with other tests; commonly it is 0.03."""


@pytest.mark.timeout(180)
def test_100_000_entries_scroll_without_lag(cli: Cli) -> None:
    fill(cli.home / "store", COUNT)
    began = time.perf_counter()
    environment = {**cli.environment, "CACHE_MAX_ENTRIES": "0"}
    with Terminal(cli.command("explore"), environment, lines=LINES) as terminal:

        def seconds(key: str, *wanted: str | Callable[[str], bool]) -> float:
            begin = time.perf_counter()
            terminal.type(key)
            terminal.wait(*wanted)
            return time.perf_counter() - begin

        terminal.wait("Question number 1.")
        first_rows = time.perf_counter() - began
        terminal.wait(f"{COUNT:,} entries", lambda text: "reading" not in text)
        everything = time.perf_counter() - began
        assert first_rows < everything  # the first rows don't wait for the last

        assert seconds("end", f"Question number {COUNT - 1}.") < PATIENCE
        assert seconds("home", "Question number 1.") < PATIENCE
        pages = [
            seconds("pagedown", f"Question number {1 + ROWS * page}.") for page in range(1, 21)
        ]
        steps = [seconds("down", f"Question number {401 + step}.") for step in range(1, 21)]
        assert statistics.median(pages) < PATIENCE / 2
        assert statistics.median(steps) < PATIENCE / 2

        terminal.type("/")
        terminal.wait("words to look for")
        terminal.type("number 9999")
        terminal.wait("20 of 100,000", "Question number 99999.")  # in a key or two as well
        typed = seconds("7", "1 of 100,000", "Question number 99997.")
        assert typed < PATIENCE
        terminal.type("escape")
        terminal.wait_gone(" of ")
        assert seconds("s", "by age") < 2 * PATIENCE
        memory = Path(f"/proc/{terminal.pid}/status")
        if memory.exists():
            [kib] = [line.split()[1] for line in memory.read_text().splitlines() if "VmRSS" in line]
            assert int(kib) < 300_000
        terminal.type("q")
        assert terminal.ended() == 0


def test_a_list_of_100_000_is_written_as_it_is_read(cli: Cli) -> None:
    fill(cli.home / "store", COUNT)
    with cli.started("explore", "--list") as listing:
        assert listing.stdout is not None
        assert "Question number 1." in listing.stdout.readline()
        listing.stdout.close()
        assert listing.wait(20) == 0
