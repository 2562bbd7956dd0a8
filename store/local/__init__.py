"""The store in a folder of this machine: the backend that is always there."""

from llm_cache.store.local.store import LocalStore

__all__ = ["LocalStore"]
