"""CACHE_AUTH_TOKEN on the running proxy: every route but `/health` needs it (SPEC 3 and 8)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.anthropic_wire import message, request
from support.proxy import COMMAND, Proxy, clean_environment, running_proxy
from support.raw import RawConnection, Response, exchange
from support.replies import json_reply
from support.upstream import Upstream, unused_port

if TYPE_CHECKING:
    from support.proxy import ProxyFactory

TOKEN = "tok-5f2c9a7e"
REAL_KEY = "sk-ant-real-0001"
VERSION = ("anthropic-version", "2023-06-01")
ROUTES = (
    ("GET", "/stats"),
    ("GET", "/metrics"),
    ("GET", "/monitor"),
    ("GET", "/cache/stats"),
    ("POST", "/cache/clear"),
    ("POST", "/cache/mode"),
    ("DELETE", f"/cache/entry?key={'0' * 64}"),
    ("GET", "/cache/nowhere"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/anthropic/v1/messages"),
    ("GET", "/v1/models"),
    ("GET", "/v1/files/file_1"),
    ("GET", "/"),
    ("GET", "/nowhere"),
    ("GET", "/healthANYTHING"),
    ("GET", "/health/"),
    ("OPTIONS", "/v1/messages"),
    ("HEAD", "/stats"),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Upstream]]:
    """A proxy with a token, where clients bring their own keys."""
    home = tmp_path_factory.mktemp("token") / "home"
    with Upstream(json_reply(message())) as upstream:
        settings = {"CACHE_UPSTREAM_ANTHROPIC": upstream.url, "CACHE_AUTH_TOKEN": TOKEN}
        with running_proxy(home, settings) as proxy:
            yield proxy, upstream


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Upstream]]:
    """A proxy with a token and a real key, which clients may send the token in place of."""
    home = tmp_path_factory.mktemp("keyed") / "home"
    with Upstream(json_reply(message())) as upstream:
        settings = {
            "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
            "CACHE_AUTH_TOKEN": TOKEN,
            "ANTHROPIC_API_KEY_REAL": REAL_KEY,
        }
        with running_proxy(home, settings) as proxy:
            yield proxy, upstream


def ask(proxy: Proxy, *fields: tuple[str, str], prompt: str = "Hello") -> Response:
    """The answer to a model call with exactly these headers."""
    headers = [VERSION, ("content-type", "application/json"), *fields]
    return exchange(proxy.port, "POST", "/v1/messages", headers, request(prompt))


def wrong_tokens() -> list[list[tuple[str, str]]]:
    """Headers that hold no right token, or hold it where it doesn't count."""
    return [
        [],
        [("x-cache-auth", "")],
        [("x-cache-auth", TOKEN[:-1])],
        [("x-cache-auth", TOKEN + "0")],
        [("x-cache-auth", TOKEN.upper())],
        [("x-cache-auth", "tök-5f2c9a7e")],
        [("x-cache-auth", f"Bearer {TOKEN}")],
        [("x-cache-auth", f'"{TOKEN}"')],
        [("x-cache-auth", TOKEN), ("x-cache-auth", TOKEN)],
        [("x-cache-auth", TOKEN), ("x-cache-auth", "wrong")],
        [("x-cache-token", TOKEN)],
        [("proxy-authorization", f"Bearer {TOKEN}")],
        [("cookie", f"x-cache-auth={TOKEN}")],
    ]


def test_every_route_but_health_needs_it(served: tuple[Proxy, Upstream]) -> None:
    """BAR fault 12: `/healthANYTHING` isn't `/health`."""
    proxy, upstream = served
    for method, path in ROUTES:
        answer = exchange(proxy.port, method, path, [VERSION, ("x-api-key", "sk-ant-x")])
        assert answer.status == 401, (method, path)
        if method != "HEAD":
            assert json.loads(answer.body)["error"]["type"] == "authentication_error"
    assert exchange(proxy.port, "GET", "/health").status == 200
    assert exchange(proxy.port, "HEAD", "/health").status == 200
    assert upstream.call_count == 0


def test_wrong_tokens_are_refused_and_ask_nobody(served: tuple[Proxy, Upstream]) -> None:
    proxy, upstream = served
    key = ("x-api-key", "sk-ant-mine")
    assert ask(proxy, key, ("x-cache-auth", TOKEN), prompt="Stored").status == 200
    assert ask(proxy, key, ("x-cache-auth", TOKEN), prompt="Stored").header("x-cache") == "HIT"
    calls = upstream.call_count
    for fields in wrong_tokens():
        # Neither from upstream nor from the cache.
        assert ask(proxy, key, *fields, prompt="Stored").status == 401, fields
        assert exchange(proxy.port, "GET", "/stats", fields).status == 401, fields
    assert upstream.call_count == calls


