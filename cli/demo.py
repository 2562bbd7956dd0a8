"""`demo`: the main job, shown for real, with no key and no network.

A stand-in for the Anthropic API on loopback, the real proxy as a process of its own in a temporary
home, and a plain HTTP client. What the transcript promises is checked; nothing is left behind.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llm_cache import __version__
from llm_cache.cli.output import console, dollars
from llm_cache.errors import LlmCacheError
from llm_cache.host import process
from llm_cache.settings import Settings, load_settings

if TYPE_CHECKING:
    from httpx import Client
    from rich.console import Console

QUESTION = "In two sentences: what is a cache for?"


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer as it reached the client. Times in seconds from the request."""

    outcome: str
    body: bytes
    first_byte: float
    whole: float


def demo() -> int:
    """Show the cache at work on this machine, with no key and no network.

    Sends real requests twice through the proxy over HTTP, streamed and not. Exit code 1: something
    wasn't as promised.

    Example: llm-cache demo
    """
    from llm_cache.cli.demo_upstream import DemoUpstream

    screen = console()
    screen.print("llm-cache demo", style="bold")
    screen.print("the real proxy and a plain HTTP client; no key, no network.")
    screen.print("the upstream never gives one answer twice: equal bytes are a replay.\n")
    with _ends_on_signals(), DemoUpstream() as upstream, _proxy(upstream.url) as (settings, proxy):
        assert proxy.address is not None  # what `process.start` promises
        screen.print(f"  upstream  {upstream.url}  plays the Anthropic API")
        screen.print(f"  proxy     {proxy.address.url}  llm-cache {__version__}\n")
        wrong = _play(screen, proxy.address.url)
        figures = process.ask(settings, proxy.address, "GET", "/stats")
        wrong += _sum_up(screen, figures, upstream.calls)
    if wrong:
        raise LlmCacheError("not as promised: " + "; ".join(wrong))
    screen.print("\nFor daily work: llm-cache on", style="bold")
    return 0


def _play(screen: Console, url: str) -> list[str]:
    """Send everything, print what came; returns what wasn't as promised."""
    wrong: list[str] = []
    with _client(url) as client:
        for title, stream in (("A plain answer", False), ("A streamed answer", True)):
            screen.print(title, style="bold")
            first, second = _ask(client, stream), _ask(client, stream)
            same = first.body == second.body
            screen.print(
                f"  1st  {first.outcome:<5} {first.whole * 1000:7.1f} ms   "
                f"first byte after {first.first_byte * 1000:.1f} ms"
            )
            screen.print(
                f"  2nd  {second.outcome:<5} {second.whole * 1000:7.1f} ms   "
                + (f"the same {len(second.body)} bytes" if same else "OTHER BYTES")
                + f", {first.whole / second.whole:.0f} times as fast\n",
                style="green" if same and second.outcome == "HIT" else "red",
            )
            name = title.lower()
            if (first.outcome, second.outcome) != ("MISS", "HIT"):
                wrong.append(f"{name}: {first.outcome}, {second.outcome} and not MISS, HIT")
            if not same:
                wrong.append(f"{name}: the second one had other bytes")
            if not 0 < second.whole < first.whole:
                wrong.append(f"{name}: the second one wasn't faster")
        screen.print("The same, as a program reads it", style="bold")
        wrong += _read(screen, client)
    return wrong


def _ask(client: Client, stream: bool) -> Seen:
    """One request; the bytes of its answer as they came over the wire."""
    begin = time.perf_counter()
    first = 0.0
    parts: list[bytes] = []
    request = _request() | ({"stream": True} if stream else {})
    with client.stream("POST", "/v1/messages", json=request) as answer:
        answer.raise_for_status()
        for part in answer.iter_raw():
            first = first or time.perf_counter() - begin
            parts.append(part)
    whole = time.perf_counter() - begin
    return Seen(answer.headers.get("x-cache", "none"), b"".join(parts), first, whole)


def _read(screen: Console, client: Client) -> list[str]:
    from llm_cache.cli.demo_upstream import ANSWER

    answer = client.post("/v1/messages", json=_request() | {"stream": True})
    outcome = answer.headers.get("x-cache", "none")
    events = [json.loads(line[5:]) for line in answer.text.splitlines() if line[:5] == "data:"]
    streamed = "".join(
        event["delta"]["text"] for event in events if event["type"] == "content_block_delta"
    )
    message = client.post("/v1/messages", json=_request()).json()
    plain = "".join(block["text"] for block in message["content"] if block["type"] == "text")
    screen.print(f"  {outcome:<5}  {streamed}\n")
    if outcome != "HIT" or streamed != ANSWER or plain != ANSWER:
        return ["the client read another text from the cache"]
    return []


def _sum_up(screen: Console, figures: dict[str, Any], upstream_calls: int) -> list[str]:
    calls, hits = figures["calls"], figures["hits"]
    saved, usd = figures["tokens_saved"], figures["usd_saved"]
    screen.print("Sum", style="bold")
    screen.print(f"  {calls} requests, {upstream_calls} reached the upstream, {hits} were hits")
    screen.print(f"  saved {saved} tokens, {dollars(usd, 6)}", style="green")
    screen.print(f"  spent {figures['tokens_spent']} tokens, {dollars(figures['usd_spent'], 6)}")
    wrong = []
    if (calls, hits, upstream_calls) != (6, 4, 2):
        wrong.append(f"{calls} requests, {hits} hits and {upstream_calls} upstream calls")
    if not saved or not usd:
        wrong.append("nothing was counted as saved")
    return wrong


def _request() -> dict[str, Any]:
    from llm_cache.cli.demo_upstream import MODEL

    return {
        "model": MODEL,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": QUESTION}],
    }


def _client(url: str) -> Client:
    import httpx

    # What the environment names, a proxy say, isn't the demo's.
    headers = {"x-api-key": "no-key-needed", "anthropic-version": "2023-06-01"}
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)


@contextmanager
def _proxy(upstream: str) -> Iterator[tuple[Settings, process.Running]]:
    """The proxy, as `on` starts it, in a home that goes when it ends."""
    environ = dict(os.environ)
    _keep_out(environ)
    with tempfile.TemporaryDirectory(prefix="llm-cache-demo-") as folder:
        overrides = {
            "LLM_CACHE_HOME": str(Path(folder).resolve() / "home"),
            "CACHE_PORT": "0",
            "CACHE_UPSTREAM": upstream,
        }
        settings = load_settings(overrides, environ={})
        running = process.start(settings, overrides, environ=environ)
        try:
            yield settings, running
        finally:
            process.stop(settings)


def _keep_out(environ: Any) -> None:
    """Take out of an environment what would lead the demo to real settings, keys or hosts."""
    for name in list(environ):
        ours = name.startswith(("CACHE_", "LLM_CACHE_", "ANTHROPIC_"))
        if ours or name.endswith("_API_KEY_REAL") or name.lower().endswith("_proxy"):
            del environ[name]


@contextmanager
def _ends_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, so that it cleans up."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
