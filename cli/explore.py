"""`explore`: what is in the cache, by eye in a terminal, or as text and JSON for scripts.

Works on the store itself, beside a running proxy or without one: an entry invalidated here is gone
for the proxy's next request.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from llm_cache.cli.open_store import opened_store
from llm_cache.cli.output import (
    colourful,
    cut,
    dollars,
    duration,
    json_text,
    note,
    say,
    say_json,
)
from llm_cache.errors import LlmCacheError, UsageError
from llm_cache.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_cache.exchange.browse import Order, Row
    from llm_cache.store import Entry, Store

_NAMED_AT_MOST = 5
_KEY_CHARS = 12
_NO_SCREENS = ("", "dumb", "unknown")

List = Annotated[bool, typer.Option("--list", "-l", help="Print one line for each entry.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON: the list, or one entry.")]
View = Annotated[
    str | None, typer.Option("--view", metavar="KEY", help="Print the entry of this key (prefix).")
]
Invalidate = Annotated[
    str | None,
    typer.Option("--invalidate", metavar="KEY", help="Remove the entry of this key (prefix)."),
]
All = Annotated[bool, typer.Option("--all", help="With --invalidate: all that the prefix fits.")]
Filter = Annotated[
    str, typer.Option("--filter", "-f", metavar="WORDS", help="Only entries with these words.")
]
Sort = Annotated[
    str,
    typer.Option(
        "--sort", help="used, age, hits, tokens, size, provider, model or prompt.", metavar="COLUMN"
    ),
]


def explore(
    list_: List = False,
    json: Json = False,
    view: View = None,
    invalidate: Invalidate = None,
    all_: All = False,
    filter_: Filter = "",
    sort: Sort = "used",
) -> None:
    """Browse, search, view and remove what is in the cache.

    With no option: on the terminal, with keys (? tells which). Works with the proxy up or down.

    Example: llm-cache explore --list --filter haiku
    """
    from llm_cache.exchange.browse import ORDERS, order_named

    order = order_named(sort)
    if order is None:
        names = ", ".join(one.name for one in ORDERS)
        raise UsageError(f"--sort {sort}: there is no such column; it is one of {names}")
    if view is not None and invalidate is not None:
        raise UsageError("--view and --invalidate don't go together")
    if all_ and invalidate is None:
        raise UsageError("--all goes with --invalidate")
    settings = load_settings()
    scripted = list_ or json or view is not None or invalidate is not None
    if not scripted:
        _require_terminal()
    with opened_store(settings) as store:
        if view is not None:
            _view(store, view, json)
        elif invalidate is not None:
            _invalidate(store, invalidate, all_, json)
        elif scripted:
            _list(store, filter_, order, json)
        elif store is None:
            say(f"there is no cache at {settings.store_dir} yet; `llm-cache on` begins one")
        else:
            from llm_cache.cli.explore_app import Explorer

            Explorer(settings, store, filter_, order).show()


def _require_terminal() -> None:
    # textual reads keys from stdin and draws on stderr.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("explore needs a terminal; in a script use --list, --json or --view KEY")
    terminal = os.environ.get("TERM", "")
    if terminal in _NO_SCREENS:
        raise UsageError(
            f"explore can't draw on this terminal (TERM={terminal}); "
            "use --list, --json or --view KEY"
        )


def _list(store: Store | None, wanted: str, order: Order, as_json: bool) -> None:
    from llm_cache.cli.explore_rows import Columns
    from llm_cache.exchange.browse import facts_of

    number = 0
    if as_json:
        for number, (row, entry) in enumerate(_chosen(store, wanted, order), 1):
            facts = json_text(facts_of(row.key.hex(), entry))
            say(f"{'[' if number == 1 else ','}\n  {facts}")
        say("]" if number else "[]")
        return
    terminal = sys.stdout.isatty()
    width = os.get_terminal_size().columns if terminal else 200
    columns = Columns.of_width(width - _KEY_CHARS - 1)
    now = time.time()
    for number, (row, _) in enumerate(_chosen(store, wanted, order), 1):
        if number == 1 and terminal:
            say(cut(f"{'KEY':<{_KEY_CHARS}} {columns.head()}", width).rstrip())
        line = f"{row.key.hex()[:_KEY_CHARS]} {columns.line(row, now)}"
        say((cut(line, width) if terminal else line).rstrip())
    if not number:
        note("no entry fits" if wanted else "the cache is empty")


def _chosen(store: Store | None, wanted: str, order: Order) -> Iterable[tuple[Row, Entry]]:
    """The entries to list, in order; read one by one when that is the store's own order."""
    from llm_cache.exchange.browse import ORDERS, filtered, row_of

    listed = ((row_of(key, entry), entry) for key, entry in (store.entries() if store else ()))
    chosen = (pair for pair in listed if filtered(pair[:1], wanted))
    if order is ORDERS[0]:
        return chosen
    return sorted(chosen, key=lambda pair: order.of(pair[0]), reverse=order.down)


