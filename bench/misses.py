"""What a miss costs: time added to the first byte, to the end, and to each chunk of a stream.

    python bench/misses.py [--requests 400] [--streams 40] [--output FILE]

The same upstream (a process of its own) is asked directly and through the proxy, turn by turn over
one kept connection each, every request different. The upstream writes the moment of sending into
each chunk of a stream, so a chunk's time is that from the upstream's write to the client's read.
"Added" is the difference of the medians, and of the 99th percentiles. Every answer through the
proxy must be a `MISS` with the same bytes as the direct one.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import anthropic_wire as wire
from support.proxy import anthropic_headers, running_proxy
from support.raw import RawConnection
from support.replies import Made, Pause, Reply, Step, json_reply, sse_reply
from support.upstream import Request, Upstream

OUTPUT = Path(__file__).parent / "results" / "misses.md"
DELTAS = 50
"""Text deltas in a stream."""
PACE = 0.002
"""Seconds between two chunks of a stream."""
REQUEST_SIZES = (1_000, 200_000)
"""Bytes of a request's body; the second is what an agent sends after some turns."""

ROUTES = ("direct", "proxy")


@dataclass(slots=True)
class Times:
    """Seconds of one kind of answer by one route."""

    first_byte: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    chunk: list[float] = field(default_factory=list)


def main() -> int:
    """Measure and write the table; the exit code."""
    options = _options()
    numbers = itertools.count()
    with _upstream_process() as port, tempfile.TemporaryDirectory(prefix="llm-cache-bench-") as tmp:
        settings = {"CACHE_UPSTREAM_ANTHROPIC": f"http://127.0.0.1:{port}"}
        with running_proxy(Path(tmp) / "home", settings) as proxy:
            with (
                RawConnection(port, deadline=600) as direct,
                RawConnection(proxy.port, deadline=600) as through,
            ):
                clients = dict(zip(ROUTES, (direct, through), strict=True))
                plain = {
                    size: _compare(clients, numbers, options.requests, size, stream=False)
                    for size in REQUEST_SIZES
                }
                streamed = _compare(clients, numbers, options.streams, 1_000, stream=True)
            session = proxy.stats()["session"]
            expected = options.requests * len(REQUEST_SIZES) + options.streams + 3 * _WARM_UP
            if session["hits"] or session["misses"] != expected:
                raise SystemExit(f"these were not {expected} misses: {session}")
    table = _table(plain, streamed, options)
    print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(table)
    print(f"written to {options.output}", file=sys.stderr)
    return 0


_WARM_UP = 20


def _compare(
    clients: dict[str, RawConnection],
    numbers: Iterator[int],
    count: int,
    size: int,
    *,
    stream: bool,
) -> dict[str, Times]:
    """Ask `count` times by each route, in turn, after a few that don't count."""
    times = {route: Times() for route in ROUTES}
    for turn in range(count + _WARM_UP):
        for route in ROUTES if turn % 2 else reversed(ROUTES):
            into = times[route] if turn >= _WARM_UP else Times()
            _ask(clients[route], route, next(numbers), size, stream, into)
    return times


def _ask(
    client: RawConnection, route: str, number: int, size: int, stream: bool, into: Times
) -> None:
    filler = "x" * max(0, size - 120)
    body = wire.request(f"{number} {filler}", stream=stream)
    begin = time.perf_counter()
    response = client.request("POST", "/v1/messages", anthropic_headers(), body)
    into.first_byte.append(time.perf_counter() - begin)
    if response.status != 200 or response.header("x-cache") != _LABELS[route]:
        raise SystemExit(f"{route}: {response.status} {response.header('x-cache')}")
    seen = 0
    while response.ending is None:
        response.read(len(response.body) + 1)
        now = time.perf_counter_ns()
        while (end := response.body.find(b"\n\n", seen)) >= 0:
            if (mark := response.body.find(b"sent-ns:", seen, end)) >= 0:
                sent = int(response.body[mark + 8 : mark + 28])
                into.chunk.append((now - sent) / 1e9)
            seen = end + 2
    into.whole.append(time.perf_counter() - begin)
    if not response.complete or (not stream and response.body != _PLAIN):
        raise SystemExit(f"{route}: {response.ending}, {len(response.body)} bytes")
    if stream and len(response.body) != _STREAM_BYTES:
        raise SystemExit(f"{route}: {len(response.body)} bytes of a stream of {_STREAM_BYTES}")


# The upstream


def _delta() -> bytes:
    delta = {"type": "text_delta", "text": f"sent-ns:{time.perf_counter_ns():020d}"}
    return wire.event(
        "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    )


def _stream_steps() -> list[Step]:
    start, *_, block_end, delta, stop = wire.stream("x", ping=False)
    steps: list[Step] = [start]
    for _ in range(DELTAS):
        steps += [Pause(PACE), Made(_delta)]
    return [*steps, block_end, delta, stop]


_PLAIN = wire.message_of_size(1_400)
_STREAM_BYTES = sum(
    len(step) if isinstance(step, bytes) else len(step.make())
    for step in _stream_steps()
    if isinstance(step, bytes | Made)
)
_LABELS = {"direct": None, "proxy": "MISS"}


def _answer(asked: Request) -> Reply:
    if b'"stream":true' in asked.body[-20:]:
        return sse_reply(_stream_steps())
    return json_reply(_PLAIN)


def _serve(pipe: Connection) -> None:
    with Upstream(_answer) as upstream:
        pipe.send(upstream.port)
        pipe.poll(None)  # until the parent closes its end


@contextmanager
def _upstream_process() -> Iterator[int]:
    """The upstream's port; it runs in a process of its own until the block is left."""
    ours, its = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(its,), daemon=True)
    process.start()
    its.close()
    try:
        if not ours.poll(30):
            raise TimeoutError("the upstream did not start")
        yield int(ours.recv())
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


# The table


def _table(
    plain: dict[int, dict[str, Times]], streamed: dict[str, Times], options: argparse.Namespace
) -> str:
    lines = [
        "# Misses",
        "",
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()};"
        f" {options.requests} requests of each size and {options.streams} streams of {DELTAS}"
        f" deltas, {PACE * 1000:g} ms apart; one connection, direct and through the proxy in turn."
        " Milliseconds.",
        "",
        "| what | direct p50 | proxy p50 | added p50 | direct p99 | proxy p99 | added p99 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size, times in plain.items():
        label = f"1.4 KB JSON for a {size // 1000} KB request"
        lines.append(_row(f"{label}, first byte", *(times[route].first_byte for route in ROUTES)))
        lines.append(_row(f"{label}, whole", *(times[route].whole for route in ROUTES)))
    lines.append(_row("stream, first byte", *(streamed[route].first_byte for route in ROUTES)))
    lines.append(_row("stream, each chunk", *(streamed[route].chunk for route in ROUTES)))
    return "\n".join([*lines, ""])


def _row(what: str, direct: list[float], proxy: list[float]) -> str:
    figures = []
    for measure in (median, _p99):
        one, other = measure(direct) * 1000, measure(proxy) * 1000
        figures += [one, other, other - one]
    return f"| {what} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |"


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=400, help="plain requests (default 400)")
    parser.add_argument("--streams", type=int, default=40, help="streams (default 40)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"the table (default {OUTPUT})")
    options = parser.parse_args()
    if options.requests < 2 or options.streams < 2:
        parser.error("--requests and --streams begin at 2")
    return options


if __name__ == "__main__":
    sys.exit(main())
