"""The store: answers kept by key, an index that finds them, limits, and the ledger.

Bytes in, bytes out: nothing here knows of HTTP or of LLM APIs, and of llm_cache only the errors
are imported. What others may use is named in `__all__`: the nouns, the contract, and `open_store`,
which says what backends there are. `local/blobs.py` and `local/index.py` open with the format on
disk and what it promises.
"""

from llm_cache.store.contract import Backend, Draft, LedgerBackend, Store
from llm_cache.store.entry import Entry, Stored, Tally, Totals
from llm_cache.store.limits import Limits
from llm_cache.store.opening import PATIENCE_SEC, open_store

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
    "open_store",
]
