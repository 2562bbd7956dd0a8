"""What a key costs in `explore` as the store grows: from the key's press to the row on the screen.

    python bench/explore.py [--entries 1000,100000] [--output FILE]

A real terminal of 80 by 24, a store of entries that share one blob, keys pressed one after another.
Milliseconds; the screen is read as fast as it is written, so that is our time and the terminal's.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.large_store import fill
from support.proxy import clean_environment
from support.terminal import Terminal

OUTPUT = Path(__file__).parent / "results" / "explore.md"
LINES = 24
ROWS = LINES - 4


def main() -> int:
    """Measure and write the table; the exit code."""
    options = _options()
    columns = {count: _measure(count) for count in options.entries}
    first = columns[options.entries[0]]
    lines = [
        "# Keys of explore",
        "",
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}; an 80 by"
        f" {LINES} terminal. Milliseconds, medians; in brackets the ratio to the first column.",
        "",
        "| what | " + " | ".join(f"{count:,} entries" for count in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for what, base in first.items():
        cells = [f"{row[what]:.0f} ({row[what] / base:.1f})" for row in columns.values()]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    table = "\n".join([*lines, ""])
    print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(table)
    print(f"written to {options.output}", file=sys.stderr)
    return 0


def _measure(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="llm-cache-bench-") as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        fill(home / "store", count)
        environment = clean_environment(home, {"CACHE_MAX_ENTRIES": "0"})
        began = time.perf_counter()
        command = [sys.executable, "-m", "llm_cache", "explore"]
        with Terminal(command, environment, lines=LINES) as terminal:

            def took(key: str, *wanted: str | Callable[[str], bool]) -> float:
                begin = time.perf_counter()
                terminal.type(key)
                terminal.wait(*wanted)
                return (time.perf_counter() - begin) * 1000

            terminal.wait("Question number 1.")
            first_rows = (time.perf_counter() - began) * 1000
            terminal.wait(f"{count:,} entries", lambda text: "reading" not in text)
            whole = (time.perf_counter() - began) * 1000
            end = took("end", f"Question number {count - 1}.")
            top = took("home", "Question number 1.")
            pages = [
                took("pagedown", f"Question number {1 + ROWS * page}.") for page in range(1, 21)
            ]
            steps = [took("down", f"Question number {401 + step}.") for step in range(1, 21)]
            terminal.type("/")
            terminal.wait("words to look for")
            *begun, last = f"number {count - 1}"
            terminal.type("".join(begun))
            terminal.wait(f" of {count:,}", f" {''.join(begun)}")
            letter = took(last, f" 1 of {count:,}", f"Question number {count - 1}.")
            terminal.type("escape")
            terminal.wait_gone(" of ")
            by_age = took("s", "by age")
            terminal.type("q")
            terminal.ended()
    return {
        "start to the first rows": first_rows,
        "start to all entries read": whole,
        "End": end,
        "Home": top,
        "a page down": median(pages),
        "a row down": median(steps),
        "a letter of the filter": letter,
        "sort by age": by_age,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--entries",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[1_000, 100_000],
        help="sizes of the store, from 1000 on (default 1000,100000)",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"the table (default {OUTPUT})")
    options = parser.parse_args()
    if min(options.entries) < 1_000:
        parser.error("--entries begin at 1000")
    return options


if __name__ == "__main__":
    sys.exit(main())
