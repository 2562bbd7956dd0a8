"""Which parts of a request say who asks, and what of them the key is made of.

What holds: whatever tells one user from another and goes upstream is in the key, in every place,
spelling, order and repetition. Which of several credentials an upstream believes is its own affair,
so none is left out because there is another (`?key=APP&access_token=ALICE`). Only one thing counts
the same in two places: an API key that is the request's only one (`Provider.key_parameters`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import unquote_plus

from llm_cache.wire.provider import Provider

_CREDENTIAL: Final = re.compile(
    rb"(?!x-cache-|proxy-|x-amzn-trace-id|x-amz-(?!security-token))"
    rb"(?:"
    rb".*(?:api[-_]?key|auth|token|secret|passw|passphrase|credential|signature|jwt|bearer"
    rb"|assertion|dpop|certificate|client[-_]cert)"
    rb"|(?!.*idempotency).*[-_]key$"
    # Who an authenticating proxy in front of us says the user is.
    rb"|(?:x[-_])?(?:forwarded[-_]|auth[-_]request[-_]|remote[-_])"
    rb"(?:user|email|groups|preferred[-_]username)"
    rb"|(?:tailscale|cf-access|x-ms-client-principal|x-goog-authenticated|x-amzn-oidc)-"
    rb")"
)


def looks_like_credential(name: bytes) -> bool:
    """True when a lower-case request header carries what one may be known by, whoever reads it."""
    return _CREDENTIAL.match(name) is not None


def split_query(target: bytes, names: Iterable[bytes]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """`target` (path and query) without the parameters of these names, the others as they were, and
    the decoded names and values of those, in order."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target, []
    found: list[tuple[bytes, bytes]] = []
    kept = []
    for parameter in query.split(b"&"):
        name, _, value = parameter.partition(b"=")
        if (plain := _decoded(name)) in names:
            found.append((plain, _decoded(value)))
        else:
            kept.append(parameter)
    if not found:
        return target, []
    return path + (b"?" + b"&".join(kept) if kept else b""), found


def without_credentials(target: bytes, names: Iterable[bytes]) -> bytes:
    """`target` (path and query) as it may be shown: without the parameters of these names, and with
    `...` for the value of any other that looks like a credential."""
    path, mark, query = split_query(target, names)[0].partition(b"?")
    if not mark:
        return path
    shown = []
    for parameter in query.split(b"&"):
        name, equals, _ = parameter.partition(b"=")
        plain = _decoded(name).lower()
        hidden = equals and (plain == b"key" or looks_like_credential(plain))
        shown.append(name + b"=..." if hidden else parameter)
    return path + b"?" + b"&".join(shown)


def told_credentials(
    provider: Provider,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    names: Iterable[bytes],
) -> list[bytes]:
    """All that a request to `provider` says about who asks: place, name and value of each, one
    after the other, [] for nothing. `headers` as they came; `names` are those looked at.

    Lines of one header keep their order (RFC 9110, 5.3), as parameters do; headers are sorted.
    """
    told = [
        (b"header", name, value)
        for name, value in headers
        if name in names and not provider.is_signature(name, value)
    ]
    told.sort(key=lambda one: one[1])
    if provider.key_parameters:
        in_query = split_query(target, provider.key_parameters)[1]
        as_header = [(b"header", provider.key_parameters[name], value) for name, value in in_query]
        if (
            len(as_header) == 1
            and as_header[0][1]
            and all(one[1] != as_header[0][1] for one in told)
        ):
            told = sorted([*told, *as_header], key=lambda one: one[1])
        else:
            told += [(b"query", name, value) for name, value in in_query]
    return [part for one in told for part in one]


def _decoded(text: bytes) -> bytes:
    return unquote_plus(text.decode("latin-1"), "latin-1").encode("latin-1")
