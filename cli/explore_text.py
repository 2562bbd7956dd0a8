"""The request and the answer of an entry as lines to show: readable, pretty or raw.

What is stored came from outside. Every line that leaves this module is free of control characters:
`\\x1b` shows as `␛`, and what turns the direction of text or hides in it is taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from llm_cache.exchange.browse import Form, Stored, answer_parts, request_parts
from llm_cache.wire.readable.reading import Part

SHOWN_BYTES: Final = 1 << 20
"""How much of a body is shown in a terminal, in characters."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `kind` is its part's; `heading` lines are the part's title."""

    kind: str
    text: str
    heading: bool = False


def request_lines(one: Stored, form: Form) -> list[Line]:
    """The request, or why there is none."""
    return list(lines_of(request_parts(one, form)))


def answer_lines(one: Stored, form: Form) -> list[Line]:
    """The answer, or why there is none."""
    return list(lines_of(answer_parts(one, form)))


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