def _view(store: Store | None, prefix: str, as_json: bool) -> None:
    from llm_cache.cli.explore_text import answer_lines, request_lines
    from llm_cache.exchange.browse import facts_of, stored

    found = _found(store, prefix, _NAMED_AT_MOST + 1)
    if len(found) > 1:
        raise UsageError(f"{_several(prefix, found)}; give more of the key")
    assert store is not None  # something was found
    [(key, entry)] = found
    one = stored(store, key, entry)
    facts = facts_of(key, entry)
    if as_json:
        bodies = {"request": one.request, "answer": one.answer}
        texts = {
            name: None if body is None else body.decode("utf-8", "replace")
            for name, body in bodies.items()
        }
        say_json({**facts, **texts})
        return
    for name, value in facts.items():
        if name not in ("prompt", "snippet"):
            say(f"{name:<14} {_readable(name, value)}")
    for title, lines in (
        ("REQUEST", request_lines(one, "readable")),
        ("ANSWER", answer_lines(one, "readable")),
    ):
        say(f"\n{_heading(f'══ {title} ')}")
        for line in lines:
            say(_heading(f"── {line.text} ") if line.heading else line.text)


def _readable(name: str, value: object) -> str:
    """A fact as a person reads it; a script takes --json."""
    from llm_cache.cli.explore_text import safe

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in ("created", "accessed") and isinstance(value, float):
        ago = duration(max(0.0, time.time() - value))
        return f"{datetime.fromtimestamp(value):%Y-%m-%d %H:%M:%S} ({ago} ago)"
    if name == "usd" and isinstance(value, float):
        return dollars(value, 6)
    return safe(str(value))


def _heading(text: str) -> str:
    line = text.ljust(72, text[0])
    return f"\x1b[1m{line}\x1b[0m" if colourful() else line


def _invalidate(store: Store | None, prefix: str, every: bool, as_json: bool) -> None:
    found = _found(store, prefix, sys.maxsize if every else _NAMED_AT_MOST + 1)
    if len(found) > 1 and not every:
        raise UsageError(f"{_several(prefix, found)}; --all removes all of them")
    assert store is not None  # something was found
    gone = []
    for key, entry in found:
        keys = store.keys_of(entry)  # the first is the one that the list shows
        if store.delete(bytes.fromhex(key)) and keys:
            gone.append(keys[0].hex())
    if as_json:
        say_json({"removed": gone})
        return
    for key in gone:
        say(f"removed {key}")


def _several(prefix: str, found: list[tuple[str, Entry]]) -> str:
    some = ", ".join(key[:16] for key, _ in found[:_NAMED_AT_MOST])
    more = ", …" if len(found) > _NAMED_AT_MOST else ""
    return f"{prefix} fits several entries ({some}{more})"


def _found(store: Store | None, prefix: str, limit: int) -> list[tuple[str, Entry]]:
    if not prefix or prefix.lower().strip("0123456789abcdef") or len(prefix) > 64:
        raise UsageError(f"{prefix!r} is no key: a key is 64 hexadecimal digits, or its first ones")
    found = store.find(prefix, limit) if store is not None else []
    if not found:
        raise LlmCacheError(f"no entry has a key that starts with {prefix}")
    return found
