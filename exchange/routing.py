"""Where a request goes: provider, operation, upstream, and what of it makes the key.

A route is decided by the path, by the prefix that names an upstream or a provider
(`/anthropic/…`) or, where several providers share a path, by headers. Routes of cacheable
operations depend on the path alone and are remembered.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from urllib.parse import unquote

from llm_cache.errors import SettingsError
from llm_cache.exchange.control import Control
from llm_cache.exchange.heads import Headers
from llm_cache.exchange.upstream import Upstream
from llm_cache.settings import Settings
from llm_cache.upstreams import NamedUpstream
from llm_cache.wire.credentials import (
    looks_like_credential,
    split_query,
    told_credentials,
    without_credentials,
)
from llm_cache.wire.framing.headers import is_gateway_header
from llm_cache.wire.keys import KeyContext, credential_digest
from llm_cache.wire.provider import Endpoint, Provider
from llm_cache.wire.registry import (
    ALL_CREDENTIALS,
    ANY_COMPATIBLE,
    DEFAULT,
    KEYED_CREDENTIALS,
    PROVIDERS,
    by_host,
    by_name,
    is_providers_own,
)

_REMEMBERED = 1024
_MOST_BASES = 8
"""How many segments of a gateway's own are looked behind."""


class _KeyHeaders(dict[bytes, bool]):
    """Whether a header can change a provider's answer, asked of the provider once per name."""

    def __init__(self, provider: Provider, ignored: Collection[bytes]) -> None:
        super().__init__()
        self._provider = provider
        self._ignored = ignored

    def __missing__(self, name: bytes) -> bool:
        answer = (
            name not in ALL_CREDENTIALS
            and name not in self._ignored
            and (
                self._provider.is_key_header(name)
                or is_gateway_header(name)
                or looks_like_credential(name)
            )
        )
        if len(self) < _REMEMBERED:
            self[name] = answer
        return answer


@dataclass(frozen=True, slots=True)
class Route:
    """Where one path goes. `endpoint` is None for what is passed through uncached; `target` is
    path and query as the client sent them, without the prefix that names an upstream or a provider,
    `bare_target` the same without credentials; `fixes_billing`: what is forwarded has its billing
    lines made the same (SPEC 4a)."""

    provider: Provider
    endpoint: Endpoint | None
    upstream: Upstream
    real_key: str | None
    method: str
    path: str
    target: bytes
    bare_target: bytes
    fixes_billing: bool
    _key_headers: _KeyHeaders
    _prefixes: dict[tuple[object, ...], bytes] = field(default_factory=dict)

    def key_prefix(
        self, headers: Headers, control: Control, *, shared: bool, coding: bytes = b""
    ) -> bytes:
        """All of the key but the body. `shared`: credentials don't split the cache. `coding`: the
        content coding of a body that can't be read without it, which counts then."""
        asked = self._key_headers
        telling = tuple([header for header in headers if asked[header[0]]])
        if coding:
            telling += ((b"content-encoding", coding),)
        credential = b""
        if self.real_key is None and not shared:
            credential = credential_digest(
                told_credentials(self.provider, self.target, headers, KEYED_CREDENTIALS)
            )
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

    def counting(self, headers: Headers) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """The headers that count for the key, without those that may be credentials, and the names
        of these."""
        asked = self._key_headers
        telling = sorted((one for one in headers if asked[one[0]]), key=itemgetter(0))
        open_ = [one for one in telling if not looks_like_credential(one[0])]
        return open_, sorted({name for name, _ in telling if looks_like_credential(name)})

    @property
    def shown_target(self) -> str:
        """Path and query without anything that may be a credential."""
        return without_credentials(self.target, self.provider.key_parameters).decode("ascii")