def test_the_right_token_opens_every_route(served: tuple[Proxy, Upstream]) -> None:
    proxy, _ = served
    token = [("x-cache-auth", TOKEN), VERSION]
    for method, path in ROUTES:
        if path == "/monitor":
            with RawConnection(proxy.port) as connection:
                assert connection.request(method, path, token).status == 200
        else:
            body = b'{"cache":"on"}' if path == "/cache/mode" else b""
            status = exchange(proxy.port, method, path, token, body).status
            assert status not in (401, 403), (method, path)


def test_in_a_keys_place_it_counts_only_with_a_real_key(
    served: tuple[Proxy, Upstream], keyed: tuple[Proxy, Upstream]
) -> None:
    """With no real key, what stands there is the client's own key and goes upstream."""
    places = [("x-api-key", TOKEN), ("authorization", f"Bearer {TOKEN}")]
    for place in places:
        assert ask(served[0], place).status == 401
        assert exchange(served[0].port, "GET", "/stats", [place]).status == 401
        assert ask(keyed[0], place).status == 200
        assert exchange(keyed[0].port, "GET", "/stats", [place]).status == 200
    wrong = [
        ("x-api-key", REAL_KEY),
        ("x-api-key", TOKEN[:-1]),
        ("x-api-key", ""),
        ("x-api-key", "tök-5f2c9a7e"),
        ("authorization", f"Basic {TOKEN}"),
        ("authorization", f"Bearer {REAL_KEY}"),
        ("authorization", "Bearer"),
    ]
    for place in wrong:
        assert ask(keyed[0], place).status == 401, place
        assert exchange(keyed[0].port, "GET", "/stats", [place]).status == 401, place


def test_it_never_goes_upstream(
    served: tuple[Proxy, Upstream], keyed: tuple[Proxy, Upstream]
) -> None:
    """BAR fault 8: llm-cache-proxy forwards its own `x-cache-auth`."""
    for number, (proxy, upstream) in enumerate((served, keyed)):
        calls = upstream.call_count
        ways = [
            [("x-cache-auth", TOKEN), ("x-api-key", "sk-ant-mine")],
            [("x-cache-auth", TOKEN), ("x-api-key", TOKEN)],
            [("x-cache-auth", TOKEN), ("authorization", f"Bearer {TOKEN}")],
            [("x-cache-auth", TOKEN), ("proxy-authorization", TOKEN)],
            [("x-cache-auth", TOKEN), ("cookie", f"a={TOKEN}")],
        ]
        for at, fields in enumerate(ways):
            # A path that is passed through as well as one that is cached.
            assert ask(proxy, *fields, prompt=f"{number} {at}").status == 200
            passed = exchange(proxy.port, "GET", f"/v1/models?{at}", [VERSION, *fields])
            assert passed.status == 200
        assert upstream.call_count == calls + 2 * len(ways)
        for call in upstream.calls[calls:]:
            assert TOKEN.encode() not in call.request.head + call.request.body


def test_a_real_key_takes_the_tokens_place_upstream(keyed: tuple[Proxy, Upstream]) -> None:
    proxy, upstream = keyed
    calls = upstream.call_count
    ask(proxy, ("x-api-key", TOKEN), prompt="Whose key?")
    ask(proxy, ("authorization", f"Bearer {TOKEN}"), prompt="And whose now?")
    for call in upstream.wait_for_calls(calls + 2)[calls:]:
        assert call.request.header("x-api-key") == REAL_KEY
        assert call.request.header("authorization") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "proxy.example.com"])
def test_a_host_others_can_reach_is_refused_without_it(home: Path, host: str) -> None:
    """SPEC 8: one clear line, exit code 2, and nothing listens."""
    settings = {"CACHE_HOST": host, "CACHE_PORT": str(unused_port())}
    ended = subprocess.run(
        COMMAND,
        env=clean_environment(home, settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert f"CACHE_HOST={host}" in lines[0]
    assert "CACHE_AUTH_TOKEN" in lines[0]


def test_the_token_is_on_no_command_line(proxy: ProxyFactory) -> None:
    """Given by the environment, it is in no process list."""
    running = proxy(CACHE_AUTH_TOKEN=TOKEN)
    listed = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(running.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "llm_cache" in listed.stdout
    assert TOKEN not in listed.stdout
    assert sys.executable in listed.stdout
