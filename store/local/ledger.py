"""The ledger: counters by scope and name, added to and never scanned.

A scope is the caller's own string; how many there are is the caller's choice, and so is the size
of this table. An amount is an int or a float; one that is neither (NaN, too large for 64 bits) is
refused and nothing of that call is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llm_cache.store.entry import Tally
from llm_cache.store.local.index import Row
from llm_cache.store.local.transaction import Transaction


class Ledger:
    """The ledger of a local store; `write` does work in a transaction, `select` runs a query."""

    def __init__(
        self,
        write: Callable[[Callable[[Transaction], None]], None],
        select: Callable[[str], list[Row]],
    ) -> None:
        self._write = write
        self._select = select

    def add(self, tallies: Mapping[str, Tally]) -> None:
        """Add amounts to counters. Durable against a kill when it returns. Raises StoreError."""
        self._write(lambda transaction: transaction.tally(tallies))

    def read(self) -> dict[str, dict[str, int | float]]:
        """Return every counter by scope and name; none that isn't a number. Raises StoreError."""
        counters: dict[str, dict[str, int | float]] = {}
        for scope, name, value in self._select(
            "SELECT scope, name, value FROM ledger WHERE typeof(value) IN ('integer', 'real')"
        ):
            counters.setdefault(scope, {})[name] = value
        return counters
