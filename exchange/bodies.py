"""The body of a request, wherever it comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class ClientGone(Exception):
    """Whoever asked has left: nobody is there to answer."""


class Body(Protocol):
    """A request's body, to be taken once: whole, or piece by piece as it comes."""

    @property
    def length(self) -> int | None:
        """Its size in bytes as announced, None when it wasn't."""

    async def whole(self, limit: int) -> bytes:
        """All of it. Raises `Refused` when it is longer than `limit` bytes or comes too slowly, and
        `ClientGone`."""

    def pieces(self) -> AsyncIterator[bytes]:
        """It, as it comes, of any length. Raises the same but for the limit."""


class Given:
    """A body that is there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def length(self) -> int | None:
        """Its size in bytes."""
        return len(self._data)

    async def whole(self, limit: int) -> bytes:
        """All of it. A limit is for what others send: what is in memory here is taken as it is."""
        return self._data

    async def pieces(self) -> AsyncIterator[bytes]:
        """It, in one piece."""
        if self._data:
            yield self._data
