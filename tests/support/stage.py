"""One upstream and one cache that all tests of a module share, and what most of them do: ask twice.
The cache is a proxy of its own (`running_stage`), or in process (`inner_stage`).

    @pytest.fixture(scope="module")
    def stage(tmp_path_factory):
        with running_stage(tmp_path_factory.mktemp("stage")) as stage:
            yield stage

What always holds here: every request body is new, so tests can't answer for each other; and an
upstream call that no test scripted is a fault (`Upstream.errors`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from support import anthropic_wire as wire
from support.cache import Cache, Received, running_cache
from support.proxy import Proxy, running_proxy
from support.raw import Response
from support.replies import Reply
from support.upstream import Upstream, wait_until

PROVIDERS = ("ANTHROPIC", "OPENAI", "GEMINI", "VERTEX", "BEDROCK", "MANTLE", "COHERE", "MISTRAL")
"""Whose requests a stage's upstream answers."""

TELLING = ("x-cache", "x-cache-key", "age", "date")
"""The only response headers in which a hit may differ from its miss."""


Answer = Response | Received
"""What both ways of asking give, read to its end."""

One = TypeVar("One", Proxy, Cache)


@dataclass(frozen=True, slots=True)
class _Asking(Generic[One]):
    """A running cache and its upstream."""

    upstream: Upstream
    one: One
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def prompt(self) -> str:
        """A prompt that wasn't used before."""
        return f"Question number {next(self._numbers)}."

    def body(self, *, stream: bool = False, **fields: Any) -> bytes:
        """A request body that wasn't sent before."""
        return wire.request(self.prompt(), stream=stream, **fields)

    def twice(
        self,
        reply: Reply,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[Any, Any]:
        """The answers to two requests with one body; the upstream answers once and must not be
        asked again."""
        body = self.body() if body is None else body
        self.upstream.script(reply)
        before = self.upstream.call_count
        first, second = self.one.ask(body, headers), self.one.ask(body, headers)
        assert (first.header("x-cache"), second.header("x-cache")) == ("MISS", "HIT")
        assert self.upstream.call_count == before + 1
        return first, second

    def wait_idle(self) -> None:
        """Block until no flight is left."""
        wait_until(lambda: self.one.stats()["in_flight"] == 0, "no flight left")


class Stage(_Asking[Proxy]):
    """The cache as users have it: a process that is asked over HTTP."""

    @property
    def proxy(self) -> Proxy:
        """The running proxy."""
        return self.one


class InnerStage(_Asking[Cache]):
    """The cache in the test's own process."""

    @property
    def cache(self) -> Cache:
        """The open cache."""
        return self.one


def shown(response: Answer) -> list[tuple[str, str]]:
    """The headers in which a hit must equal its miss, in order."""
    return [header for header in response.headers if header[0] not in TELLING]


def assert_same(miss: Answer, hit: Answer) -> None:
    """Nothing but `TELLING` tells the two answers apart: not status, headers, framing or bytes."""
    assert (miss.complete, hit.complete) == (True, True)
    assert hit.status == miss.status
    assert hit.body == miss.body
    assert shown(hit) == shown(miss), f"{shown(hit)} is not {shown(miss)}"
    assert hit.header("x-cache-key") == miss.header("x-cache-key")
    assert hit.header("date") is not None
    assert miss.header("date") is not None
    assert miss.header("age") is None
    assert int(hit.header("age") or "-1") >= 0


@contextmanager
def running_stage(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Stage]:
    """A started stage with its home in `folder`; at the end nothing may have gone wrong in it."""
    with Upstream() as upstream:
        with running_proxy(folder / "home", _settings(upstream, settings)) as proxy:
            yield Stage(upstream, proxy)
        assert not upstream.errors, upstream.errors


@contextmanager
def inner_stage(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[InnerStage]:
    """An opened cache with its home in `folder`; at the end nothing may have gone wrong in it."""
    with Upstream() as upstream:
        with running_cache(folder / "home", _settings(upstream, settings)) as cache:
            yield InnerStage(upstream, cache)
        assert not upstream.errors, upstream.errors


def _settings(upstream: Upstream, settings: Mapping[str, str] | None) -> dict[str, str]:
    given = {f"CACHE_UPSTREAM_{name}": upstream.url for name in PROVIDERS}
    return given | dict(settings or {})
