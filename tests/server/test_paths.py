"""Whatever a client writes as its target, the request stays on the upstream's origin and under its
base path, and what goes there goes byte for byte; redirects are passed on, not followed.

BAR traps: httpx takes `//evil/x` and `http://evil/x` to that host and `/../x` out of the base path;
`follow_redirects` forwards `x-api-key` to another origin; `trust_env` reads proxies from the
environment; Hypercorn hands the app absolute-form targets and `//host/x` and decodes the path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.anthropic_wire import message, request
from support.proxy import Proxy, anthropic_headers, running_proxy
from support.raw import RawConnection, Response, exchange
from support.replies import Reply, json_reply
from support.upstream import Upstream, unused_port

if TYPE_CHECKING:
    from support.proxy import ProxyFactory

KEY = "sk-ant-stays-home"
BASE = "/gateway/claude"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Upstream]]:
    """A proxy whose upstream has a base path."""
    home = tmp_path_factory.mktemp("paths") / "home"
    with Upstream(json_reply(message())) as upstream:
        settings = {"CACHE_UPSTREAM_ANTHROPIC": f"{upstream.url}{BASE}/"}
        with running_proxy(home, settings) as proxy:
            yield proxy, upstream


def sent(proxy: Proxy, target: str, method: str = "GET", host: str = "localhost") -> Response:
    """The answer to a request whose target is exactly this."""
    with RawConnection(proxy.port) as connection:
        connection.send(
            f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nanthropic-version: 2023-06-01\r\n"
            f"x-api-key: {KEY}\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        response = connection.response(method)
        response.read_all()
        return response


@pytest.mark.parametrize(
    "target",
    [
        "//evil.com/v1/messages",
        "//evil.com@127.0.0.1/v1/messages",
        "///evil.com/v1/messages",
        "/../x",
        "/v1/../../x",
        "/..",
        "/./v1/messages",
        "/%2e%2e/x",
        "/%2E%2e/x",
        "/.%2E/x",
        "/v1/..%2fx",
        "/v1/%2e%2e%2f%2e%2e%2fx",
        "/v1/..%5cx",
        "/v1/models/..",
        "/anthropic/../x",
        "/anthropic/%2e%2e/x",
        "/\\evil.com/x",
        "\\\\evil.com\\x",
        "/v1\\..\\..\\x",
        "/v1/models#/../x",
        "/v1/models?a#b",
        "/v1/%00",
        "/v1/%0d%0aX-Api-Key:%20stolen",
        "*",
        "v1/messages",
        "@evil.com/x",
        ":80/x",
        "?x",
        "evil.com:443",
        "ftp://localhost/v1/models",
        "file:///etc/passwd",
        "http:/v1/models",
        "http:evil.com",
        "http://localhost//evil.com/x",
        "http://localhost/../x",
        "http://localhost/%2e%2e/x",
        "/v1/\xff",
        "/v1/\x01",
        "/v1/\x7f",
    ],
)
def test_targets_that_could_mean_another_place_are_refused(
    served: tuple[Proxy, Upstream], target: str
) -> None:
    proxy, upstream = served
    calls = upstream.call_count
    assert sent(proxy, target).status in (400, 404)
    assert upstream.call_count == calls


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.com/v1/models",
        "http://evil.com",
        "https://evil.com/v1/models",
        "HTTP://EVIL.COM/v1/models",
        "http://localhost@evil.com/v1/models",
        "http://evil.com@localhost/v1/models",
        "http://localhost:PORT:80/v1/models",
        "http://localhost.evil.com/v1/models",
        "http:///v1/models",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_absolute_form_names_this_proxy_or_is_refused(
    served: tuple[Proxy, Upstream], target: str
) -> None:
    """RFC 9112, 3.2.2: the target's authority counts, whatever the Host header says."""
    proxy, upstream = served
    calls = upstream.call_count
    assert sent(proxy, target.replace("PORT", str(proxy.port))).status == 403
    # And the other way round: a known name in the target doesn't make up for a foreign Host.
    own = f"http://localhost:{proxy.port}/v1/models"
    assert sent(proxy, own, host="evil.com").status == 403
    assert upstream.call_count == calls


def test_absolute_form_for_this_proxy_is_the_same_request(
    served: tuple[Proxy, Upstream],
) -> None:
    proxy, upstream = served
    for name in ("localhost", f"127.0.0.1:{proxy.port}", "[::1]", "LOCALHOST"):
        calls = upstream.call_count
        assert sent(proxy, f"http://{name}/v1/models?limit=3").header("x-cache") == "PASS"
        got = upstream.wait_for_calls(calls + 1)[calls].request
        assert got.target == f"{BASE}/v1/models?limit=3"
        assert got.header("host") == f"127.0.0.1:{upstream.port}"
        health = json.loads(sent(proxy, f"http://{name}/health").body)
        assert health["pid"] == proxy.pid


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models",
        "/v1/files/a%2Fb%2fc",
        "/v1/files/model%3A0",
        "/v1/files/%41%zz%",
        "/v1/files/a.b..c...",
        "/v1/...",
        "/v1/files//double//slash/",
        "/v1/x;p=1,2~'!$&()*+@:",
        "/v1/models?",
        "/v1/models?a=1&a=2&b=%2F..%2F&c=//evil.com/../x",
        "/v1/models??a=?/",
        "/v1/models?q=http://evil.com/",
        "/v1/models?%00%0d%0a",
        '/v1/models?a=[]{}|^`"<>\\',
        "/v1/%E2%82%AC",
        "/V1/Models",
        "/",
    ],
)
def test_odd_targets_arrive_byte_for_byte(served: tuple[Proxy, Upstream], target: str) -> None:
    proxy, upstream = served
    calls = upstream.call_count
    assert sent(proxy, target).header("x-cache") == "PASS"
    assert sent(proxy, f"/anthropic{target}").header("x-cache") == "PASS"
    for call in upstream.wait_for_calls(calls + 2)[calls:]:
        line = call.request.head.split(b"\r\n")[0]
        # RFC 9112, 3.2.1: an empty query is none, and may be left out.
        assert line.decode() in {
            f"GET {BASE}{target} HTTP/1.1",
            f"GET {BASE}{target.removesuffix('?')} HTTP/1.1",
        }
        assert call.request.header("x-api-key") == KEY


