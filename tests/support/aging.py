"""Time that has passed for a store, without waiting for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from support.cache import Cache
from support.proxy import Proxy


def age(one: Proxy | Cache, seconds: int) -> None:
    """Stop and start with every stored answer that much older."""
    one.stop()
    with closing(sqlite3.connect(one.home / "store" / "index.sqlite")) as index, index:
        index.execute("UPDATE entries SET created = created - ?", (seconds,))
    one.start()
