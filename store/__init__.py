"""The store: answers kept on disk, an index that finds them, limits, and the ledger.

Bytes in, bytes out: nothing here knows of HTTP or of LLM APIs, and of llm_cache only the errors
are imported. What others may use is named in `__all__`; `blobs` and `index` open with the format
on disk and what it promises.
"""

from llm_cache.store.contract import Backend, LedgerBackend
from llm_cache.store.entry import Entry, Stored, Tally, Totals
from llm_cache.store.limits import Limits
from llm_cache.store.local.blobs import Draft
from llm_cache.store.local.store import Store

__all__ = [
    "Backend",
    "Draft",
    "Entry",
    "LedgerBackend",
    "Limits",
    "Store",
    "Stored",
    "Tally",
    "Totals",
]
