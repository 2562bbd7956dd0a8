"""What llm-cache costs before it does anything: start-up times and memory.

    python bench/footprint.py [--runs 7] [--output FILE]

Measured as a user has it: the `llm-cache` command of this environment, a new home each time, an
upstream on loopback. "To the first answer" begins when `llm-cache on` is typed and ends with the
last byte of the first answer that came through the proxy. Memory is the resident set of the process
that `/health` names, after the first answer, and again after 1000 misses and 1000 hits.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import anthropic_wire as wire
from support.proxy import anthropic_headers, clean_environment
from support.raw import exchange
from support.replies import json_reply
from support.upstream import Upstream, unused_port

OUTPUT = Path(__file__).parent / "results" / "footprint.md"
LOAD = 1000


def main() -> int:
    """Measure and write the table; the exit code."""
    options = _options()
    command = Path(sys.executable).with_name("llm-cache")
    found = str(command) if command.exists() else shutil.which("llm-cache")
    if found is None:
        print("llm-cache is not installed in this environment", file=sys.stderr)
        return 1
    rows = [
        ("`llm-cache --help`, s", [_help(found) for _ in range(options.runs)]),
        ("`llm-cache --version`, s", [_help(found, "--version") for _ in range(options.runs)]),
    ]
    with Upstream(json_reply(wire.message_of_size(1_400))) as upstream:
        starts = [_start(found, upstream, loaded=turn == 0) for turn in range(options.runs)]
    rows += [
        ("`llm-cache on` returns, s", [start["returned"] for start in starts]),
        ("`llm-cache on` to the first answer, s", [start["answered"] for start in starts]),
        ("`llm-cache stop`, s", [start["stopped"] for start in starts]),
        ("resident memory, idle after the first answer, MB", [start["idle"] for start in starts]),
        (
            f"resident memory after {LOAD} misses and {LOAD} hits, MB",
            [start["loaded"] for start in starts if "loaded" in start],
        ),
    ]
    lines = [
        "# Footprint",
        "",
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()};"
        f" {options.runs} runs.",
        "",
        "| what | median | least | most |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {what} | {median(values):.3g} | {min(values):.3g} | {max(values):.3g} |"
            for what, values in rows
        ),
        "",
    ]
    table = "\n".join(lines)
    print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(table)
    print(f"written to {options.output}", file=sys.stderr)
    return 0


def _help(command: str, flag: str = "--help") -> float:
    with tempfile.TemporaryDirectory(prefix="llm-cache-bench-") as folder:
        environment = clean_environment(Path(folder) / "home")
        return _timed(
            lambda: subprocess.run(
                [command, flag], env=environment, capture_output=True, check=True, timeout=30
            )
        )


def _start(command: str, upstream: Upstream, *, loaded: bool) -> dict[str, float]:
    """`on`, a first answer, perhaps a load, `stop`; times in seconds, memory in MB."""
    port = unused_port()
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="llm-cache-bench-") as folder:
        environment = clean_environment(
            Path(folder) / "home",
            {"CACHE_PORT": str(port), "CACHE_UPSTREAM_ANTHROPIC": upstream.url},
        )

        def run(*arguments: str) -> None:
            ran = subprocess.run(
                [command, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if ran.returncode:
                raise SystemExit(f"llm-cache {' '.join(arguments)}:\n{ran.stdout}{ran.stderr}")

        begin = time.perf_counter()
        try:
            run("on")
            measured["returned"] = time.perf_counter() - begin
            _ask(port, 0, "MISS")
            measured["answered"] = time.perf_counter() - begin
            pid = int(json.loads(exchange(port, "GET", "/health").body)["pid"])
            measured["idle"] = _resident_mb(pid)
            if loaded:
                for number in range(1, LOAD + 1):
                    _ask(port, number, "MISS")
                    _ask(port, number, "HIT")
                measured["loaded"] = _resident_mb(pid)
        finally:
            measured["stopped"] = _timed(lambda: run("stop"))
    return measured


def _ask(port: int, number: int, label: str) -> None:
    body = wire.request(f"question {number}")
    answer = exchange(port, "POST", "/v1/messages", anthropic_headers(), body)
    if answer.status != 200 or answer.header("x-cache") != label:
        raise SystemExit(f"{answer.status} {answer.header('x-cache')}: {answer.body[:200]!r}")


def _resident_mb(pid: int) -> float:
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True, timeout=10
    )
    return int(shown.stdout) / 1024


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=7, help="runs of each (default 7)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"the table (default {OUTPUT})")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs begins at 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
