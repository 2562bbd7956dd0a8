"""How commands print: plain lines, JSON for scripts, colour only on a terminal that wants it.

Results go to stdout, everything said about them to stderr. Text that came from outside (a model's
answer, a log line) is shown with its control characters taken out, so that it can't write to the
terminal what it likes.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from llm_cache.masking import without_keys

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str = "") -> None:
    """One line of the result."""
    print(text, flush=True)


def note(text: str) -> None:
    """One line about what happens, on stderr, with no key in it."""
    print(without_keys(text), file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    """The result for a script: one JSON document."""
    say(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in the letters of all scripts, with what a terminal would obey escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isascii():  # control characters up to U+001F are escaped in any JSON
        return text.replace("\x7f", "\\u007f")
    return "".join(
        mark if mark.isprintable() or mark == "\n" else json.dumps(mark)[1:-1] for mark in text
    )


def colourful() -> bool:
    """True when stdout is a terminal that knows colours and nobody asked for none
    (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def console() -> Console:
    """rich's console, which obeys the same rule."""
    from rich.console import Console

    colour = colourful()
    return Console(
        color_system="auto" if colour else None,
        force_terminal=None if colour else False,
        no_color=not colour,
        highlight=False,
        emoji=False,
        markup=False,
    )


def printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else " " for mark in text)


def cell_len(text: str) -> int:
    """The cells of a terminal that `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len as cells

    return cells(text)


def cut(text: str, width: int) -> str:
    """`text` in exactly `width` cells: with `…` where it was cut, or with spaces."""
    if text.isascii():
        return f"{text:<{width}}" if len(text) <= width else f"{text[: width - 1]}…"[:width]
    from rich.cells import set_cell_size

    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def dollars(amount: float | None, places: int = 4) -> str:
    """US dollars: `$0.0123`; `$?` when unknown."""
    return "$?" if amount is None else f"${amount:,.{places}f}"


def duration(seconds: float) -> str:
    """`3 s`, `2 min`, `5 h 12 min`, `3 d 4 h`."""
    minutes, hours, days = int(seconds / 60), int(seconds / 3600), int(seconds / 86400)
    if minutes < 1:
        return f"{int(seconds)} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"
