"""One request, read and understood."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from llm_cache.exchange.calls import Call, Label
from llm_cache.exchange.control import Control
from llm_cache.exchange.heads import Headers
from llm_cache.exchange.routing import Route
from llm_cache.wire.framing import strict_json
from llm_cache.wire.provider import Json

MAX_NAME = 200
"""Characters of a model's name that are kept."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, read and understood. `key` is empty for what is never cached."""

    route: Route
    headers: Headers
    fields: Mapping[bytes, bytes]
    control: Control
    mode: str
    body: bytes
    key: bytes
    prefix: bytes
    started: float

    def doc(self) -> Json | None:
        """The request's JSON object, None when its body isn't one."""
        try:
            doc = strict_json.parse(self.body)
        except (ValueError, RecursionError):
            return None
        return doc if isinstance(doc, dict) else None

    def model(self) -> str | None:
        """The model the request names."""
        doc, endpoint = self.doc(), self.route.endpoint
        if endpoint is None or doc is None:
            return None
        return printable_name(self.route.provider.request_model(endpoint, self.route.path, doc))

    def call(self, type_: str, status: int) -> Call:
        """The record of this request, answered now."""
        return Call(
            type=Label(type_),
            provider=self.route.provider.name,
            model=None,
            status=status,
            seconds=time.perf_counter() - self.started,
            key=self.key.hex(),
        )


def printable_name(model: str | None) -> str | None:
    """A model's name as it may stand in logs and figures, whoever made it up: no control
    characters, no half surrogates, no longer than a name is."""
    if not model:
        return None
    return "".join(char if char.isprintable() else "?" for char in model[:MAX_NAME])
