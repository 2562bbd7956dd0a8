"""The store: answers kept by key, an index that finds them, limits, and the ledger.

Bytes in, bytes out: nothing here knows of HTTP or of LLM APIs, and of llm_cache only the errors
are imported. What others may use is named in `__all__` and loaded when it is first used: the nouns,
the contract, `open_store`, which says what backends there are, and `look`, which opens nothing for
writing. `local/blobs.py` and `local/index.py` open with the format on disk and what it promises.
"""

from typing import TYPE_CHECKING

from llm_cache.lazy import lazy

if TYPE_CHECKING:
    from llm_cache.store.contract import Backend, Draft, LedgerBackend, Store
    from llm_cache.store.entry import Entry, Stored, Tally, Totals
    from llm_cache.store.limits import Limits
    from llm_cache.store.local.look import look
    from llm_cache.store.opening import PATIENCE_SEC, open_store
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Backend": "contract",
            "Draft": "contract",
            "Entry": "entry",
            "LedgerBackend": "contract",
            "Limits": "limits",
            "PATIENCE_SEC": "opening",
            "Store": "contract",
            "Stored": "entry",
            "Tally": "entry",
            "Totals": "entry",
            "look": "local.look",
            "open_store": "opening",
        },
    )

__all__ = [
    "PATIENCE_SEC",
    "Backend",
    "Draft",
    "Entry",
    "LedgerBackend",
    "Limits",
    "Store",
    "Stored",
    "Tally",
    "Totals",
    "look",
    "open_store",
]
