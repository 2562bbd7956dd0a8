"""What is changed of a request's body: before its key is made, and before it is forwarded.

Each edit is a pure function over the bytes, in a file of its own in `wire`; here is when it applies
and in which order. Adding one is that file and a line in one of the two lists. What holds: a body
without an edit's mark costs one search, and every byte that an edit isn't about stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from llm_cache.exchange.routing import Route
from llm_cache.wire.billing import BILLING, rewrite_billing
from llm_cache.wire.request_fields import BYPASS_FIELD, cache_bypass


@dataclass(frozen=True, slots=True)
class Edited:
    """A body after an edit. `mode`: how the request is to use the cache, None: nothing was said.
    `note`: what was done, for the log."""

    body: bytes
    mode: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change. A body without `mark` stays as it is; `applies` says for which routes."""

    mark: bytes
    applies: Callable[[Route], bool]
    change: Callable[[bytes], Edited]

    def wanted(self, route: Route, body: bytes) -> bool:
        """Whether there is anything to do; if so, `change` may take long and belongs in a
        thread."""
        return self.mark in body and self.applies(route)


def _take_out_bypass(body: bytes) -> Edited:
    asked, rest = cache_bypass(body)
    return Edited(rest, "bypass" if asked else None)


def _fix_billing(body: bytes) -> Edited:
    fixed, count = rewrite_billing(body)
    note = f"{count} billing header values fixed: {len(fixed)} bytes" if count else ""
    return Edited(fixed, note=note)


BEFORE_KEY: Final = (Edit(BYPASS_FIELD, lambda route: True, _take_out_bypass),)
"""What speaks to the cache and isn't a part of the question."""

BEFORE_FORWARDING: Final = (Edit(BILLING, lambda route: route.fixes_billing, _fix_billing),)
"""What the upstream is to see otherwise than the client sent it (SPEC 4a)."""


def wanted(edits: Iterable[Edit], route: Route, body: bytes) -> bool:
    """Whether any of `edits` has something to do."""
    return any(edit.wanted(route, body) for edit in edits)


def edited(edits: Iterable[Edit], route: Route, body: bytes) -> Edited:
    """`body` after all of `edits`, in order. May take long."""
    result = Edited(body)
    for edit in edits:
        if edit.wanted(route, result.body):
            after = edit.change(result.body)
            notes = "; ".join(note for note in (result.note, after.note) if note)
            result = Edited(after.body, after.mode or result.mode, notes)
    return result
