"""Which header fields go up to the provider and which a replayed answer carries.

Field lists are `(name, value)` pairs of bytes with lower-case names; order and repetition are
kept. Nothing named for one hop, and nothing of the proxy's own, ever crosses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
    }
)
"""Fields of one connection only (RFC 9110, 7.6.1). Any other `proxy-*` field counts as well."""

NOT_FORWARDED: Final = frozenset(
    {
        b"host",  # the upstream's own
        b"content-length",  # made again for the body that is sent
        b"expect",  # answered here: the body was read already (RFC 9110, 10.1.1)
        b"cookie",  # belongs to this origin, not to the provider
    }
)
"""Request fields that end at the proxy, besides the hop-by-hop ones and its own."""

NOT_REPLAYED: Final = frozenset(
    {
        b"date",  # says when this message was made (RFC 9110, 6.6.1)
        b"age",  # made again for each replay (RFC 9111, 5.1)
        b"set-cookie",  # was meant for the client of the first answer
        b"set-cookie2",
    }
)
"""Response fields a replay leaves out, besides those of one hop (RFC 9111, 3.1) and `x-cache*`.
Any other difference would tell a hit from its miss."""

_OWN_REQUEST: Final = (b"x-cache-", b"x-stasis-")


_TOOL: Final = re.compile(
    rb"(?:x-portkey|x-litellm|cf-aig|helicone|x-bf|x-tfy|x-kong|x-braintrust|x-bt|x-langfuse)-(.+)"
)
"""Gateways and tracers, by how the names of their own headers begin."""

_NAMES_WHO_ANSWERS: Final = re.compile(
    rb"(?!x-amz-|x-cache-|proxy-).*(?:provider|model|virtual-key)"
)

_LABEL: Final = re.compile(
    # What a user makes up: a property, a dimension of a metric.
    rb"(?:property|dim|prom)-.*|prompt-id"
    rb"|(?!(?:.*-)?(?:eh|mcp|config|provider|model|route|target|url|host|endpoint|fallback|cache)\b)"
    rb"(?:.*-)?"
    rb"(?:(?:trace|span|session|user|generation)(?:id)?|customer|tags?|metadata|parent"
    rb"|(?:request|event|log|correlation)-?id)"
    rb"(?:-.*)?"
)
"""What follows a tool's name in a header that only labels a request: who asked, as part of what.
Sources: https://portkey.ai/docs/api-reference/inference-api/headers,
https://docs.litellm.ai/docs/proxy/request_headers,
https://developers.cloudflare.com/ai-gateway/glossary,
https://docs.helicone.ai/helicone-headers/header-directory,
https://docs.getbifrost.ai/providers/request-options,
https://www.truefoundry.com/docs/ai-gateway/request-headers."""


def is_gateway_header(name: bytes) -> bool:
    """Whether a lower-case request header says to a gateway whom it is to ask, or how: then it
    changes the answer whatever API is spoken. A label changes none: trace, span, session, request,
    user, tags, metadata of a known tool. What isn't known for a label counts.

    Who asks is told by `credentials.looks_like_credential`, which is to be asked as well.
    """
    if tool := _TOOL.fullmatch(name):
        return _LABEL.fullmatch(tool[1]) is None
    return _NAMES_WHO_ANSWERS.match(name) is not None


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """`headers` without those of one hop, and without what `connection` lists (RFC 9110, 7.6.1).

    Keys are to be made from the result, so that a field that isn't forwarded isn't in the key.
    """
    fields = list(headers)
    dropped = HOP_BY_HOP
    for name, value in fields:
        if name == b"connection":
            dropped |= {option.strip().lower() for option in value.split(b",")}
    return [
        (name, value)
        for name, value in fields
        if name not in dropped and not name.startswith(b"proxy-")
    ]


def forwardable(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The request fields that go up to the provider."""
    return [
        (name, value)
        for name, value in end_to_end(headers)
        if name not in NOT_FORWARDED and name != b"x-cache" and not name.startswith(_OWN_REQUEST)
    ]


def replayable(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The response fields that are stored with an answer and sent again with a hit."""
    return [
        (name, value)
        for name, value in end_to_end(headers)
        if name not in NOT_REPLAYED and name != b"x-cache" and not name.startswith(b"x-cache-")
    ]
