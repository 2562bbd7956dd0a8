"""The nouns of the store: what a key points to, what a hit hands out, and the totals.

Times are unix seconds, sizes are bytes. An `Entry` is a fact read at one moment and never changes;
its `accessed` and `hits` are as the index had them then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Tally: TypeAlias = Mapping[str, int | float]
"""What to add to the ledger under one scope: counter name to amount."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the store knows of one answer."""

    id: int  # never reused within one index
    meta: bytes  # the caller's own; the store doesn't look inside
    digest: str  # XXH3-128 of the body, 32 hex digits
    size: int  # of the body
    disk_size: int  # of the body's blob, compressed
    request_digest: str | None  # of the request body, when it is kept
    created: float
    accessed: float
    hits: int
    ttl: float | None  # seconds; None: the store's limit


class Stored:
    """A hit: an entry with its body.

    `prepared` is a place for what the caller made of `entry.meta`. It lives as long as the memory
    tier keeps this object, and the next hit from memory finds it there.
    """

    __slots__ = ("body", "entry", "prepared")

    def __init__(self, entry: Entry, body: bytes) -> None:
        self.entry = entry
        self.body = body
        self.prepared: object | None = None

    def __repr__(self) -> str:
        return f"<Stored {self.entry.id} {self.entry.digest} {len(self.body)} bytes>"


@dataclass(frozen=True, slots=True)
class Totals:
    """How much is stored: answers, and bytes on disk with every shared blob counted once."""

    entries: int
    bytes: int
