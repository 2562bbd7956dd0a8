"""How long a pattern of `normalize.json` may hold a request up, found by running it.

Two kinds of text tell: a long one like what agents send, and short ones made to fail as late as
possible, on which a pattern that backtracks without bound (`(a+)+$`) doesn't come to an end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import lru_cache

import regex  # type: ignore[import-untyped, unused-ignore]

LONG_TEXT = 256 << 10
"""Characters of the long text: a conversation with some large files in it."""
_SHORT_TEXT = 2000
_UNITS = ("a", "A", "0", " ", "\n", "x", "_", "-", '"', "a ", "ab", "0:", "a,", "a.", "<a>")
_MOST_LETTERS = 24


def slowest(pattern: str, limit_sec: float) -> float:
    """Seconds the pattern takes on the worst of the texts; `limit_sec` when it was stopped there.

    Raises `regex.error` for what is no pattern.
    """
    compiled = regex.compile(pattern)
    longest = 0.0
    for text in _texts(pattern):
        began = time.perf_counter()
        try:
            compiled.sub("", text, timeout=limit_sec)
        except TimeoutError:
            return limit_sec
        longest = max(longest, time.perf_counter() - began)
    return longest


def _texts(pattern: str) -> Iterator[str]:
    yield long_text()
    letters = dict.fromkeys(mark for mark in pattern if mark.isalnum())
    words = dict.fromkeys(regex.findall(r"[\w<>:=-]{2,}", pattern))
    units = dict.fromkeys([*_UNITS, *list(letters)[:_MOST_LETTERS], *list(words)[:_MOST_LETTERS]])
    # What the pattern needs is there as well, but not where it needs it.
    rest = "\0".join(["", "!", *dict.fromkeys(pattern), *words])
    for unit in units:
        yield unit * (_SHORT_TEXT // len(unit)) + rest


@lru_cache(maxsize=1)
def long_text() -> str:
    """Prose, code, JSON, a log and a line without an end, as they come in tool results."""
    parts: list[str] = []
    while sum(len(part) for part in parts) < LONG_TEXT:
        number = len(parts)
        parts.append(
            f"Current date: 2025-03-{number % 28 + 1:02} 12:{number % 60:02}:07 UTC. Session-ID: "
            f"{number * 2654435761 % (1 << 64):016x}-{number:04x}. You are a careful assistant; "
            "read the files, then answer in a few sentences.\n\n"
            f"<tool_result>\n    def step_{number}(self, items: list[str]) -> dict[str, int]:\n"
            '        """Count the items."""\n        return {one: len(one) for one in items}\n'
            f"</tool_result>\n{json.dumps({'id': f'toolu_{number}', 'path': '/srv/app/main.py'})}\n"
            f"2025-03-01T12:00:00Z INFO request {number} took {number % 97}.{number % 10} ms\n"
            f"{'QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo' * (number % 40)}=\n"
        )
    return "".join(parts)[:LONG_TEXT]
