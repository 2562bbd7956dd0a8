"""Who may call the running proxy, by Host, Origin and Sec-Fetch-Site. Requests are raw bytes.

BAR fault 7: any web page could spend the key; BAR traps: Hypercorn takes an empty or odd `Host`.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.anthropic_wire import message, request
from support.proxy import Proxy, anthropic_headers, running_proxy
from support.raw import RawConnection, Response, exchange
from support.replies import json_reply
from support.upstream import Upstream

if TYPE_CHECKING:
    from support.proxy import ProxyFactory

APP = "https://app.example.com"
ASK = request("Spend my money.")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Upstream]]:
    """A proxy with an allowed origin and an allowed host name."""
    home = tmp_path_factory.mktemp("origins") / "home"
    with Upstream(json_reply(message())) as upstream:
        settings = {
            "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
            "CACHE_ALLOW_ORIGINS": f"{APP}, http://localhost:5173",
            "CACHE_ALLOW_HOSTS": "cache.internal",
        }
        with running_proxy(home, settings) as proxy:
            yield proxy, upstream


def sent(proxy: Proxy, head: str, body: bytes = b"", host: str = "127.0.0.1") -> Response:
    """The answer to a request of exactly this head (lines; PORT is the proxy's port) and body."""
    lines = head.replace("PORT", str(proxy.port)).strip("\n").replace("\n", "\r\n")
    with RawConnection(proxy.port, host) as connection:
        connection.send(lines.encode("latin-1") + b"\r\n\r\n" + body)
        response = connection.response()
        response.read_all()
        return response


def asked(proxy: Proxy, *fields: tuple[str, str]) -> Response:
    """The answer to a model call with these further headers."""
    headers = [*anthropic_headers(), *fields]
    return exchange(proxy.port, "POST", "/v1/messages", headers, ASK)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:PORT", "localhost:PORT", "[::1]:PORT", "LocalHost", "127.0.0.1", "cache.internal"],
)
def test_known_hosts_are_served(served: tuple[Proxy, Upstream], host: str) -> None:
    proxy, _ = served
    assert sent(proxy, f"GET /stats HTTP/1.1\nHost: {host}").status == 200
    assert asked(proxy, ("host", host.replace("PORT", str(proxy.port)))).status == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Host: evil.com", 403),
        ("Host: evil.com:PORT", 403),
        ("Host: 127.0.0.1:evil.com", 403),
        ("Host: localhost@evil.com", 403),
        ("Host: 127.0.0.1.evil.com:PORT", 403),
        ("Host: localhost.:PORT", 403),
        ("Host: localhost:", 403),
        ("Host: localhost:99999", 403),
        ("Host:", 403),
        ("Host: localhost, evil.com", 403),
        ("Host: localhost\nHost: evil.com", 400),  # RFC 9112, 3.2
        ("Host: localhost\nHost: localhost", 400),
        ("Accept: */*", 400),
    ],
)
def test_other_hosts_are_refused_on_every_route(
    served: tuple[Proxy, Upstream], lines: str, status: int
) -> None:
    """A page that rebinds DNS sends its own name."""
    proxy, upstream = served
    calls = upstream.call_count
    # A hit of this very request is there: nothing may answer from the cache either.
    assert asked(proxy).status == 200
    calls = upstream.call_count
    key = "\n".join(f"{name}: {value}" for name, value in anthropic_headers())
    length = f"content-length: {len(ASK)}"
    for path in ("/health", "/stats", "/metrics", "/monitor", "/cache/stats", "/v1/models", "/"):
        assert sent(proxy, f"GET {path} HTTP/1.1\n{lines}").status == status, path
    assert sent(proxy, f"POST /cache/clear HTTP/1.1\n{lines}\ncontent-length: 0").status == status
    ask = f"POST /v1/messages HTTP/1.1\n{lines}\n{key}\n{length}"
    assert sent(proxy, ask, ASK).status == status
    assert upstream.call_count == calls
    assert asked(proxy).header("x-cache") == "HIT"  # and nothing was cleared


def test_http_1_0_needs_a_known_host_too(served: tuple[Proxy, Upstream]) -> None:
    proxy, _ = served
    assert sent(proxy, "GET /stats HTTP/1.0").status == 403
    assert sent(proxy, "GET /stats HTTP/1.0\nHost: evil.com").status == 403
    assert sent(proxy, "GET /stats HTTP/1.0\nHost: localhost").status == 200


def test_a_refusal_tells_what_to_do_and_nothing_else(served: tuple[Proxy, Upstream]) -> None:
    proxy, _ = served
    refused = sent(proxy, "GET /stats HTTP/1.1\nHost: evil.com")
    document = json.loads(refused.body)
    assert document["error"]["type"] == "forbidden_host"
    assert "CACHE_ALLOW_HOSTS" in document["error"]["message"]
    assert refused.header("x-cache") == "ERROR"
    assert refused.header("connection") == "close"


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "http://evil.com"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"origin": "https://127.0.0.1:PORT"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://localhost:PORT"},  # the Host says 127.0.0.1
        {"origin": f"{APP}.evil.com"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.com", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:PORT", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.com", "x-cache-mode": "replay"},
    ],
)
def test_pages_of_other_sites_get_nothing(
    served: tuple[Proxy, Upstream], fields: dict[str, str]
) -> None:
    """BAR fault 7: foreign `Origin`, `text/plain` POST, all answered; `/stats` readable."""
    proxy, upstream = served
    assert asked(proxy).status == 200
    calls = upstream.call_count
    page = [(name, value.replace("PORT", str(proxy.port))) for name, value in fields.items()]
    answers = [
        exchange(proxy.port, "GET", path, page)
        for path in ("/health", "/stats", "/metrics", "/monitor", "/cache/stats", "/v1/models")
    ]
    answers.append(exchange(proxy.port, "POST", "/cache/clear", page))
    answers.append(exchange(proxy.port, "POST", "/cache/mode", page, b'{"cache":"off"}'))
    # What a page may send without asking first ("simple" requests of CORS).
    simple = [("content-type", "text/plain"), *page]
    answers.append(exchange(proxy.port, "POST", "/v1/messages", simple, ASK))
    answers.append(asked(proxy, *page))
    # And its asking.
    preflight = [("access-control-request-method", "POST"), *page]
    answers.append(exchange(proxy.port, "OPTIONS", "/v1/messages", preflight))
    for answer in answers:
        assert answer.status == 403
        assert [name for name, _ in answer.headers if name.startswith("access-control-")] == []
        assert b"calls" not in answer.body
    assert upstream.call_count == calls
    assert asked(proxy).header("x-cache") == "HIT"