class Router:
    """The routes of one running proxy. `ignored_headers` are in no key. Raises SettingsError for an
    upstream of a provider that nobody knows."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str] | None = None,
        *,
        ignored_headers: Collection[bytes] = (),
    ) -> None:
        _check_names(settings)
        self._settings = settings
        self._environ = os.environ if environ is None else environ
        self._upstreams: dict[str, Upstream] = {}
        self._key_headers = {
            provider.name: _KeyHeaders(provider, ignored_headers) for provider in PROVIDERS
        }
        self._remembered: dict[tuple[str, bytes, frozenset[bytes]], Route] = {}

    def known(self, method: str, target: bytes, fields: Mapping[bytes, bytes]) -> Route | None:
        """The remembered route of a cacheable operation. `target` was checked when remembered."""
        return self._remembered.get((method, target, frozenset(fields)))

    def route(self, method: str, target: bytes, fields: Mapping[bytes, bytes]) -> Route | None:
        """The route of a request whose path is in order; None: no known API has this path."""
        path = target.partition(b"?")[0].decode("ascii")
        provider, prefix, named, base = self._provider(method, path, fields)
        if provider is None:
            return None
        bare = path[prefix:]
        # Compared as sent: an encoded spelling of a cacheable path passes through uncached.
        endpoint = provider.endpoint(method, bare[base:])
        upstream = self._upstream(provider, bare, named)
        route = Route(
            provider,
            endpoint,
            upstream,
            named.key if named else self._settings.real_keys.get(provider.name),
            method,
            bare,
            target[prefix:],
            split_query(target[prefix:], provider.key_parameters)[0],
            endpoint is not None and self._fixes_billing(upstream),
            self._key_headers[provider.name],
        )
        if endpoint is not None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            # Which headers are there decides with the path whose request it is; never what is in
            # them.
            self._remembered[method, target, frozenset(fields)] = route
        return route

    def error_shape(
        self, method: str, target: bytes, fields: Mapping[bytes, bytes], route: Route | None
    ) -> Provider:
        """Whose errors the client of this request knows, though the request may be refused for its
        very path (`//v1/chat/completions`)."""
        if route is None:
            path = "/" + target.partition(b"?")[0].decode("latin-1").lstrip("/")
            provider, prefix, _, base = self._provider(method, path, fields)
            if provider is None:
                return DEFAULT
            endpoint = provider.endpoint("POST", path[prefix + base :])
        else:
            provider, endpoint = route.provider, route.endpoint
        return provider if endpoint is None else provider.error_shape(endpoint)

    def _upstream(self, provider: Provider, path: str, named: NamedUpstream | None) -> Upstream:
        base_url = (
            named.url
            if named is not None
            else self._settings.upstream
            or self._settings.upstreams.get(provider.name)
            or provider.home(path, self._environ)
        )
        if not base_url:
            return Upstream.unset(provider.upstream_setting)
        if (upstream := self._upstreams.get(base_url)) is None:
            if len(self._upstreams) >= _REMEMBERED:
                self._upstreams.clear()
            upstream = self._upstreams[base_url] = Upstream.of(base_url)
        return upstream

    def _fixes_billing(self, upstream: Upstream) -> bool:
        wish = self._settings.rewrite_billing
        return wish == "on" or (wish == "auto" and not is_providers_own(upstream.base_url))

    def _provider(
        self, method: str, path: str, fields: Mapping[bytes, bytes]
    ) -> tuple[Provider | None, int, NamedUpstream | None, int]:
        """Whose request it is, how long its prefix is, the named upstream it goes to, and how much
        of the path there is a gateway's own."""
        upstreams = self._settings.named_upstreams
        for provider in PROVIDERS:
            if path.startswith(provider.own_paths):
                return provider, 0, upstreams.get(provider.name), 0
        name = path[1:].partition("/")[0]
        rest = path[len(name) + 1 :]
        if rest.startswith("/") and not rest.startswith("//"):
            if (named := upstreams.get(name)) is not None:
                known = by_name(named.provider or name)
                if known is None and (theirs := by_host(named.url)) is not None:
                    known = theirs if theirs.endpoint(method, rest) is not None else None
                reader, base = (known, 0) if known else speaker(method, rest, fields)
                return reader, len(name) + 1, named, base
            if (known := by_name(name)) is not None:
                return known, len(name) + 1, None, 0
        claimed = _claimant(method, path, fields)
        if claimed is not None:
            # A named upstream with a provider's name stands in its place.
            return claimed, 0, upstreams.get(claimed.name), 0
        if self._settings.upstream is not None:
            reader, base = speaker(method, path, fields)
            asks = reader.endpoint(method, path[base:]) is not None
            return (reader, 0, None, base) if asks else (DEFAULT, 0, None, 0)
        return None, 0, None, 0


def _claimant(method: str, path: str, fields: Mapping[bytes, bytes]) -> Provider | None:
    decoded = unquote(path)
    return next((one for one in PROVIDERS if one.claims(method, decoded, fields)), None)


def speaker(method: str, path: str, fields: Mapping[bytes, bytes]) -> tuple[Provider, int]:
    """Who reads the bytes of an upstream that names no provider, and how much of the path comes
    before that provider's own: told by the path. What looks like OpenAI's is anybody's who speaks
    it, at anybody's price. A gateway may have a path of its own before an API's
    (`/proxy/gemini/v1beta/...`)."""
    claimed = _claimant(method, path, fields)
    reader = ANY_COMPATIBLE if claimed is None or claimed.name == "openai" else claimed
    if reader is ANY_COMPATIBLE or reader.endpoint(method, path) is None:
        for base in [at for at, char in enumerate(path) if char == "/"][1:_MOST_BASES]:
            behind = _claimant(method, path[base:], fields)
            if behind is None or behind.name == "openai":
                continue
            if behind.endpoint(method, path[base:]) is not None:
                return behind, base
        if ANY_COMPATIBLE.endpoint(method, path) is not None:
            return ANY_COMPATIBLE, 0
    return reader, 0


def _check_names(settings: Settings) -> None:
    names = ", ".join(provider.name for provider in PROVIDERS)
    for name, upstream in settings.named_upstreams.items():
        if upstream.provider is not None and by_name(upstream.provider) is None:
            raise SettingsError(
                f"CACHE_UPSTREAMS: {name}: provider={upstream.provider} isn't known; one of {names}"
            )
        if upstream.provider not in (None, name) and by_name(name) is not None:
            raise SettingsError(
                f"CACHE_UPSTREAMS: {name}: an upstream with a provider's name is that provider's, "
                f"not {upstream.provider}'s; give it another name"
            )
    for name in settings.upstreams:
        if by_name(name) is None:
            raise SettingsError(
                f"CACHE_UPSTREAM_{name.upper()}: there is no provider {name}; one of {names}, "
                f"or an upstream with a name of your own: CACHE_UPSTREAMS={name}=URL"
            )