def test_a_very_long_target_arrives_whole_or_not_at_all(served: tuple[Proxy, Upstream]) -> None:
    proxy, upstream = served
    calls = upstream.call_count
    long = "/v1/files/" + "x" * 50_000
    assert sent(proxy, long).status == 200
    assert upstream.wait_for_calls(calls + 1)[calls].request.target == BASE + long
    with RawConnection(proxy.port) as connection:
        connection.send(b"GET /v1/files/" + b"x" * 300_000)
        assert connection.response().status == 431
    assert upstream.call_count == calls + 1


def test_an_encoded_spelling_of_a_cached_path_is_not_that_path(
    served: tuple[Proxy, Upstream],
) -> None:
    """Two readers could take it for different places, so it is neither cached nor answered from
    the cache."""
    proxy, _ = served
    for path in ("/v1/messages", "/v1/%6dessages", "/v1//messages", "/v1/messages/"):
        labels = [
            exchange(proxy.port, "POST", path, anthropic_headers(), request("Twice")).header(
                "x-cache"
            )
            for _ in range(2)
        ]
        assert labels == (["MISS", "HIT"] if path == "/v1/messages" else ["PASS", "PASS"]), path


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
@pytest.mark.parametrize("target", ["/v1/models", "*", "evil.com:443", "http://localhost/v1/x"])
def test_tunnels_and_echoes_are_refused(
    served: tuple[Proxy, Upstream], method: str, target: str
) -> None:
    """RFC 9110, 9.3.6 and 9.3.8: TRACE would bring the real key back to the client."""
    proxy, upstream = served
    calls = upstream.call_count
    assert sent(proxy, target, method).status == 501
    assert upstream.call_count == calls


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_redirects_are_passed_on_and_not_followed(
    served: tuple[Proxy, Upstream], status: int
) -> None:
    proxy, upstream = served
    with Upstream(json_reply(b"{}")) as elsewhere:
        location = f"{elsewhere.url}/v1/messages"
        calls = upstream.call_count
        reply = Reply(status=status, headers=(("location", location),))
        upstream.script(reply, reply)
        headers = anthropic_headers(KEY)
        prompt = request(f"Where is {status}?")
        answer = exchange(proxy.port, "POST", "/v1/messages", headers, prompt)
        assert (answer.status, answer.header("location")) == (status, location)
        passed = sent(proxy, "/v1/models")
        assert (passed.status, passed.header("location")) == (status, location)
        assert upstream.call_count == calls + 2
        assert elsewhere.connections == 0
        # It isn't stored either: the next one asks again.
        again = exchange(proxy.port, "POST", "/v1/messages", headers, prompt)
        assert (again.status, again.header("x-cache")) == (200, "MISS")


def test_no_proxy_of_the_environment_gets_the_key(proxy: ProxyFactory, upstream: Upstream) -> None:
    upstream.default = json_reply(message())
    with Upstream(json_reply(b"{}")) as elsewhere:
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        settings: dict[str, Any] = dict.fromkeys(names, elsewhere.url)
        running = proxy(ANTHROPIC_API_KEY_REAL="sk-ant-real", **settings)
        assert running.ask(request()).status == 200
        assert running.get("/v1/models", {"anthropic-version": "2023-06-01"}).status_code == 200
        assert upstream.call_count == 2
        assert elsewhere.connections == 0


def test_a_client_names_no_upstream(proxy: ProxyFactory, upstream: Upstream) -> None:
    """No header and no part of the request decides where it goes, but its path's provider."""
    upstream.default = json_reply(message())
    with Upstream(json_reply(b"{}")) as elsewhere:
        running = proxy()
        place = f"127.0.0.1:{elsewhere.port}"
        for name, value in {
            "x-forwarded-host": place,
            "forwarded": f"host={place}",
            "x-original-url": f"{elsewhere.url}/v1/messages",
            "x-rewrite-url": f"{elsewhere.url}/v1/messages",
            "x-upstream": elsewhere.url,
            "anthropic-base-url": elsewhere.url,
        }.items():
            assert running.ask(request(name), {name: value}).status == 200
        assert sent(running, "/v1/models", host=place).status == 200  # a name of this machine
        # Without its prefix this would be `//evil.com/x`.
        sent(running, "/anthropic//evil.com/x")
        assert not any(call.request.target.startswith("//") for call in upstream.calls)
        assert elsewhere.connections == 0


def test_with_one_upstream_for_all_unknown_paths_stay_there(
    proxy: ProxyFactory, upstream: Upstream
) -> None:
    """CACHE_UPSTREAM sends everything to one place; nothing escapes it."""
    upstream.default = json_reply(message())
    running = proxy(
        CACHE_UPSTREAM=f"{upstream.url}/base",
        CACHE_UPSTREAM_ANTHROPIC=f"http://127.0.0.1:{unused_port()}",
    )
    assert sent(running, "/props?x=1").status == 200
    assert sent(running, "/tokenize", "POST").status == 200
    assert [call.request.target for call in upstream.calls] == ["/base/props?x=1", "/base/tokenize"]
    for target in ("/../x", "//evil.com/x", "/%2e%2e/x", "/base/../../x"):
        assert sent(running, target).status == 400
    assert upstream.call_count == 2
