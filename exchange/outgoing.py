"""The head of a request as it goes upstream: whose credentials it carries, and in which place.

A client's own credentials go where it put them. Where the real key stands in their place, or where
they are the proxy's own token, nothing of them goes up, in header or query. Of a signature, which
ends at the proxy, nothing goes up either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_cache.exchange.heads import HeaderList, Headers
from llm_cache.exchange.routing import Route
from llm_cache.wire.credentials import split_query
from llm_cache.wire.framing.encoding import readable_accept_encoding
from llm_cache.wire.framing.headers import forwardable
from llm_cache.wire.registry import ALL_CREDENTIALS

_IN_PLACE_OF_A_SIGNATURE: Final = (b"authorization", b"x-api-key")
"""What a request to AWS may carry instead of one, at whichever of its hosts."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Target and headers for the upstream. `unsigned`: a signature must be added to them."""

    target: bytes
    headers: HeaderList
    unsigned: bool


def outgoing(route: Route, headers: Headers, token: bytes) -> Outgoing:
    """The request head for upstream. `token` is the proxy's own, b"" when there is none."""
    provider, real_key = route.provider, route.real_key

    def is_ours(credential: bytes) -> bool:
        scheme, _, bare = credential.rpartition(b" ")
        return bool(token) and bare == token and scheme.lower() in (b"", b"bearer")

    out: HeaderList = []
    unsigned = provider.signed and real_key is None
    for name, value in forwardable(headers):
        if is_ours(value) or provider.is_signature(name, value):
            continue  # wherever it stands
        if name in ALL_CREDENTIALS and real_key is not None:
            continue  # the client's keys for other providers are nobody's business here either
        if value and name in _IN_PLACE_OF_A_SIGNATURE:
            unsigned = False
        if name == b"accept-encoding" and route.endpoint is not None:
            value = readable_accept_encoding(value) or b"identity"
        out.append((name, value))
    if real_key is not None:
        out.append(provider.auth_header(real_key))
    bare, in_query = split_query(route.target, provider.key_parameters)
    replaced = real_key is not None or any(is_ours(value) for _, value in in_query)
    return Outgoing(bare if replaced else route.target, out, unsigned)
