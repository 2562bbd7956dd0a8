"""The meta of an entry: what is written beside an answer, read again, and made ready for a replay.

The store keeps it as opaque bytes. Format: JSON, `v` is its version. Version 1 (which names none)
has no `reason`, `request`, `chunks` and `first_ms`. A version above ours is unreadable, a member
that isn't known is passed over. What holds: no credential is ever in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Literal

from llm_cache.exchange.heads import HeaderList, Headers
from llm_cache.store import Stored
from llm_cache.wire.framing.encoding import acceptable, decode_all
from llm_cache.wire.provider import Usage

VERSION: Final = 2

DECODED_LIMIT: Final = 1 << 30
"""Most bytes a stored answer may have once its content coding is undone."""

Chunk = tuple[int, int]
"""How an answer came in: bytes of a piece, and milliseconds since the one before."""

Credential = Literal["client", "own", "shared"]
"""Whose credentials a request went up with: the client's own, which split the cache; the proxy's
real key; the client's, which don't split it (`CACHE_SCOPE=shared`)."""

MOST_CHUNKS: Final = 20_000
"""Pieces whose boundaries are kept; what comes after them counts as one."""


@dataclass(frozen=True, slots=True)
class AskedAs:
    """What the request's keys were made of, besides its body and its credentials. `headers` are
    those that count; `withheld` are the names of those that count and may be credentials."""

    method: str
    target: str
    upstream: str
    headers: tuple[tuple[str, str], ...] = ()
    withheld: tuple[str, ...] = ()
    namespace: str = ""
    sample: str = ""
    credential: Credential = "client"


def but_for_credentials(asked: AskedAs, body_digest: str) -> str:
    """A digest of all of a request but its credentials: two that differ in nothing else have the
    same. `body_digest` as in `store.Entry.request_digest`."""
    told = [asdict(replace(asked, credential="client")), body_digest]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a stored answer. `headers` are the upstream's, end to end; `reason` is its
    status line's; `nano_usd` what the answer cost in 1e-9 US dollars, None when the price isn't
    known; `prompt` the request's first words, "" when requests aren't kept; `first_ms` how long the
    first byte took."""

    status: int
    headers: HeaderList
    provider: str
    endpoint: str
    model: str | None
    usage: Usage | None
    nano_usd: int | None
    snippet: str
    prompt: str = ""
    reason: str = ""
    request: AskedAs | None = None
    first_ms: int | None = None
    packed_chunks: str = field(default="", repr=False)

    @property
    def chunks(self) -> list[Chunk]:
        """How the answer came in; [] when that wasn't kept."""
        return _unpacked(self.packed_chunks)

    def encode(self) -> bytes:
        """As bytes for the store."""
        doc: dict[str, Any] = {
            "v": VERSION,
            "status": self.status,
            "reason": self.reason,
            "headers": [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers
            ],
            "provider": self.provider,
            "endpoint": self.endpoint,
            "model": self.model,
            "usage": asdict(self.usage) if self.usage else None,
            "nano_usd": self.nano_usd,
            "snippet": self.snippet,
            "prompt": self.prompt,
            "request": asdict(self.request) if self.request else None,
            "first_ms": self.first_ms,
            "chunks": self.packed_chunks,
        }
        return json.dumps(doc, separators=(",", ":")).encode()

    @staticmethod
    def decode(data: bytes) -> Meta:
        """From the store's bytes. Raises ValueError for what isn't a meta of ours."""
        try:
            doc = json.loads(data)
            if doc.get("v", 1) > VERSION:
                raise ValueError(f"a meta of version {doc['v']}")
            return Meta(
                status=doc["status"],
                headers=[(n.encode("latin-1"), v.encode("latin-1")) for n, v in doc["headers"]],
                provider=doc["provider"],
                endpoint=doc["endpoint"],
                model=doc["model"],
                usage=_known(Usage, doc["usage"]),
                nano_usd=doc["nano_usd"],
                snippet=doc["snippet"],
                prompt=doc.get("prompt", ""),
                reason=doc.get("reason", ""),
                request=_asked_as(doc.get("request")),
                first_ms=doc.get("first_ms"),
                packed_chunks=doc.get("chunks", ""),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a meta of ours: {type(error).__name__}") from None


def members_of(data: bytes) -> dict[str, Any]:
    """A meta's members as they are, for who only looks and has many to look at; {} for what can't
    be read. They are those of `Meta.encode`, or a later version's."""
    try:
        doc = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return doc if isinstance(doc, dict) else {}


def _known(kind: type[Any], told: dict[str, Any] | None) -> Any:
    """What was stored of a dataclass; what a newer version keeps besides is left out."""
    if not told:
        return None
    names = {one.name for one in fields(kind)}
    return kind(**{name: value for name, value in told.items() if name in names})


def _asked_as(told: dict[str, Any] | None) -> AskedAs | None:
    found: AskedAs | None = _known(AskedAs, told)
    if found is None:
        return None
    headers = tuple((str(name), str(value)) for name, value in found.headers)
    return replace(found, headers=headers, withheld=tuple(found.withheld))


# Chunks are many and seldom asked for: numbers of 7 bits a byte, deflated, as text.


def packed(chunks: Sequence[Chunk]) -> str:
    """Chunks as text for a meta; "" for an answer that came in one piece."""
    if len(chunks) < 2:
        return ""
    out = bytearray()
    for chunk in chunks:
        for number in chunk:
            while number > 0x7F:
                out.append(number & 0x7F | 0x80)
                number >>= 7
            out.append(number)
    return base64.b64encode(zlib.compress(out, 1)).decode()


def _unpacked(text: str) -> list[Chunk]:
    if not text:
        return []
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text), MOST_CHUNKS * 20)
    except (ValueError, zlib.error):
        return []
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    return list(zip(numbers[::2], numbers[1::2], strict=False))


