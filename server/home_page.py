"""The page for a person who opens the proxy's address in a browser.

What always holds: no script, nothing from another place, no secret, and nothing of the request in
it but the host name, which the guard knows. What a browser asks for by itself is never forwarded:
it would go upstream with the real key.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from llm_cache import __version__
from llm_cache.wire.registry import PROVIDERS

PATH = b"/"

_BY_ITSELF = frozenset((b"/favicon.ico", b"/robots.txt"))

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{text-align:left;padding:.15rem 1rem .15rem 0}"
    "code{font-family:ui-monospace,monospace}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest())

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'sha256-%b'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'" % _STYLE_HASH,
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"vary", b"accept, sec-fetch-mode"),
)
"""What goes with the page, besides what every own answer has."""


def is_asked(method: str, path: bytes, fields: Mapping[bytes, bytes]) -> bool:
    """True for a browser that opens `/`, and for the files that browsers and crawlers ask for by
    themselves, which aren't there. An API client's `/` is none of these: it goes upstream."""
    if path in _BY_ITSELF:
        return True
    return path == PATH and method in ("GET", "HEAD") and _is_browser(fields)


def _is_browser(fields: Mapping[bytes, bytes]) -> bool:
    accepts = [
        kind.partition(b";")[0].strip() for kind in fields.get(b"accept", b"").lower().split(b",")
    ]
    return b"text/html" in accepts or fields.get(b"sec-fetch-mode") == b"navigate"


def page(address: str) -> bytes:
    """The page, as HTML. `address`: the proxy's base URL, as the browser knows it."""
    rows = "".join(
        f"<tr><td>{escape(provider.title)}</td>"
        f"<td><code>{escape(name)}={escape(address + path)}</code></td></tr>"
        for provider in PROVIDERS
        for name, path in provider.clients.urls
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>llm-cache</title><style>{_STYLE}</style></head><body>"
        "<h1>llm-cache</h1>"
        "<p>A caching proxy for LLM APIs. A request that was answered before is answered again, "
        "byte for byte, with no upstream call. There is nothing to do here: point a client's base "
        f"URL at <code>{escape(address)}</code>.</p>"
        '<p><a href="/stats">/stats</a>: hits, tokens and money saved. '
        '<a href="/health">/health</a>: is it up. '
        '<a href="/metrics">/metrics</a>: the same for Prometheus.</p>'
        "<h2>What clients read</h2>"
        f"<table><tr><th>API</th><th>variable and base URL</th></tr>{rows}</table>"
        "<p>On a terminal: <code>llm-cache stats</code>, <code>llm-cache explore</code>, "
        "<code>llm-cache monitor</code>.</p>"
        f"<p>Version {escape(__version__)}</p></body></html>\n"
    ).encode()
