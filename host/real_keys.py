"""The real keys, as settings send them upstream: whether one can be right, and whether it is.

What holds: a key goes to the host that requests go to, and nowhere else; no answer here holds it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Literal

from llm_cache.errors import LlmCacheError
from llm_cache.exchange import Caller, Route, Router, UpstreamFailed
from llm_cache.settings import Settings
from llm_cache.wire.api_keys import wrong_form
from llm_cache.wire.registry import by_name, is_providers_own

Verdict = Literal["accepted", "refused", "unknown"]

_CHECK_SEC = 20.0


def form_problem(settings: Settings, provider: str, key: str) -> str | None:
    """Why `key` can't be right where these settings send it; None when it can."""
    route = _route(settings, provider, "/v1/models")
    if route is None:
        return None
    upstream = route.upstream
    if not upstream.missing and not is_providers_own(upstream.base_url):
        return None  # a gateway's or a local server's keys can look like anything
    return wrong_form(route.provider, key)


def ask_with(settings: Settings, provider: str, key: str) -> tuple[Verdict, str]:
    """Ask the provider's upstream for something that is free, with this key; what it said, for the
    person who waits. Raises LlmCacheError when nothing is known to ask for."""
    known = by_name(provider)
    form = None if known is None else known.key_form
    route = (
        None if form is None or not form.free_path else _route(settings, provider, form.free_path)
    )
    if form is None or known is None or route is None:
        raise LlmCacheError(f"a key of {provider} can't be checked with a free call")
    headers = [known.auth_header(key), *form.headers, (b"accept", b"application/json")]
    host = route.upstream.base_url
    try:
        status = asyncio.run(_status(route, headers))
    except UpstreamFailed as error:
        return "unknown", str(error)
    except TimeoutError:
        return "unknown", f"{host} didn't answer within {_CHECK_SEC:.0f} s"
    if status == 200:
        return "accepted", f"{host} accepts the key"
    if status == 401 or (status == 400 and provider == "gemini"):  # Google's API_KEY_INVALID
        return "refused", f"{host} refuses the key ({status})"
    return "unknown", f"{host} answered {status}, which says nothing about the key"


async def _status(route: Route, headers: list[tuple[bytes, bytes]]) -> int:
    caller = Caller(silence_sec=_CHECK_SEC)
    try:
        async with (
            asyncio.timeout(_CHECK_SEC),
            caller.call(route.upstream, "GET", route.target, headers, b"") as response,
        ):
            return response.status
    finally:
        await caller.close()


def _route(settings: Settings, provider: str, path: str) -> Route | None:
    """Where a request to this provider goes, whatever else is wrong with the settings."""
    only = {name: url for name, url in settings.upstreams.items() if by_name(name) is not None}
    plain = replace(
        settings,
        upstreams=only,
        named_upstreams={
            name: one
            for name, one in settings.named_upstreams.items()
            if name == provider and one.provider in (None, name)
        },
    )
    return Router(plain).route("GET", f"/{provider}{path}".encode(), {})
