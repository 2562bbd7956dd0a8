"""From settings to what an exchange is made of: the store, rules, and keys as the proxy would make
them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from llm_cache.errors import SettingsError
from llm_cache.exchange.control import in_namespace, read_control
from llm_cache.exchange.heads import Headers, merged_headers
from llm_cache.exchange.routing import NORMALIZE_BUDGET_SEC, Router
from llm_cache.settings import Settings
from llm_cache.store import PATIENCE_SEC, Limits, Store
from llm_cache.store import open_store as opened
from llm_cache.wire.keys import exact_key
from llm_cache.wire.normalize import FurtherKeys, Rules, further_keys
from llm_cache.wire.request_fields import cache_bypass


def open_store(
    settings: Settings,
    *,
    memory: bool = True,
    log: Callable[[str], None] = lambda _line: None,
    patience: float = PATIENCE_SEC,
    at_once: bool = True,
) -> Store:
    """Open the store these settings name, with their limits.

    `memory`: whether answers are kept in memory too; not for who only looks. `log`, `patience` and
    `at_once` are those of `llm_cache.store.open_store`, and so is what it raises: StoreError,
    StoreFormatError.
    """
    limits = Limits(
        ttl_sec=settings.ttl_sec,
        max_entries=settings.max_entries,
        max_bytes=settings.max_bytes,
        stale_sec=settings.stale_if_error_sec,
    )
    if not memory:
        limits = replace(limits, max_memory_bytes=0)
    folder = settings.store_dir
    return opened(settings.backend, folder, limits, log=log, patience=patience, at_once=at_once)


def load_rules(settings: Settings) -> Rules:
    """The rules of `normalize.json`; none when there is no such file. Raises SettingsError."""
    text = read_optional(settings.normalize_file)
    return Rules() if text is None else Rules.parse(text, str(settings.normalize_file))


def read_optional(path: Path) -> str | None:
    """A text file of the home, None when it isn't there. Raises SettingsError."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: can't be read: {error}") from None


def request_key(
    settings: Settings, method: str, target: str, headers: Headers, body: bytes
) -> tuple[bytes, FurtherKeys]:
    """The keys the proxy would use for a request with these settings: exact, and the further
    tiers'. Raises SettingsError, and ValueError for a path that isn't cacheable."""
    fields = merged_headers(headers)
    route = Router(settings).route(method, target.encode("ascii"), fields)
    if route is None or route.endpoint is None:
        raise ValueError(f"{method} {target} is not a request that is cached")
    control = in_namespace(read_control(fields), settings.namespace.encode())
    prefix = route.key_prefix(headers, fields, control, shared=settings.scope == "shared")
    _, bare = cache_bypass(body)
    further = further_keys(
        route.provider, route.endpoint, prefix, bare, load_rules(settings), NORMALIZE_BUDGET_SEC
    )
    return exact_key(prefix, bare), further
