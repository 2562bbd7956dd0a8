"""How fast a hit is: llm-cache, llm-cache-proxy, a bare Hypercorn app and nginx, in one run.

    python bench/hits.py [--rounds 5] [--seconds 3] [--only llm-cache,nginx] [--output FILE]

`wrk` with one thread sends the same POST (1 KB) over 1 and over 32 connections; answers have 1.4 KB
and 100 KB. Rounds are interleaved: each round measures every system once, beginning with another
one each time, so that a busy moment of the machine meets all of them. Figures are medians of the
rounds.

Every figure is of hits: before and after each measurement the answer's bytes and `x-cache` are
checked, and the upstream must not have been called in between. An error ends the run with exit
code 1. A system that isn't installed is named and left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.anthropic_wire import message_of_size, request
from support.proxy import anthropic_headers
from support.raw import Response, exchange
from support.replies import Reply, json_reply
from support.upstream import Request, Upstream, wait_until
from systems import SYSTEMS, NotInstalled, System

CONNECTIONS = (1, 32)
ANSWER_SIZES = (1_400, 100_000)
OUTPUT = Path(__file__).parent / "results" / "hits.md"

_LUA = """
function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  file:close()
  wrk.headers["content-type"] = "application/json"
  wrk.headers["anthropic-version"] = "2023-06-01"
  wrk.headers["x-api-key"] = "sk-ant-test-key"
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %d, "us": %d, "p50": %d, "p99": %d, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One load: bytes of an answer, and connections at once."""

    size: int
    connections: int

    @property
    def target(self) -> str:
        """The request's target; the bare app reads the answer's size from it."""
        return f"/v1/messages?size={self.size}"

    @property
    def body(self) -> bytes:
        """The request's body: 1 KB."""
        return request(f"{self.size}: " + "Why is the sky blue, again? " * 33)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measurement gave: hits per second, and latency in milliseconds."""

    rate: float
    p50_ms: float
    p99_ms: float


def main() -> int:
    """Measure and write the table; the exit code."""
    options = _options()
    wrk = shutil.which("wrk")
    if wrk is None:
        print("bench/hits.py needs wrk on the PATH (Debian: wrk)", file=sys.stderr)
        return 1
    cases = [Case(size, count) for size in ANSWER_SIZES for count in CONNECTIONS]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-cache-bench-")))
        upstream = stack.enter_context(Upstream(_answer))
        systems: list[System] = []
        for name in options.only:
            own = folder / name
            own.mkdir()
            try:
                systems.append(stack.enter_context(SYSTEMS[name](own, upstream)))
            except NotInstalled as reason:
                print(f"{name}: left out: {reason}", file=sys.stderr)
        samples = _measure(wrk, folder, upstream, systems, cases, options)
    table = _table(systems, cases, samples, options)
    print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(table)
    print(f"written to {options.output}", file=sys.stderr)
    return 0


def _measure(
    wrk: str,
    folder: Path,
    upstream: Upstream,
    systems: Sequence[System],
    cases: Sequence[Case],
    options: argparse.Namespace,
) -> dict[tuple[str, Case], list[Sample]]:
    script = folder / "post.lua"
    script.write_text(_LUA)
    samples: dict[tuple[str, Case], list[Sample]] = {}
    for case in cases:
        body = folder / f"body-{case.size}.json"
        body.write_bytes(case.body)
    for system in systems:  # the answers get into the caches
        for case in cases:
            _fill(system, case)
            _run_wrk(wrk, script, folder, system, case, seconds=1)
    for turn in range(options.rounds):
        for case in cases:
            first = turn % len(systems)
            for system in [*systems[first:], *systems[:first]]:
                _check_hit(system, case)
                calls = upstream.call_count
                sample = _run_wrk(wrk, script, folder, system, case, options.seconds)
                _check_hit(system, case)
                if upstream.call_count != calls:
                    raise SystemExit(f"{system.name} called the upstream: these are not all hits")
                samples.setdefault((system.name, case), []).append(sample)
                print(
                    f"{turn + 1}/{options.rounds} {case.size:>6} B x{case.connections:<2} "
                    f"{system.name:15} {sample.rate:>8.0f}/s  p50 {sample.p50_ms:.2f}"
                    f"  p99 {sample.p99_ms:.2f} ms",
                    file=sys.stderr,
                )
    return samples


def _run_wrk(
    wrk: str, script: Path, folder: Path, system: System, case: Case, seconds: int
) -> Sample:
    command = [wrk, "-t1", f"-c{case.connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(script), f"http://127.0.0.1:{system.port}{case.target}"]
    command += ["--", str(folder / f"body-{case.size}.json")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    line = next(line for line in ran.stdout.splitlines() if line.startswith("RESULT "))
    result = json.loads(line.removeprefix("RESULT "))
    if result["errors"] or not result["requests"]:
        raise SystemExit(f"{system.name}: {result['errors']} errors:\n{ran.stdout}")
    rate = result["requests"] / (result["us"] / 1e6)
    return Sample(rate, result["p50"] / 1000, result["p99"] / 1000)


def _fill(system: System, case: Case) -> None:
    """Ask until it is a hit: one of the systems stores only after the answer's end."""
    wait_until(
        lambda: _ask(system, case).header("x-cache") == system.hit_label, f"a hit of {system.name}"
    )


def _check_hit(system: System, case: Case) -> None:
    answer = _ask(system, case)
    label = answer.header("x-cache")
    if answer.status != 200 or answer.body != message_of_size(case.size):
        raise SystemExit(f"{system.name} answered {answer.status}, {len(answer.body)} bytes")
    if label != system.hit_label:
        raise SystemExit(f"{system.name}: x-cache is {label}, not {system.hit_label}")


def _ask(system: System, case: Case) -> Response:
    return exchange(system.port, "POST", case.target, anthropic_headers(), case.body)


def _answer(asked: Request) -> Reply:
    return json_reply(message_of_size(int(asked.target.rpartition("size=")[2])))


def _table(
    systems: Sequence[System],
    cases: Sequence[Case],
    samples: dict[tuple[str, Case], list[Sample]],
    options: argparse.Namespace,
) -> str:
    ours = systems[0].name if systems and systems[0].name == "llm-cache" else None
    lines = [
        "# Cache hits",
        "",
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}; `wrk -t1`,"
        f" POST of 1 KB, {options.rounds} interleaved rounds of {options.seconds} s, medians."
        " Rows are comparable with each other only.",
        "",
    ]
    for case in cases:
        lines += [
            f"## {case.size / 1000:g} KB answer, {case.connections} connection"
            + ("s" if case.connections > 1 else ""),
            "",
            "| system | hits/s | p50 ms | p99 ms | llm-cache's rate is |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for system in systems:
            runs = samples[system.name, case]
            rate = median(run.rate for run in runs)
            ratio = ""
            if ours is not None and system.name != ours:
                ratio = f"{median(run.rate for run in samples[ours, case]) / rate:.2f} x"
            lines.append(
                f"| {system.name} {system.version} | {rate:,.0f}"
                f" | {median(run.p50_ms for run in runs):.2f}"
                f" | {median(run.p99_ms for run in runs):.2f} | {ratio} |"
            )
        lines.append("")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of each run (default 3)")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(SYSTEMS),
        help=f"systems, comma-separated, of: {', '.join(SYSTEMS)}",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"the table (default {OUTPUT})")
    options = parser.parse_args()
    if unknown := set(options.only) - set(SYSTEMS):
        parser.error(f"--only: no such system: {', '.join(sorted(unknown))}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds begin at 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
