"""How an answer is written into the store and made ready to be sent again.

The store keeps an entry's meta as opaque bytes; here is what is in them: JSON with status, the
end-to-end headers, and the facts that were read from the answer when it was new.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from llm_cache.exchange.calls import Call
from llm_cache.exchange.heads import HeaderList, Headers
from llm_cache.store import Stored
from llm_cache.wire.framing.encoding import acceptable, decode_all
from llm_cache.wire.framing.headers import replayable
from llm_cache.wire.provider import Usage


@dataclass(frozen=True, slots=True)
class Replay:
    """A stored answer, ready to be sent. `headers` leave out what differs from hit to hit; they
    have the content length when, and where, the first answer had one: a hit is framed as its miss
    was, and only a body of exactly the announced length is stored. `nano_usd` is what the answer
    cost, in 1e-9 US dollars."""

    status: int
    headers: HeaderList
    head: bytes  # status line and headers as h11 writes them, without the empty line
    sized: bool  # the headers have a content length
    content_encoding: bytes
    provider: str
    model: str | None
    usage: Usage | None
    nano_usd: int | None
    snippet: str


def encode_meta(call: Call, headers: Headers, endpoint: str, prompt: str = "") -> bytes:
    """The meta of an answer, to be stored beside its body. `headers` are the upstream's; `prompt`
    is the request's first words, "" when requests aren't kept."""
    return json.dumps(
        {
            "status": call.status,
            "headers": [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in replayable(headers)
            ],
            "provider": call.provider,
            "endpoint": endpoint,
            "model": call.model,
            "usage": asdict(call.usage) if call.usage else None,
            "nano_usd": call.nano_usd,
            "snippet": call.snippet,
            "prompt": prompt,
        },
        separators=(",", ":"),
    ).encode()


def replay_of(stored: Stored) -> Replay:
    """The stored answer made ready; done once for as long as it stays in memory."""
    if isinstance(stored.prepared, Replay):
        return stored.prepared
    meta = json.loads(stored.entry.meta)
    headers: HeaderList = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in meta["headers"]
    ]
    encoding = next((value for name, value in headers if name == b"content-encoding"), b"")
    replay = Replay(
        status=meta["status"],
        headers=headers,
        head=_head(meta["status"], headers),
        sized=_is_sized(headers),
        content_encoding=encoding,
        provider=meta["provider"],
        model=meta["model"],
        usage=_usage(meta["usage"]),
        nano_usd=meta["nano_usd"],
        snippet=meta["snippet"],
    )
    stored.prepared = replay
    return replay


def is_readable(stored: Stored) -> bool:
    """False for an entry whose meta isn't ours: damaged, or written by another version."""
    try:
        replay_of(stored)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _usage(told: dict[str, Any] | None) -> Usage | None:
    """Usage as it was stored; what a newer version counts besides is left out."""
    known = {field.name for field in fields(Usage)}
    return Usage(**{name: value for name, value in told.items() if name in known}) if told else None


def with_head(replay: Replay, headers: HeaderList) -> Replay:
    """The same answer under other headers."""
    return replace(
        replay, headers=headers, head=_head(replay.status, headers), sized=_is_sized(headers)
    )


def _head(status: int, headers: Headers) -> bytes:
    return b"HTTP/1.1 %d \r\n" % status + b"".join(b"%b: %b\r\n" % header for header in headers)


def _is_sized(headers: Headers) -> bool:
    return any(name == b"content-length" for name, _ in headers)


def in_identity(replay: Replay, body: bytes, max_bytes: int) -> tuple[HeaderList, bytes]:
    """Headers and body for a client that can't read the stored content coding, framed as its miss
    would be: decoded as it comes, without a length."""
    plain = decode_all(replay.content_encoding, body, max_bytes)
    if plain is None:  # it was read whole before it was stored, so only the limit can be in the way
        return replay.headers, body
    return in_no_coding(replay.headers), plain


def readable_by(replay: Replay, accept_encoding: bytes | None) -> bool:
    """True when a client with this `accept-encoding` can read the answer as it is stored."""
    return reads(accept_encoding, replay.content_encoding)


def reads(accept_encoding: bytes | None, content_encoding: bytes) -> bool:
    """True when a client with this `accept-encoding` is given this coding as it is.

    RFC 9110, 12.5.3 allows any to a client without the field. Such a client mostly undoes none,
    though, so it gets the plain answer, whoever's question brought it in.
    """
    return not content_encoding or acceptable(accept_encoding or b"identity", content_encoding)


def in_no_coding(headers: Headers) -> HeaderList:
    """The head of an answer whose content coding is undone; its length isn't known then."""
    return [h for h in headers if h[0] not in (b"content-encoding", b"content-length")]
