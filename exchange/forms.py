"""A stored answer in the form that was asked for: a plain one as a stream, or the other way round.

Only with `CACHE_CROSS_STREAM`. The provider makes the other form; what it can't make without losing
or inventing something isn't made, and the request is a miss. The answer keeps its end-to-end
headers but for those that tell its form.
"""

from __future__ import annotations

from llm_cache.exchange.asked import Asked
from llm_cache.exchange.entries import DECODED_LIMIT, replay_of, with_headers
from llm_cache.exchange.heads import HeaderList
from llm_cache.store import Stored
from llm_cache.wire.answers import media_type
from llm_cache.wire.framing.encoding import decode_all

_STREAM = b"text/event-stream; charset=utf-8"
_PLAIN = b"application/json"
_OF_ITS_FORM = (b"content-type", b"content-length", b"content-encoding", b"cache-control")


def in_asked_form(stored: Stored, asked: Asked) -> Stored | None:
    """`stored` in the other form, if that is what was asked for and it can be made."""
    doc, endpoint, provider = asked.take_doc(), asked.route.endpoint, asked.route.provider
    if doc is None or endpoint is None:
        return None
    streams = provider.strip_form(endpoint, dict(doc))
    replay = replay_of(stored)
    kind = dict(replay.headers).get(b"content-type", b"").decode("latin-1")
    if streams is None or streams == (media_type(kind) == "text/event-stream"):
        return None
    body = decode_all(replay.content_encoding, stored.body, DECODED_LIMIT)
    if body is None:
        return None
    made = provider.as_stream(endpoint, doc, body) if streams else provider.as_plain(endpoint, body)
    if made is None:
        return None
    headers: HeaderList = [header for header in replay.headers if header[0] not in _OF_ITS_FORM]
    if streams:
        headers += [(b"content-type", _STREAM), (b"cache-control", b"no-cache")]
    else:
        headers += [(b"content-type", _PLAIN), (b"content-length", b"%d" % len(made))]
    turned = Stored(stored.entry, made)
    turned.prepared = with_headers(replay, headers)
    return turned
