"""What `explore` lists: one row for each entry, how rows are ordered, filtered and written.

A row holds what the list shows and nothing else, so that 100,000 of them fit in memory; the entry
itself is looked up again by its key when it is opened. Text in a row is what was stored; it is made
safe for a terminal (`printable`) when the row is made.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from llm_cache.cli.output import cut, printable
from llm_cache.store import Entry


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of the list. Times are unix seconds; `tokens` are in and out together."""

    id: int
    key: bytes
    created: float
    accessed: float
    hits: int
    tokens: int
    size: int
    provider: str
    model: str
    words: str  # the prompt's first, else the answer's
    text: str  # what a filter looks through, lower case


def meta_of(entry: Entry) -> dict[str, Any]:
    """What the proxy noted of an entry; empty when it can't be read."""
    try:
        meta = json.loads(entry.meta)
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}


def row_of(key: str, entry: Entry) -> Row:
    """The row of an entry under one of its keys (hex)."""
    meta = meta_of(entry)
    usage = meta.get("usage") or {}
    provider = sys.intern(printable(str(meta.get("provider") or "?")))
    model = sys.intern(printable(str(meta.get("model") or "-")))
    prompt = printable(str(meta.get("prompt") or ""))
    answer = printable(str(meta.get("snippet") or ""))
    return Row(
        id=entry.id,
        key=bytes.fromhex(key),
        created=entry.created,
        accessed=entry.accessed,
        hits=entry.hits,
        tokens=usage.get("input_tokens", 0) + usage.get("output_tokens", 0),
        size=entry.size,
        provider=provider,
        model=model,
        words=prompt or (f"→ {answer}" if answer else ""),
        text=f"{provider} {model} {prompt} {answer} {key}".lower(),
    )


def facts_of(key: str, entry: Entry) -> dict[str, Any]:
    """The entry for a script: times in unix seconds, sizes in bytes, money in US dollars. A `ttl`
    of None: the entry has none of its own, and the store's limit holds, or it never expires."""
    meta = meta_of(entry)
    usage = meta.get("usage") or {}
    nano = meta.get("nano_usd")
    return {
        "key": key,
        "provider": meta.get("provider"),
        "endpoint": meta.get("endpoint"),
        "model": meta.get("model"),
        "status": meta.get("status"),
        "created": entry.created,
        "accessed": entry.accessed,
        "ttl": None if entry.ttl == math.inf else entry.ttl,  # JSON has no infinity
        "hits": entry.hits,
        "tokens_in": usage.get("input_tokens", 0),
        "tokens_out": usage.get("output_tokens", 0),
        "usd": None if nano is None else nano / 1e9,
        "bytes": entry.size,
        "bytes_on_disk": entry.disk_size,
        "request_kept": entry.request_digest is not None,
        "prompt": meta.get("prompt") or "",
        "snippet": meta.get("snippet") or "",
    }


# Order and filter


@dataclass(frozen=True, slots=True)
class Order:
    """A column to sort by. `down`: which way a person means when they ask for it."""

    name: str
    column: str
    of: Callable[[Row], Any]
    down: bool = True


ORDERS: Final = (
    Order("used", "USED", lambda row: row.accessed),
    Order("age", "AGE", lambda row: row.created),
    Order("hits", "HITS", lambda row: row.hits),
    Order("tokens", "TOKENS", lambda row: row.tokens),
    Order("size", "SIZE", lambda row: row.size),
    Order("provider", "PROVIDER", lambda row: (row.provider, row.model), down=False),
    Order("model", "MODEL", lambda row: row.model, down=False),
    Order("prompt", "PROMPT", lambda row: row.words.lower(), down=False),
)
"""The first is the store's own order."""


def order_named(name: str) -> Order | None:
    """The order with this name."""
    return next((order for order in ORDERS if order.name == name), None)


def filtered(rows: Iterable[Row], wanted: str) -> list[Row]:
    """The rows that hold every word of `wanted`, whatever its case."""
    words = wanted.lower().split()
    if len(words) == 1:
        [word] = words
        return [row for row in rows if word in row.text]
    return [row for row in rows if all(word in row.text for word in words)]


# How figures are written in narrow columns


def ago(seconds: float) -> str:
    """A length of time in at most 4 characters: `42s`, `5m`, `3h`, `12d`, `8w`, `2y`."""
    for limit, unit, letter in _UNITS:
        if seconds < limit:
            return f"{int(max(0.0, seconds) / unit)}{letter}"
    return f"{int(seconds / _YEAR)}y"


_DAY: Final = 86400
_YEAR: Final = 365 * _DAY
_UNITS: Final = (
    *((60, 1, "s"), (3600, 60, "m"), (_DAY, 3600, "h")),
    *((14 * _DAY, _DAY, "d"), (_YEAR, 7 * _DAY, "w")),
)


def amount(number: float, step: int = 1000, units: str = "kMGT") -> str:
    """A number in at most 5 characters: `987`, `1.2k`, `340k`, `5.0M`."""
    if number < step:
        return f"{number:.0f}"
    for unit in units:
        number /= step
        if number < 9.95:
            return f"{number:.1f}{unit}"
        if number < step or unit == units[-1]:
            return f"{number:.0f}{unit}"
    raise AssertionError("the last unit always fits")


def bytes_in_short(number: int) -> str:
    """A size in at most 5 characters: `512B`, `1.2K`, `34M`."""
    return f"{number}B" if number < 1000 else amount(number, 1024, "KMGT")


# Columns


@dataclass(frozen=True, slots=True)
class Columns:
    """How wide each column is. From 80 columns on, everything fits; below, words are cut first."""

    model: int
    words: int

    @classmethod
    def of_width(cls, width: int) -> Columns:
        """The columns for a terminal of this width."""
        left = max(8, width - _FIXED)
        model = min(32, max(6, left * 2 // 5)) if width < 110 else 28
        return cls(model, max(0, left - model - 1))

    def head(self, order: Order | None = None, down: bool = True) -> str:
        """The line of headings; the one that is sorted by has an arrow."""

        def name(title: str, width: int, right: bool = False) -> str:
            arrow = "▼" if down else "▲"
            marked = f"{title}{arrow}" if order is not None and order.column == title else title
            return f"{marked[:width]:>{width}}" if right else f"{marked[:width]:<{width}}"

        cells = (
            name("AGE", 4, right=True),
            name("USED", 5, right=True),
            name("HITS", 5, right=True),
            name("PROVIDER", 9),
            name("MODEL", self.model),
            name("TOKENS", 7, right=True),
            name("SIZE", 5, right=True),
            name("PROMPT", max(7, self.words)),
        )
        return " ".join(cells)

    def line(self, row: Row, now: float) -> str:
        """The line of a row."""
        return (
            f"{ago(now - row.created):>4} {ago(now - row.accessed):>5} {amount(row.hits):>5} "
            f"{cut(row.provider, 9)} {cut(row.model, self.model)} {amount(row.tokens):>7} "
            f"{bytes_in_short(row.size):>5} {cut(row.words, self.words)}"
        )


_FIXED: Final = 5 + 4 + 5 + 9 + 7 + 5 + 7
