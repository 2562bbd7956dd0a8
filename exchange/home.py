"""What the home of an exchange holds: its store, the rules of `normalize.json`, the price list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from llm_cache.errors import SettingsError
from llm_cache.settings import Settings
from llm_cache.store import PATIENCE_SEC, Limits, Store
from llm_cache.store import open_store as opened
from llm_cache.wire.normalize import Rules
from llm_cache.wire.prices import Prices


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


def load_prices(settings: Settings) -> Prices:
    """The price list, with what `prices.json` says. Raises SettingsError."""
    return Prices.load(read_optional(settings.prices_file), str(settings.prices_file))
