"""What happened to one request (`Call`), and how it is counted: the one classifier of calls.

Ledger, log, `/monitor`, `exec` and metrics all ask `kind_of`, so that none of them calls a miss
what another calls an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from llm_cache.store import LedgerBackend
from llm_cache.wire.provider import Usage

NANO: Final = 1_000_000_000

_NO_USAGE: Final = Usage()


class Label(StrEnum):
    """How a request was answered: the value of `x-cache` (SPEC 5.10)."""

    HIT = "HIT"
    HIT_NORM = "HIT-NORM"
    HIT_SUFFIX = "HIT-SUFFIX"
    HIT_SEMANTIC = "HIT-SEMANTIC"
    HIT_COALESCED = "HIT-COALESCED"
    HIT_STALE = "HIT-STALE"
    MISS = "MISS"
    MISS_COALESCED = "MISS-COALESCED"
    BYPASS = "BYPASS"
    PASS = "PASS"  # noqa: S105  # passed through
    ERROR = "ERROR"

    @property
    def wire(self) -> bytes:
        """As a header's value."""
        return _ON_THE_WIRE[self]


_ON_THE_WIRE: Final = {label: label.value.encode() for label in Label}


class Kind(StrEnum):
    """What a call counts as; each is counted as exactly one."""

    HIT = "hit"
    MISS = "miss"
    ERROR = "error"
    BYPASS = "bypass"
    PASS = "pass"  # noqa: S105  # passed through


_KINDS: Final = {
    **{label.value: Kind.HIT for label in Label if label.startswith("HIT")},
    Label.ERROR.value: Kind.ERROR,
    Label.BYPASS.value: Kind.BYPASS,
    Label.PASS.value: Kind.PASS,
}


def kind_of(label: str, error: bool = False) -> Kind:
    """What a call with this label counts as. `error`: it ended in one, whoever's. A label that
    isn't known, a later version's say, is a miss."""
    return Kind.ERROR if error else _KINDS.get(label, Kind.MISS)


@dataclass(slots=True)  # not frozen: that makes a new one, on the way of every hit, twice as dear
class Call:
    """One request and how it was answered; not changed once made. `nano_usd` is the price of its
    answer in 1e-9 US dollars: saved when it came from the cache, spent otherwise; None when the
    price is unknown. `asked_model` is what the request names, where no answer does: shown, not
    counted. `but_for_credentials` is the digest that `entries` makes, of a request that mode replay
    missed.
    """

    type: Label
    provider: str
    model: str | None
    status: int
    seconds: float
    key: str = ""
    usage: Usage | None = None
    nano_usd: int | None = None
    stored: bool = False
    snippet: str = ""
    note: str = ""
    error: bool = False
    asked_model: str | None = None
    method: str = ""
    path: str = ""
    but_for_credentials: str = ""

    @property
    def kind(self) -> Kind:
        """What it counts as."""
        return kind_of(self.type, self.error)

    @property
    def from_cache(self) -> bool:
        """True when it was answered, and no upstream call was made for it."""
        return self.kind is Kind.HIT


def tally(call: Call) -> dict[str, dict[str, int | float]]:
    """The ledger entry of one call: scope to counters (SPEC 1: the ledger)."""
    usage = call.usage or _NO_USAGE
    label = Label.ERROR if call.error else call.type
    scope = _scope(call.provider, call.model or "", label.value)
    counters: dict[str, int | float] = {"calls": 1}
    if call.usage is not None:
        counters["tokens_in"] = usage.input_tokens
        counters["tokens_out"] = usage.output_tokens
        counters["cache_read"] = usage.cache_read_tokens
        counters["cache_write"] = usage.cache_write_tokens
        if call.nano_usd is None:
            counters["unpriced"] = 1
        else:
            counters["nano_usd"] = call.nano_usd
    return {scope: {name: value for name, value in counters.items() if value}}


@lru_cache(1024)
def _scope(provider: str, model: str, label: str) -> str:
    return json.dumps([provider, model, label])


def read_ledger(ledger: LedgerBackend) -> dict[str, dict[str, int | float]]:
    """Every call of all time by scope. What isn't a scope of ours (an altered byte, a later
    version's) is passed over: figures are no reason for anything to fail. Raises StoreError."""
    return {scope: counters for scope, counters in ledger.read().items() if _is_scope(scope)}


@lru_cache(1024)
def _is_scope(scope: object) -> bool:
    try:
        parts = json.loads(scope) if isinstance(scope, str) else None
    except (ValueError, RecursionError):
        return False
    return isinstance(parts, list) and list(map(type, parts)) == [str, str, str]


def add_tallies(
    into: dict[str, dict[str, int | float]], more: Mapping[str, Mapping[str, int | float]]
) -> None:
    """Add counters up, scope by scope, in place."""
    for scope, counters in more.items():
        sums = into.setdefault(scope, {})
        for name, value in counters.items():
            sums[name] = sums.get(name, 0) + value
