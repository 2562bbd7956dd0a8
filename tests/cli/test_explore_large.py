"""explore with 100,000 entries: every key does what it does with ten. How long a key takes is
measured by bench/explore.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Cli
from support.large_store import fill
from support.terminal import Terminal

COUNT = 100_000
LINES = 24
ROWS = LINES - 4


@pytest.mark.timeout(180)
def test_100_000_entries_are_browsed_filtered_and_sorted(cli: Cli) -> None:
    fill(cli.home / "store", COUNT)
    environment = {**cli.environment, "CACHE_MAX_ENTRIES": "0"}
    with Terminal(cli.command("explore"), environment, lines=LINES) as terminal:

        def press(key: str, *wanted: str | Callable[[str], bool]) -> None:
            terminal.type(key)
            terminal.wait(*wanted)

        terminal.wait("Question number 1.")
        terminal.wait(f"{COUNT:,} entries", lambda text: "reading" not in text)
        press("end", f"Question number {COUNT - 1}.")
        press("home", "Question number 1.")
        for page in range(1, 21):
            press("pagedown", f"Question number {1 + ROWS * page}.")
        for step in range(1, 21):
            press("down", f"Question number {401 + step}.")
        press("/", "words to look for")
        press("number 9999", "20 of 100,000", "Question number 99999.")  # in a key or two as well
        press("7", "1 of 100,000", "Question number 99997.")
        terminal.type("escape")
        terminal.wait_gone(" of ")
        press("s", "by age")
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