# Replays


@dataclass(frozen=True, slots=True)
class Replay:
    """A stored answer, ready to be sent. `headers` leave out what differs from hit to hit; they
    have the content length when, and where, the first answer had one: a hit is framed as its miss
    was, and only a body of exactly the announced length is stored."""

    meta: Meta
    status: int
    reason: bytes
    headers: HeaderList
    head: bytes  # status line and headers as h11 writes them, without the empty line
    sized: bool  # the headers have a content length
    content_encoding: bytes


def replay_of(stored: Stored) -> Replay:
    """The stored answer made ready; done once for as long as it stays in memory. Raises ValueError
    for a meta that isn't ours."""
    if isinstance(stored.prepared, Replay):
        return stored.prepared
    replay = stored.prepared = _ready(Meta.decode(stored.entry.meta))
    return replay


def _ready(meta: Meta) -> Replay:
    reason = meta.reason.encode("latin-1")
    head = b"HTTP/1.1 %d %b\r\n" % (meta.status, reason)
    coding = b""
    sized = False
    for name, value in meta.headers:
        head += b"%b: %b\r\n" % (name, value)
        if name == b"content-length":
            sized = True
        elif name == b"content-encoding":
            coding = coding or value
    return Replay(meta, meta.status, reason, meta.headers, head, sized, coding)


def is_readable(stored: Stored) -> bool:
    """False for an entry whose meta isn't ours: damaged, or written by another version."""
    try:
        replay_of(stored)
    except (ValueError, TypeError):
        return False
    return True


def with_headers(replay: Replay, headers: HeaderList) -> Replay:
    """The same answer under other headers."""
    return _ready(replace(replay.meta, headers=headers))


def in_identity(replay: Replay, body: bytes) -> tuple[HeaderList, bytes]:
    """Headers and body for a client that can't read the stored content coding, framed as its miss
    would be: decoded as it comes, without a length."""
    plain = decode_all(replay.content_encoding, body, DECODED_LIMIT)
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
