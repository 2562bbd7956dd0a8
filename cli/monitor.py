"""`monitor`: every call as it is answered, one line each."""

from __future__ import annotations

import json as json_text
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from llm_cache.cli.output import colourful, dollars, note, printable, say
from llm_cache.errors import NotRunningError
from llm_cache.server import process
from llm_cache.settings import Settings, load_settings

RETRY_SEC = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses before the proxy is looked for again; the last one goes on."""

Json = Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")]

_GREEN, _YELLOW, _RED, _GREY, _PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[90m", "\x1b[0m"
_COLOURS = {"MISS": _YELLOW, "MISS-COALESCED": _YELLOW, "ERROR": _RED}


def monitor(json: Json = False) -> None:
    """Follow the calls as they are answered, until Ctrl-C.

    Each line: time, number, type, model, tokens, price, milliseconds, start of the answer. When
    the proxy restarts, monitor waits for it.

    Example: llm-cache monitor
    """
    settings = load_settings()
    if process.find(settings) is None:
        raise NotRunningError("the proxy is down; start it with `llm-cache on`")
    _end_with_reader()
    attempts = 0
    while True:
        running = process.find(settings)
        if running is not None and running.address is not None:
            if attempts:
                note(f"connected again (pid {running.pid})")
            attempts = 0
            with suppress(NotRunningError):  # it stopped just now
                _follow(settings, running.address, _as_json if json else _as_line)
        if attempts == 0:
            note("the proxy has gone; waiting for it (Ctrl-C ends)")
        time.sleep(RETRY_SEC[min(attempts, len(RETRY_SEC) - 1)])
        attempts += 1


def _follow(
    settings: Settings, address: process.Address, show: Callable[[dict[str, Any]], str]
) -> None:
    for raw in process.follow(settings, address, "/monitor"):
        event = _event(raw)
        if event.get("type") == "dropped":
            note(f"{event.get('count')} events were lost: the terminal didn't keep up")
        elif "seq" in event:
            say(show(event))


def _event(line: bytes) -> dict[str, Any]:
    """The event of one line of the stream; empty for lines that hold none."""
    if not line.startswith(b"data:"):
        return {}
    try:
        event = json_text.loads(line[5:])
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _end_with_reader() -> None:
    """End the command when whoever reads our output goes away, even while no event comes."""
    output = sys.stdout.fileno()
    kind = os.fstat(output).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(output, 0)  # errors and hang-ups are always told
        poll.poll()
        os._exit(0)  # nothing is buffered, and nothing is held that would have to be given back

    threading.Thread(target=watch, daemon=True).start()


def _as_json(event: dict[str, Any]) -> str:
    return json_text.dumps(event, ensure_ascii=False)


def _as_line(event: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(event["t"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kind = str(event["type"])
    tokens = int(event["in"]) + int(event["out"])
    head = f"{when}  #{event['seq']:04d} "
    facts = (
        f" {printable(event['model'] or '-')}  {tokens}tok "
        f"{dollars(event['usd'], 5)}  {event['ms']:.0f}ms"
    )
    tail = f" | {printable(event['snippet'])}" if event["snippet"] else ""
    if not colourful():
        return f"{head}{kind:<4}{facts}{tail}"
    colour = _COLOURS.get(kind, _GREEN if event["from_cache"] else _GREY)
    return f"{_GREY}{head}{_PLAIN}{colour}{kind:<4}{_PLAIN}{facts}{_GREY}{tail}{_PLAIN}"
