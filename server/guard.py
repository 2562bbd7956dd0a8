"""Who may talk to the proxy: framing, Host, browser origin, token, path.

The proxy spends real money for whoever reaches it, so a request is refused here before anything
is read or looked up. Everything in this file is a pure decision over the request head: a
`Refusal` or None. Hypercorn hands over what h11 accepted, which includes both-length requests,
any Host value, absolute-form targets and undecoded paths; the checks for these cite the RFC.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

from llm_cache.exchange import Refusal

# Lower-case host name or IPv4 address, or an IPv6 literal in brackets; then an optional port.
# RFC 9110 7.2: Host = uri-host [ ":" port ]. Anything else (userinfo, spaces) is no host.
_HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?\Z")
_SAFE_TARGET = re.compile(rb"/[!-~]*\Z")
# RFC 9110 9.3.6 and 9.3.8: CONNECT asks for a tunnel to anywhere; TRACE has the upstream send back
# the request it got, with the real key in it.
_REFUSED_METHODS = frozenset(("CONNECT", "TRACE"))


def split_target(raw: bytes) -> tuple[bytes | None, bytes]:
    """`(authority, path)` of a request target; authority is None in origin form (RFC 9112 3.2)."""
    lowered = raw[:8].lower()
    for scheme in (b"http://", b"https://"):
        if lowered.startswith(scheme):
            authority, slash, rest = raw[len(scheme) :].partition(b"/")
            return authority, slash + rest or b"/"
    return None, raw


def method_refusal(method: str, fields: Mapping[bytes, bytes]) -> Refusal | None:
    """Refusal of what is no plain exchange of a request and an answer, or None."""
    if method in _REFUSED_METHODS:
        return Refusal(501, "not_implemented", f"{method} is not forwarded")
    if fields.get(b"upgrade", b"").strip().lower() == b"websocket":
        return Refusal(
            426,
            "upgrade_required",
            "WebSockets are not spoken here; the same API answers plain requests",
            upgrade="HTTP/1.1",
        )
    return None


def path_problem(path: bytes, query: bytes = b"") -> str | None:
    """What is wrong with a path, or None. Paths are forwarded as they came, so one that another
    reader might take for a different place (dot segments, `//host`, encoded or not) is refused.
    """
    if not _SAFE_TARGET.match(path) or b"#" in path or b"#" in query:
        return "the request target is not a path"
    if path.startswith(b"//"):
        return "the path starts with //"
    if b"\\" in path:
        return "the path holds a backslash"
    # RFC 3986 5.2.4 and 6.2.2.3: encoded dots are dots; %2f and %5c hide segments from us.
    decoded = unquote_to_bytes(path)
    if any(byte < 0x20 or byte == 0x7F for byte in decoded):
        return "the path holds a control character"
    segments = decoded.replace(b"\\", b"/").split(b"/")
    if b"." in segments or b".." in segments:
        return "the path holds a dot segment"
    return None


class Guard:
    """The rules for one running proxy. `check` is on the way of every request."""

    def __init__(
        self,
        *,
        host: str,
        token: str | None,
        allow_origins: Iterable[str] = (),
        allow_hosts: Iterable[str] = (),
    ) -> None:
        self._token = token.encode() if token else None
        self._origins = frozenset(origin.lower().encode() for origin in allow_origins)
        names = {"localhost", "127.0.0.1", "[::1]", *(name.lower() for name in allow_hosts)}
        self._any_local_address = False
        if _is_unspecified(host):
            self._any_local_address = True
            own = socket.gethostname().lower()
            names |= {own, f"{own}.local"}
        else:
            names.add(f"[{host}]" if ":" in host else host.lower())
        self._names = frozenset(name.encode() for name in names)
        self._known: set[bytes] = set()

    @property
    def needs_token(self) -> bool:
        """True when a token is set."""
        return self._token is not None

    def check(
        self, scope: Mapping[str, object], fields: Mapping[bytes, bytes], scheme: str
    ) -> Refusal | None:
        """Refusal for the request head, or None. The token is checked apart, by `token_ok`."""
        if scope["http_version"] not in ("1.1", "1.0"):
            return Refusal(505, "http_version", "only HTTP/1.1 is spoken here")
        # RFC 9112 6.1: both lengths in one message is how requests are smuggled, and HTTP/1.0 knows
        # no transfer codings.
        if b"transfer-encoding" in fields and b"content-length" in fields:
            return Refusal(
                400, "invalid_request", "both content-length and transfer-encoding are given"
            )
        if b"transfer-encoding" in fields and scope["http_version"] == "1.0":
            return Refusal(400, "invalid_request", "HTTP/1.0 has no transfer-encoding")
        host = fields.get(b"host", b"")
        if host not in self._known and not self._host_known(host, scope):
            return Refusal(
                403,
                "forbidden_host",
                "this proxy isn't known by the host name in the Host header; "
                "use localhost, 127.0.0.1 or a name listed in CACHE_ALLOW_HOSTS",
            )
        if b"origin" in fields or b"sec-fetch-site" in fields:
            return self._check_browser(fields, host, scheme)
        return None

    def _host_known(self, host: bytes, scope: Mapping[str, object]) -> bool:
        match = _HOST.match(host.lower())
        if match is None or (match[2] is not None and not 0 < int(match[2]) < 65536):
            return False
        name = match[1]
        if name not in self._names and not self._is_socket_address(name, scope):
            return False
        if len(self._known) < 64:  # spellings that passed, so that the next one is a set lookup
            self._known.add(host)
        return True

    def _is_socket_address(self, name: bytes, scope: Mapping[str, object]) -> bool:
        # Listening on every address: the one the client connected to is ours. An address can't
        # be rebound, only a name can.
        if not self._any_local_address:
            return False
        server = scope.get("server")
        try:
            asked = ipaddress.ip_address(name.decode().strip("[]"))
            return isinstance(server, tuple) and asked == _unmapped(server[0])
        except ValueError:
            return False

    def _check_browser(
        self, fields: Mapping[bytes, bytes], host: bytes, scheme: str
    ) -> Refusal | None:
        origin = fields.get(b"origin")
        if origin is not None:
            if self.origin_allowed(origin):
                return None
            if origin.lower() != scheme.encode() + b"://" + host.lower():
                return Refusal(
                    403,
                    "forbidden_origin",
                    "a page of another origin may not call this proxy; "
                    "list its origin in CACHE_ALLOW_ORIGINS to allow it",
                )
        if fields.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
            return Refusal(403, "forbidden_origin", "cross-site requests are not allowed")
        return None

    def origin_allowed(self, origin: bytes) -> bool:
        """True when the browser origin is one of `CACHE_ALLOW_ORIGINS`."""
        return origin.lower() in self._origins

    def token_ok(
        self,
        fields: Mapping[bytes, bytes],
        credential_headers: Iterable[bytes] = (),
        others: Iterable[bytes] = (),
    ) -> bool:
        """True when no token is set or the request carries it: as `x-cache-auth`, in one of
        `credential_headers` (plain or as a bearer token) or among `others`, the credentials of its
        query. Compared in constant time."""
        if self._token is None:
            return True
        ok = hmac.compare_digest(fields.get(b"x-cache-auth", b""), self._token)
        for name in credential_headers:
            value = fields.get(name, b"")
            bare = value[7:] if value[:7].lower() == b"bearer " else value
            ok |= hmac.compare_digest(bare, self._token)
        for value in others:
            ok |= hmac.compare_digest(value, self._token)
        return ok


def _unmapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address a client used: a dual-stack socket shows IPv4 as ::ffff:… (RFC 4291 2.5.5.2)."""
    parsed = ipaddress.ip_address(address)
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
