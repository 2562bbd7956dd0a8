"""One request, read and understood.

What holds: its body is parsed once at most, whatever is switched on. `facts` are read from the
parsed form before the tiers take it and change it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from llm_cache.exchange.bodies import Body
from llm_cache.exchange.calls import Call, Label
from llm_cache.exchange.control import Control
from llm_cache.exchange.heads import Headers
from llm_cache.exchange.routing import Route
from llm_cache.wire import readable
from llm_cache.wire.framing import strict_json
from llm_cache.wire.provider import Json

MAX_NAME = 200
"""Characters of a model's name that are kept."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a request before its body: where it goes and what it asks of the cache."""

    route: Route
    headers: Headers
    fields: Mapping[bytes, bytes]
    control: Control


@dataclass(frozen=True, slots=True)
class Facts:
    """What the request's body says: the model it names, whether its answer is always the same, the
    first words a person wrote in it, and why its answer must not be stored ("": it may)."""

    model: str | None = None
    leans_on: str = ""
    deterministic: bool = False
    prompt: str = ""


_UNREAD: Final = object()


class Asked:
    """A request on its way. `body` has no content coding; `coded` is what came, when it had one,
    and is what goes up. `upload` is what is passed on unread, for what is never cached: then there
    are no `body` and no key (b"")."""

    __slots__ = (
        *("body", "control", "fields", "headers", "key", "mode", "prefix", "route", "started"),
        *("_doc", "_facts", "coded", "give_back", "upload", "why_unparsed"),
    )

    def __init__(
        self,
        head: Head,
        mode: str,
        *,
        started: float,
        control: Control | None = None,
        body: bytes = b"",
        coded: bytes | None = None,
        key: bytes = b"",
        prefix: bytes = b"",
        upload: Body | None = None,
        give_back: Callable[[], None] | None = None,
    ) -> None:
        self.route = head.route
        self.headers = head.headers
        self.fields = head.fields
        self.control = head.control if control is None else control
        self.mode = mode
        self.body = body
        self.coded = coded
        self.key = key
        self.prefix = prefix
        self.upload = upload
        self.started = started
        self.why_unparsed = ""
        """Why the body has no parsed form, once that was tried."""
        self.give_back = give_back
        """Called when no answer to this request was stored: its number as a sample is free."""
        self._doc: object = _UNREAD
        self._facts: Facts | None = None

    @property
    def may_be_stored(self) -> bool:
        """False for what passes through untouched."""
        return self.mode != "bypass" and self.route.endpoint is not None

    @property
    def label(self) -> Label:
        """What it is called when an upstream call of its own answers it."""
        if self.mode == "bypass":
            return Label.BYPASS
        return Label.MISS if self.route.endpoint is not None else Label.PASS

    def facts(self) -> Facts:
        """What the body says. Parses it, so for a thread unless that was done."""
        if self._facts is None:
            self._facts = self._read()
        return self._facts

    def take_doc(self) -> Json | None:
        """The request's JSON object for whoever changes it, None when its body isn't one; the
        facts are read before it goes."""
        self.facts()
        doc = self._parsed()
        self._doc = _UNREAD  # parsed anew by who asks again: a hit that is put into another form
        return doc

    def call(self, label: Label, status: int) -> Call:
        """The record of this request, answered now."""
        return Call(
            type=label,
            provider=self.route.provider.name,
            model=None,
            status=status,
            seconds=time.perf_counter() - self.started,
            key=self.key.hex(),
            method=self.route.method,
            path=self.route.path,
        )

    def _parsed(self) -> Json | None:
        if self._doc is _UNREAD:
            try:
                self._doc = strict_json.parse(self.body)
            except ValueError as error:
                self.why_unparsed = f"the body is not strict JSON: {error}"
                self._doc = None
        if isinstance(self._doc, dict):
            return self._doc
        self.why_unparsed = self.why_unparsed or "the body is not a JSON object"
        return None

    def _read(self) -> Facts:
        route, endpoint = self.route, self.route.endpoint
        doc = self._parsed()
        if endpoint is None or doc is None:
            return Facts()
        return Facts(
            model=printable_name(route.provider.request_model(endpoint, route.path, doc)),
            leans_on=route.provider.leans_on(endpoint, doc),
            deterministic=route.provider.is_deterministic(endpoint, doc),
            prompt=readable.prompt(route.provider, endpoint, doc),
        )


def printable_name(model: str | None) -> str | None:
    """A model's name as it may stand in logs and figures, whoever made it up: no control
    characters, no half surrogates, no longer than a name is."""
    if not model:
        return None
    return "".join(char if char.isprintable() else "?" for char in model[:MAX_NAME])
