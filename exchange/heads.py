"""The nouns of a request's head: its fields, and why one isn't served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Headers = Sequence[tuple[bytes, bytes]]
"""Fields as they came, names in lower case."""

HeaderList = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request isn't served: HTTP status, error type and a sentence for the person."""

    status: int
    kind: str
    message: str
    allow: tuple[str, ...] = ()  # the methods that are served there, with a 405
    upgrade: str = ""  # the protocol that is spoken instead, with a 426


def merged_headers(headers: Headers) -> dict[bytes, bytes]:
    """Headers by lower-case name; a name sent several times is joined by ", " (RFC 9110 5.3)."""
    fields = dict(headers)
    if len(fields) != len(headers):
        seen: dict[bytes, bytes] = {}
        for name, value in headers:
            seen[name] = seen[name] + b", " + value if name in seen else value
        return seen
    return fields


class Refused(Exception):
    """The request can't be served; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
