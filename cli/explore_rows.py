"""How the rows of `explore` are written: columns, widths, and figures in few characters.

A row holds what was stored; a line that leaves this module is safe for a terminal. That is done
when a line is made, so that it costs only what is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_cache.cli.output import cut, printable
from llm_cache.exchange.browse import Order, Row

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
        ordered = "" if order is None else order.name.upper()

        def name(title: str, width: int, right: bool = False) -> str:
            arrow = "▼" if down else "▲"
            marked = f"{title}{arrow}" if title == ordered else title
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
            f"{cut(printable(row.provider), 9)} {cut(printable(row.model), self.model)} "
            f"{amount(row.tokens):>7} {bytes_in_short(row.size):>5} "
            f"{cut(printable(row.words), self.words)}"
        )


_FIXED: Final = 5 + 4 + 5 + 9 + 7 + 5 + 7
