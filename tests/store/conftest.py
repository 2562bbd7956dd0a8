"""What the store's tests share: a clock that is told the time, and stores that are closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_cache.store import Limits
from llm_cache.store.local import LocalStore


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> list[str]:
    """The lines the stores of a test logged."""
    return []


Opener = Callable[..., LocalStore]


@pytest.fixture
def opened(tmp_path: Path, clock: Clock, log: list[str]) -> Iterator[Opener]:
    """Opens stores in one folder; every one is closed at the end of the test."""
    stores: list[LocalStore] = []

    def open_store(limits: Limits | None = None, **options: object) -> LocalStore:
        options = {"clock": clock, "log": log.append, **options}
        store = LocalStore.open(tmp_path / "store", limits or Limits(), **options)  # type: ignore[arg-type]
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Opener) -> LocalStore:
    return opened()


def files(path: Path) -> list[Path]:
    """Every blob file of a store."""
    return sorted((path / "blobs").glob("*/*"))


@pytest.fixture
def blob_files(tmp_path: Path) -> Callable[[], list[Path]]:
    return lambda: files(tmp_path / "store")
