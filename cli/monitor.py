"""`monitor`: every call as it is answered, one line each."""

from __future__ import annotations

import json as json_format
import os
import re
import select
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from llm_cache.cli.output import (
    cell_len,
    colourful,
    cut,
    dollars,
    json_text,
    note,
    printable,
    say,
)
from llm_cache.errors import NotRunningError
from llm_cache.host import process
from llm_cache.settings import Settings, load_settings

RETRY_SEC = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses before the proxy is looked for again; the last one goes on."""

Json = Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")]

_DATE = re.compile(r"-20[0-9]{6}$")  # of a model's release: the first to go when room is short
_TYPE_WIDTH = 5
_FIXED_WIDTH = 46  # of all columns but the model and the answer

_GREEN, _YELLOW, _RED, _CYAN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[36m"
_GREY, _PLAIN = "\x1b[90m", "\x1b[0m"
_COLOURS = {"HIT": _GREEN, "MISS": _YELLOW, "MISS-COALESCED": _YELLOW, "ERR": _RED}
"""By type; other hits are cyan, what isn't cached at all is grey."""


def monitor(json: Json = False) -> None:
    """Follow the calls as they are answered, until Ctrl-C.

    Each line: time, number, type, model, tokens, price, milliseconds, start of the answer; on a
    terminal cut to its width. When the proxy restarts, monitor waits for it.

    Example: llm-cache monitor
    """
    settings = load_settings()
    found = process.find(settings)
    if found is None:
        raise NotRunningError("the proxy is down; start it with `llm-cache on`")
    _end_with_reader()
    terminal = sys.stdout.isatty()
    show = _as_json if json else _as_row if terminal else _as_line
    if terminal and not json and found.address is not None:
        note(f"following {found.address.url} (Ctrl-C ends)")
    attempts = 0
    while True:
        running = process.find(settings)
        if running is not None and running.address is not None:
            if attempts:
                note(f"connected again (pid {running.pid})")
            attempts = 0
            with suppress(NotRunningError):  # it stopped just now
                _follow(settings, running.address, show)
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
        event = json_format.loads(line[5:])
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
    return json_text(event)


def _as_line(event: dict[str, Any]) -> str:
    """The whole of an event, for a pipe: nothing is cut."""
    when = datetime.fromtimestamp(event["t"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = _told(event)
    tail = f" | {told}" if told else ""
    return (
        f"{when}  #{event['seq']:04d} {_type(event):<4} "
        f"{printable(event['model'] or '-')}  {_tokens(event)}tok "
        f"{dollars(event['usd'], 5)}  {event['ms']:.0f}ms{tail}"
    )


def _as_row(event: dict[str, Any]) -> str:
    """An event on one line of this terminal, in columns; names and answers are cut to fit."""
    width = shutil.get_terminal_size().columns
    when = datetime.fromtimestamp(event["t"] / 1000).strftime("%H:%M:%S")
    kind = _type(event)
    beside = max(0, len(kind) - _TYPE_WIDTH)  # a long type takes its room from the model
    columns = max(8, min(28, (width - _FIXED_WIDTH) // 2) - beside)
    model = printable(event["model"] or "-")
    if len(model) > columns:
        model = _DATE.sub("", model)
    head = f"{when} #{event['seq']:04d} "
    facts = (
        f" {cut(model, columns)} {_tokens(event):>5}tok "
        f"{dollars(event['usd'], 5):>8} {event['ms']:>5.0f}ms"
    )
    used = len(head) + max(len(kind), _TYPE_WIDTH) + cell_len(facts)
    tail = cut(f" | {_told(event)}", max(0, width - used)).rstrip()
    if not colourful():
        return cut(f"{head}{kind:<{_TYPE_WIDTH}}{facts}{tail}", width).rstrip()
    colour = _COLOURS.get(kind, _CYAN if event["from_cache"] else _GREY)
    if used > width:  # too narrow for columns
        return f"{colour}{cut(f'{head}{kind} {facts}', width)}{_PLAIN}"
    return f"{_GREY}{head}{_PLAIN}{colour}{kind:<{_TYPE_WIDTH}}{_PLAIN}{facts}{_GREY}{tail}{_PLAIN}"


def _type(event: dict[str, Any]) -> str:
    """How it was answered; `ERR` for what failed, whoever's fault it was."""
    return "ERR" if event.get("kind") == "error" else printable(event["type"])


def _told(event: dict[str, Any]) -> str:
    """The start of the answer; of one that says nothing, why it wasn't stored."""
    note = event.get("note")
    return printable(event["snippet"] or (f"[{note}]" if note else ""))


def _tokens(event: dict[str, Any]) -> int:
    return int(event["in"]) + int(event["out"])
