"""From an address to a store: which backends there are, and the memory tier before each.

A backend is one line in `_BACKENDS`, by the scheme of its address.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llm_cache.errors import StoreError
from llm_cache.store.contract import Backend, Store
from llm_cache.store.limits import Limits
from llm_cache.store.local import LocalStore
from llm_cache.store.memory import MemoryTier

PATIENCE_SEC = 10.0
"""How long a write waits for others, unless the caller says otherwise."""


# Each is called with the address, the folder and the limits, and with the rest by name.
_BACKENDS: Mapping[str, Callable[..., Backend]] = {
    "local": lambda _address, path, limits, **how: LocalStore.open(path, limits, **how),
}


def _to_nobody(_what: str) -> None:
    pass


def open_store(
    address: str,
    path: Path,
    limits: Limits,
    *,
    clock: Callable[[], float] = time.time,
    log: Callable[[str], None] = _to_nobody,
    step: Callable[[str], None] = _to_nobody,
    patience: float = PATIENCE_SEC,
    at_once: bool = True,
) -> Store:
    """Open the store at `address`, made when it isn't there: `local`, in the folder `path`.

    `clock` gives unix seconds, `log` takes one line of what went wrong and was dealt with, `step`
    hears the name of each step of a write (crash tests use it). `patience` is how many seconds a
    write waits for others before it raises StoreBusy. With `at_once` False, a store that can't be
    opened now is logged and given back: every call raises StoreError until `flush` can open it.
    Raises StoreFormatError when a newer llm-cache wrote the store, StoreError when it can't be
    opened or there is no backend of that name.
    """
    scheme = address.partition(":")[0]  # and no more of it in the error: it may hold a password
    opener = _BACKENDS.get(scheme)
    if opener is None:
        raise StoreError(
            f"there is no store of the kind {scheme!r}: there are {', '.join(_BACKENDS)}"
        )
    how = {"clock": clock, "log": log, "step": step, "patience": patience, "at_once": at_once}
    return MemoryTier(opener(address, path, limits, **how), limits, clock)
