"""The request and the answer of an entry as lines to show: readable, pretty or raw.

What is stored came from outside. Every line that leaves this module is free of control characters:
`\\x1b` shows as `␛`, and what turns the direction of text or hides in it is taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from llm_cache.cli.explore_rows import meta_of
from llm_cache.store import Entry, Store
from llm_cache.wire import readable
from llm_cache.wire.framing.encoding import decode_all
from llm_cache.wire.readable import Part

Form = Literal["readable", "pretty", "raw"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)

SHOWN_BYTES: Final = 1 << 20
"""How much of a body is shown in a terminal, in characters."""
_DECODED_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `kind` is its part's; `heading` lines are the part's title."""

    kind: str
    text: str
    heading: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one entry holds. A body is None when it isn't kept, or can't be read any more."""

    key: str
    entry: Entry
    request: bytes | None
    answer: bytes | None  # content coding undone
    content_type: str


def exchange_of(store: Store, key: str, entry: Entry) -> Exchange:
    """Read an entry's bodies; no use of it is counted."""
    headers = {name.lower(): value for name, value in meta_of(entry).get("headers") or ()}
    body = store.answer_body(entry)
    if body is not None and (coding := headers.get("content-encoding", "")):
        body = decode_all(coding.encode("latin-1"), body, _DECODED_BYTES)
    return Exchange(
        key=key,
        entry=entry,
        request=store.request_body(entry),
        answer=body,
        content_type=headers.get("content-type", ""),
    )


def request_lines(exchange: Exchange, form: Form) -> list[Line]:
    """The request, or why there is none."""
    if exchange.request is None:
        why = "not kept: CACHE_STORE_REQUESTS=0, or space ran short"
        return [Line("facts", why)]
    if form == "readable":
        parts = readable.request(exchange.request)
    elif form == "pretty":
        parts = readable.pretty("application/json", exchange.request)
    else:
        parts = readable.raw(exchange.request)
    return list(lines_of(parts))


def answer_lines(exchange: Exchange, form: Form) -> list[Line]:
    """The answer, or why there is none."""
    if exchange.answer is None:
        return [Line("error", "the answer's blob is gone or damaged")]
    if form == "readable":
        parts = readable.answer(exchange.content_type, exchange.answer)
    elif form == "pretty":
        parts = readable.pretty(exchange.content_type, exchange.answer)
    else:
        parts = readable.raw(exchange.answer)
    return list(lines_of(parts))


def lines_of(parts: Iterable[Part], limit: int = SHOWN_BYTES) -> Iterator[Line]:
    """The lines of all parts, with headings, up to `limit` characters."""
    left = limit
    for number, part in enumerate(parts):
        if part.title:
            if number:
                yield Line(part.kind, "")
            yield Line(part.kind, safe(part.title), heading=True)
        if not part.text:
            continue
        for text in part.text[:left].replace("\r\n", "\n").split("\n"):
            yield Line(part.kind, safe(text))
        left -= len(part.text)
        if left < 0:
            yield Line("facts", "")
            yield Line("facts", f"… the rest is not shown here (more than {limit:,} characters)")
            return


_PICTURES: Final[dict[int, str]] = {
    **{code: chr(0x2400 + code) for code in range(0x20)},
    0x7F: "␡",
    0x09: "    ",
}


def safe(text: str) -> str:
    """One line of text that no terminal obeys: control characters as pictures (`␛`, `␇`)."""
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() else " "
        for mark in text.translate(_PICTURES)
        if mark not in _HIDDEN
    )


_HIDDEN: Final = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad")
"""Marks without width: they would shift what stands behind them."""
