"""Where a request goes: provider, operation, upstream, and what of it makes the key.

A route is decided by the path, by its provider prefix (`/anthropic/…`) or, where several
providers share a path, by headers. Routes of cacheable operations depend on the path alone and
are remembered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from urllib.parse import unquote

from llm_cache.errors import SettingsError
from llm_cache.server.guard import Headers, merged_headers
from llm_cache.server.requests import Control, in_namespace, read_control
from llm_cache.server.upstream import Upstream
from llm_cache.settings import Settings
from llm_cache.upstreams import NamedUpstream
from llm_cache.wire.keys import KeyContext, credential_digest, exact_key
from llm_cache.wire.normalize import FurtherKeys, Rules, further_keys
from llm_cache.wire.provider import Endpoint, Provider
from llm_cache.wire.registry import DEFAULT, PROVIDERS, by_name
from llm_cache.wire.request_fields import cache_bypass

NORMALIZE_BUDGET_SEC = 0.25
"""Longest time spent on making a request's normalized and suffix keys."""

_REMEMBERED = 1024


class _KeyHeaders(dict[bytes, bool]):
    """Whether a header can change a provider's answer, asked of the provider once per name."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self._provider = provider

    def __missing__(self, name: bytes) -> bool:
        answer = self._provider.is_key_header(name)
        if len(self) < _REMEMBERED:
            self[name] = answer
        return answer


@dataclass(frozen=True, slots=True)
class Route:
    """Where one path goes. `endpoint` is None for what is passed through uncached; `target` is
    path and query as the client sent them, without the provider prefix, `bare_target` the same
    without credentials."""

    provider: Provider
    endpoint: Endpoint | None
    upstream: Upstream
    real_key: str | None
    method: str
    path: str
    target: bytes
    bare_target: bytes
    _key_headers: _KeyHeaders
    _prefixes: dict[tuple[object, ...], bytes] = field(default_factory=dict)

    def key_prefix(
        self, headers: Headers, fields: Mapping[bytes, bytes], control: Control, *, shared: bool
    ) -> bytes:
        """All of the key but the body. `shared`: credentials don't split the cache."""
        asked = self._key_headers
        telling = tuple([header for header in headers if asked[header[0]]])
        credential = b""
        if self.real_key is None and not shared:
            credential = credential_digest(self.provider.credentials(self.target, fields)[1])
        memo = (telling, control.namespace, control.sample, credential)
        prefix = self._prefixes.get(memo)
        if prefix is None:
            prefix = KeyContext(
                self.method.encode(),
                self.bare_target,
                self.upstream.base_url.encode(),
                tuple(sorted(telling, key=itemgetter(0))),  # lines of one name keep their order
                control.namespace,
                control.sample,
                credential,
            ).prefix()
            if len(self._prefixes) >= _REMEMBERED:
                self._prefixes.clear()
            self._prefixes[memo] = prefix
        return prefix


class Router:
    """The routes of one running proxy."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._environ = os.environ if environ is None else environ
        self._upstreams: dict[str, Upstream] = {}
        self._key_headers = {provider.name: _KeyHeaders(provider) for provider in PROVIDERS}
        self._remembered: dict[tuple[str, bytes], Route] = {}

    def known(self, method: str, target: bytes) -> Route | None:
        """The remembered route of a cacheable operation. `target` was checked when remembered."""
        return self._remembered.get((method, target))

    def route(self, method: str, target: bytes, fields: Mapping[bytes, bytes]) -> Route | None:
        """The route of a request whose path is in order; None: no known API has this path."""
        path = target.partition(b"?")[0].decode("ascii")
        provider, prefix = self._provider(method, path, fields)
        if provider is None:
            return None
        bare = path[prefix:]
        # Compared as sent: an encoded spelling of a cacheable path passes through uncached.
        endpoint = provider.endpoint(method, bare)
        route = Route(
            provider,
            endpoint,
            self._upstream(provider, bare),
            self._settings.real_keys.get(provider.name),
            method,
            bare,
            target[prefix:],
            provider.credentials(target[prefix:], {})[0],
            self._key_headers[provider.name],
        )
        if endpoint is not None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[method, target] = route
        return route

    def _upstream(self, provider: Provider, path: str) -> Upstream:
        base_url = (
            self._settings.upstream
            or self._settings.upstreams.get(provider.name)
            or provider.home(path, self._environ)
        )
        if (upstream := self._upstreams.get(base_url)) is None:
            if len(self._upstreams) >= _REMEMBERED:
                self._upstreams.clear()
            upstream = self._upstreams[base_url] = Upstream.of(base_url)
        return upstream

    def _provider(
        self, method: str, path: str, fields: Mapping[bytes, bytes]
    ) -> tuple[Provider | None, int]:
        for provider in PROVIDERS:
            if path.startswith(provider.own_paths):
                return provider, 0
        name = path[1:].partition("/")[0]
        named = by_name(name)
        rest = path[len(name) + 1 :]
        if named is not None and rest.startswith("/") and not rest.startswith("//"):
            return named, len(name) + 1
        decoded = unquote(path)
        for provider in PROVIDERS:
            if provider.claims(method, decoded, fields):
                return provider, 0
        if self._settings.upstream is not None:
            return DEFAULT, 0
        return None, 0


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
