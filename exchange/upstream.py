"""Calls to upstreams: one httpx transport, the request head a provider gets, errors mapped.

The transport is used without httpx's client on top: no redirects are followed (they would carry
the key to another origin), no cookies are kept, no proxies or credentials are read from the
environment, and the target goes out byte for byte as the client sent it, always to the
configured origin. TLS is verified.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from llm_cache.exchange.heads import Headers

CONNECT_TIMEOUT_SEC = 15.0

# h11 ends its messages so: `illegal header line: bytearray(b'…')`.
_QUOTED_BYTES = re.compile(r""":?\s*(?:bytearray\()?b['"].*""", re.DOTALL)


class UpstreamFailed(Exception):
    """The upstream couldn't be reached, or broke off; the message is for the client's user."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A base URL, taken apart once. `path` is the base path without a trailing slash. `missing` is
    the setting that would have named it, and isn't set: then there is no URL, and no call."""

    base_url: str
    url: httpx.URL
    path: bytes
    missing: str = ""

    @classmethod
    def of(cls, base_url: str) -> Upstream:
        """From a checked base URL like `https://api.anthropic.com` or `http://gw:8080/claude`."""
        path = urlsplit(base_url).path.rstrip("/").encode("ascii")
        return cls(base_url.rstrip("/"), httpx.URL(base_url), path)

    @classmethod
    def unset(cls, setting: str) -> Upstream:
        """That of a provider without a host of its own, while `setting` names none."""
        return cls("", httpx.URL(""), b"", missing=setting)


@dataclass(frozen=True, slots=True)
class Response:
    """The head of an upstream's answer, `reason` as its status line has it; `body` yields the bytes
    as they come, still encoded.

    `body` raises `UpstreamFailed` when the answer breaks off.
    """

    status: int
    reason: bytes
    headers: Headers
    body: AsyncIterator[bytes]

    @property
    def ends_with_head(self) -> bool:
        """True when no body follows (RFC 9112, 6.3)."""
        return self.status in (204, 304) or (b"content-length", b"0") in self.headers


class Caller:
    """Makes upstream calls over pooled connections. Lives as long as the server."""

    def __init__(self, *, silence_sec: float) -> None:
        self._timeout = {
            "connect": CONNECT_TIMEOUT_SEC,
            "read": silence_sec,
            "write": silence_sec,
            "pool": CONNECT_TIMEOUT_SEC,
        }
        self._transport = httpx.AsyncHTTPTransport(
            verify=_tls_context(),
            trust_env=False,
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=100, keepalive_expiry=30.0
            ),
        )

    @asynccontextmanager
    async def call(
        self,
        upstream: Upstream,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        content: bytes | AsyncIterator[bytes],
    ) -> AsyncIterator[Response]:
        """Send one request; the body of the answer is read inside the `async with`.

        `target` is path and query as the client sent them, without a provider prefix. Raises
        `UpstreamFailed` when no answer comes; leaving the block early closes the connection.
        """
        if upstream.missing:
            raise UpstreamFailed(f"no upstream is set for this provider: set {upstream.missing}")
        request = httpx.Request(
            method,
            upstream.url,
            headers=headers,
            content=content or None,
            extensions={"timeout": self._timeout, "target": upstream.path + target},
        )
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.TransportError, OSError) as error:
            raise UpstreamFailed(_explain(error, upstream)) from error
        try:
            yield Response(
                response.status_code,
                response.extensions.get("reason_phrase", b""),
                _head(response.headers.raw),
                _body(response, upstream),
            )
        finally:
            if _more_came(response):
                await response.extensions["network_stream"].aclose()
            await response.aclose()

    async def close(self) -> None:
        """Close every pooled connection."""
        await self._transport.aclose()


async def _body(response: httpx.Response, upstream: Upstream) -> AsyncIterator[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        async for chunk in response.stream:
            if chunk:
                yield chunk
    except (httpx.TransportError, OSError) as error:
        raise UpstreamFailed(_explain(error, upstream)) from error


def _more_came(response: httpx.Response) -> bool:
    """True when bytes from behind the answer's end were read with it. httpcore would take them
    for the next answer on this connection, and somebody else would get it. There is no public
    way to ask; when this one is gone, every connection is closed."""
    at: object = response.stream
    for inner in ("_httpcore_stream", "_stream", "_connection", "_h11_state", "trailing_data"):
        at = getattr(at, inner, None)
    return not isinstance(at, tuple) or at[0] != b""


def _head(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The header fields with lower-case names. A content length beside a transfer coding says
    nothing and must not be passed on (RFC 9112, 6.3)."""
    headers = [(name.lower(), value) for name, value in raw]
    if any(name == b"transfer-encoding" for name, _ in headers):
        return [header for header in headers if header[0] != b"content-length"]
    return headers


def _explain(error: Exception, upstream: Upstream) -> str:
    """One sentence with nothing secret in it: base URLs hold no credentials (a settings check), and
    what the upstream sent isn't quoted, since it may have sent a key back."""
    if isinstance(error, httpx.TimeoutException):
        what = "didn't answer in time"
    elif isinstance(error, httpx.ConnectError):
        what = "can't be reached"
    else:
        what = "broke off"
    detail = _QUOTED_BYTES.sub("", str(error)).strip() or type(error).__name__
    return f"upstream {upstream.base_url} {what}: {detail[:200]}"


def _tls_context() -> ssl.SSLContext:
    """Verifies against certifi's roots and the system's, so that a company's own root works."""
    context = httpx.create_ssl_context(verify=True, trust_env=False)
    context.load_default_certs()
    return context
