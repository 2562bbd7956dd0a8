"""APIs that serve other providers' formats under paths of their own.

Claude on Vertex and on Bedrock, OpenAI's chat completions at Gemini: the path, the credentials and
the price are the host's, requests and answers are the guest's. A host names its guests by endpoint
and everything about such a body is asked of the guest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from llm_cache.wire.answers import Refused
from llm_cache.wire.provider import Answer, Endpoint, Json, Provider, Watcher


@dataclass(frozen=True, slots=True)
class Guest:
    """A format inside another API: whose it is, and which of its endpoints."""

    provider: Provider
    endpoint: Endpoint


class Host(Provider):
    """A provider with guests. Subclasses say in `own_*` what holds for a format of their own."""

    guests: Mapping[str, Guest] = {}
    """By the endpoint's name."""

    def own_watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        """As `Provider.watch`, for the host's own endpoints."""
        return Refused(f"{endpoint.name} has no form here")

    def own_map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        """As `Provider.map_texts`, for the host's own endpoints."""

    def own_keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        """As `Provider.keep_last`, for the host's own endpoints."""
        return False

    def own_is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        """As `Provider.is_deterministic`, for the host's own endpoints."""
        return False

    def guest(self, endpoint: Endpoint, doc: Json) -> Guest | None:
        """Whose form the request `doc` to `endpoint` has; None: the host's own."""
        return self.guests.get(endpoint.name)

    def watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        guest = self.guests.get(endpoint.name)
        if guest is None:
            return self.own_watch(endpoint, status, content_type)
        watcher = guest.provider.watch(guest.endpoint, status, content_type)
        return Named(watcher, endpoint.model) if endpoint.model else watcher

    def strip_volatile(self, endpoint: Endpoint, doc: Json) -> None:
        if (guest := self.guest(endpoint, doc)) is not None:
            guest.provider.strip_volatile(guest.endpoint, doc)

    def map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        if (guest := self.guest(endpoint, doc)) is not None:
            guest.provider.map_texts(guest.endpoint, doc, system, message)
        else:
            self.own_map_texts(endpoint, doc, system, message)

    def keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        if (guest := self.guest(endpoint, doc)) is not None:
            return guest.provider.keep_last(guest.endpoint, doc, turns)
        return self.own_keep_last(endpoint, doc, turns)

    def is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        if (guest := self.guest(endpoint, doc)) is not None:
            return guest.provider.is_deterministic(guest.endpoint, doc)
        return self.own_is_deterministic(endpoint, doc)

    def leans_on(self, endpoint: Endpoint, doc: Json) -> str:
        guest = self.guest(endpoint, doc)
        return "" if guest is None else guest.provider.leans_on(guest.endpoint, doc)

    def request_model(self, endpoint: Endpoint, path: str, doc: Json) -> str | None:
        named = doc.get("model")
        return endpoint.model or (named if isinstance(named, str) else None)


class Named:
    """A guest's watcher; its answer goes by the host's name for the model, as the prices do."""

    def __init__(self, watcher: Watcher, model: str) -> None:
        self._watcher = watcher
        self._model = model

    @property
    def done(self) -> bool:
        return self._watcher.done

    @property
    def failed(self) -> bool:
        return self._watcher.failed

    def feed(self, data: bytes) -> None:
        self._watcher.feed(data)

    def close(self) -> Answer:
        return replace(self._watcher.close(), model=self._model)
