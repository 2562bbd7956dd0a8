"""What is in the store, for people to look through: rows of entries, their order, and an entry's
request and answer as texts.

What always holds: everything here is as it was stored, so it may hold what a terminal or a browser
would obey; whoever shows it makes it safe. Looking counts as no use of an entry. A row holds what a
list shows and nothing else, so that 100,000 of them fit in memory; the entry itself is looked up
again by its key.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from llm_cache.exchange.entries import members_of
from llm_cache.store import Entry, Store

if TYPE_CHECKING:
    from llm_cache.wire.readable import Part

Form = Literal["readable", "pretty", "raw"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)

_DECODED_BYTES: Final = 256 << 20


def meta_of(entry: Entry) -> dict[str, Any]:
    """What was noted of an entry; empty when it can't be read."""
    return members_of(entry.meta)


# Rows


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of a list. Times are unix seconds; `tokens` are in and out together."""

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


def row_of(key: str, entry: Entry) -> Row:
    """The row of an entry under one of its keys (hex)."""
    meta = meta_of(entry)
    usage = meta.get("usage") or {}
    provider = sys.intern(str(meta.get("provider") or "?"))
    model = sys.intern(str(meta.get("model") or "-"))
    prompt = str(meta.get("prompt") or "")
    answer = str(meta.get("snippet") or "")
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
    """A way to sort rows. `down`: which way a person means when they ask for it."""

    name: str
    of: Callable[[Row], Any]
    down: bool = True


ORDERS: Final = (
    Order("used", lambda row: row.accessed),
    Order("age", lambda row: row.created),
    Order("hits", lambda row: row.hits),
    Order("tokens", lambda row: row.tokens),
    Order("size", lambda row: row.size),
    Order("provider", lambda row: (row.provider, row.model), down=False),
    Order("model", lambda row: row.model, down=False),
    Order("prompt", lambda row: row.words.lower(), down=False),
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


# One entry


@dataclass(frozen=True, slots=True)
class Stored:
    """What one entry holds. A body is None when it isn't kept, or can't be read any more."""

    key: str
    entry: Entry
    request: bytes | None
    answer: bytes | None  # content coding undone
    content_type: str


def stored(store: Store, key: str, entry: Entry) -> Stored:
    """Read an entry's bodies. Raises StoreError."""
    from llm_cache.wire.framing.encoding import decode_all

    headers = {name.lower(): value for name, value in meta_of(entry).get("headers") or ()}
    body = store.answer_body(entry)
    if body is not None and (coding := headers.get("content-encoding", "")):
        body = decode_all(coding.encode("latin-1"), body, _DECODED_BYTES)
    return Stored(
        key=key,
        entry=entry,
        request=store.request_body(entry),
        answer=body,
        content_type=headers.get("content-type", ""),
    )


def request_parts(one: Stored, form: Form) -> Iterable[Part]:
    """The request in parts, or one that says why there is none."""
    from llm_cache.wire import readable

    if one.request is None:
        why = "not kept: CACHE_STORE_REQUESTS=0, or space ran short"
        return (readable.Part("facts", "", why),)
    if form == "readable":
        return readable.request(one.request)
    if form == "pretty":
        return readable.pretty("application/json", one.request)
    return readable.raw(one.request)


def answer_parts(one: Stored, form: Form) -> Iterable[Part]:
    """The answer in parts, or one that says why there is none."""
    from llm_cache.wire import readable

    if one.answer is None:
        return (readable.Part("error", "", "the answer's blob is gone or damaged"),)
    if form == "readable":
        return readable.answer(one.content_type, one.answer)
    if form == "pretty":
        return readable.pretty(one.content_type, one.answer)
    return readable.raw(one.answer)
