"""Time that has passed for a store, without waiting for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from support.proxy import Proxy


def age(proxy: Proxy, seconds: int) -> None:
    """Restart the proxy with every stored answer that much older."""
    proxy.stop()
    with closing(sqlite3.connect(proxy.home / "store" / "index.sqlite")) as index, index:
        index.execute("UPDATE entries SET created = created - ?", (seconds,))
    proxy.start()