def test_the_proxys_own_origin_and_clients_that_are_no_pages_are_served(
    served: tuple[Proxy, Upstream],
) -> None:
    proxy, _ = served
    for fields in (
        [],
        [("sec-fetch-site", "none")],
        [("sec-fetch-site", "same-origin")],
        [("origin", f"http://127.0.0.1:{proxy.port}"), ("sec-fetch-site", "same-origin")],
    ):
        answer = exchange(proxy.port, "GET", "/stats", fields)
        assert answer.status == 200
        assert answer.header("access-control-allow-origin") is None
        assert asked(proxy, *fields).status == 200


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173"])
def test_an_allowed_origin_may_ask_and_read(served: tuple[Proxy, Upstream], origin: str) -> None:
    proxy, _ = served
    page = [("origin", origin), ("sec-fetch-site", "cross-site")]
    preflight = exchange(
        proxy.port,
        "OPTIONS",
        "/v1/messages",
        [
            *page,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-api-key,anthropic-version"),
        ],
    )
    assert preflight.status == 204
    assert preflight.header("access-control-allow-origin") == origin
    assert preflight.header("access-control-allow-headers") == "x-api-key,anthropic-version"
    assert "POST" in (preflight.header("access-control-allow-methods") or "")
    for answer in (asked(proxy, *page), asked(proxy, *page)):
        assert answer.status == 200
        assert answer.header("access-control-allow-origin") == origin
        assert "origin" in (answer.header("vary") or "")
        assert "x-cache" in (answer.header("access-control-expose-headers") or "")
    # A refusal can be read as well: the page learns why.
    refused = exchange(proxy.port, "GET", "/nowhere", page)
    assert refused.status == 404
    assert refused.header("access-control-allow-origin") == origin


def test_what_was_allowed_to_one_origin_is_not_replayed_to_another(
    served: tuple[Proxy, Upstream],
) -> None:
    """An upstream's own CORS answer is stored; each hit gets the origin that asked."""
    proxy, upstream = served
    upstream.script(
        json_reply(message(), headers=(("access-control-allow-origin", APP), ("vary", "Origin")))
    )
    question = request("Whose origin?")

    def ask(*fields: tuple[str, str]) -> Response:
        return exchange(
            proxy.port, "POST", "/v1/messages", [*anthropic_headers(), *fields], question
        )

    assert ask(("origin", APP)).header("access-control-allow-origin") == APP
    other = ask(("origin", "http://localhost:5173"))
    assert other.header("x-cache") == "HIT"
    assert other.header("access-control-allow-origin") == "http://localhost:5173"


def test_no_origin_is_allowed_unless_it_is_named(proxy: ProxyFactory, upstream: Upstream) -> None:
    running = proxy()
    for origin in (APP, "null", "http://localhost", "*"):
        answer = exchange(running.port, "GET", "/stats", [("origin", origin)])
        assert answer.status == 403
        assert answer.header("access-control-allow-origin") is None
    assert upstream.call_count == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only 127.0.0.1 is there")
def test_on_every_address_the_sockets_own_is_known(proxy: ProxyFactory, upstream: Upstream) -> None:
    """CACHE_HOST=0.0.0.0 with a token: by the address that was reached, by loopback names and this
    machine's name, and by no other."""
    running = proxy(CACHE_HOST="0.0.0.0", CACHE_AUTH_TOKEN="tok-123")
    token = "x-cache-auth: tok-123"
    name = socket.gethostname()
    for host in ("127.0.0.1", "localhost", name):
        assert sent(running, f"GET /stats HTTP/1.1\nHost: {host}:PORT\n{token}").status == 200
    # All of 127.0.0.0/8 is this machine.
    reached = "127.0.0.9"
    own = f"GET /stats HTTP/1.1\nHost: {reached}:PORT\n{token}"
    assert sent(running, own, host=reached).status == 200
    for host in ("127.0.0.8", "evil.com", f"{name}.evil.com", "0.0.0.0"):
        other = f"GET /stats HTTP/1.1\nHost: {host}:PORT\n{token}"
        assert sent(running, other, host=reached).status == 403, host


@pytest.mark.skipif(sys.platform != "linux", reason="only 127.0.0.1 is there")
def test_on_every_address_of_both_families_ipv4_clients_are_known(proxy: ProxyFactory) -> None:
    running = proxy(CACHE_HOST="::", CACHE_AUTH_TOKEN="tok-123")
    token = "x-cache-auth: tok-123"
    for reached, host in (("127.0.0.9", "127.0.0.9"), ("::1", "[::1]"), ("127.0.0.1", "localhost")):
        own = f"GET /stats HTTP/1.1\nHost: {host}:PORT\n{token}"
        assert sent(running, own, host=reached).status == 200, host
    other = f"GET /stats HTTP/1.1\nHost: 127.0.0.8:PORT\n{token}"
    assert sent(running, other, host="127.0.0.9").status == 403
