"""A browser at the proxy's address gets a page of ours; nothing it asks for goes upstream."""

from __future__ import annotations

import re

import pytest
from support.proxy import ProxyFactory
from support.raw import Response, exchange
from support.replies import json_reply
from support.upstream import Upstream

REAL_KEY = "sk-ant-real-canary-0123456789"
BROWSER = [
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "none"),
    ("sec-fetch-dest", "document"),
]


def page_of(port: int, headers: list[tuple[str, str]], target: str = "/") -> Response:
    return exchange(port, "GET", target, headers)


@pytest.mark.parametrize(
    "headers",
    [
        BROWSER,
        [("accept", "text/html")],
        [("accept", "*/*;q=0.1, TEXT/HTML;level=1")],
        [("accept", "*/*"), ("sec-fetch-mode", "navigate")],
    ],
)
def test_a_browser_gets_our_page_and_upstream_hears_nothing(
    upstream: Upstream, proxy: ProxyFactory, headers: list[tuple[str, str]]
) -> None:
    one = proxy(CACHE_UPSTREAM=upstream.url, ANTHROPIC_API_KEY_REAL=REAL_KEY)
    for target in ("/", "/?utm_source=x", f"http://127.0.0.1:{one.port}/"):
        answer = page_of(one.port, headers, target)
        assert answer.status == 200
        assert answer.header("content-type") == "text/html; charset=utf-8"
        assert answer.header("cache-control") == "no-store"
        text = answer.body.decode()
        assert f"ANTHROPIC_BASE_URL=http://127.0.0.1:{one.port}<" in text
        assert 'href="/stats"' in text
        assert 'href="/health"' in text
        assert REAL_KEY[:12] not in text
    head = exchange(one.port, "HEAD", "/", headers)
    assert (head.status, head.body) == (200, b"")
    assert upstream.call_count == 0


def test_the_page_runs_nothing_and_loads_nothing(upstream: Upstream, proxy: ProxyFactory) -> None:
    answer = page_of(proxy().port, BROWSER)
    policy = answer.header("content-security-policy") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = answer.body.decode()
    assert not re.search(r"<script|\son\w+=|javascript:|src=|<link|@import|url\(", text)
    assert set(re.findall(r'href="([^"]*)"', text)) == {"/stats", "/health", "/metrics"}


def test_the_page_names_the_address_the_browser_knows(
    upstream: Upstream, proxy: ProxyFactory
) -> None:
    one = proxy(CACHE_ALLOW_HOSTS="cache.team.example")
    named = page_of(one.port, [("host", "cache.team.example"), *BROWSER]).body.decode()
    assert "ANTHROPIC_BASE_URL=http://cache.team.example<" in named


@pytest.mark.parametrize("target", ["/favicon.ico", "/robots.txt"])
@pytest.mark.parametrize("headers", [BROWSER, [("accept", "image/avif,image/*")], []])
def test_what_browsers_and_crawlers_ask_by_themselves_is_not_there(
    upstream: Upstream, proxy: ProxyFactory, target: str, headers: list[tuple[str, str]]
) -> None:
    one = proxy(CACHE_UPSTREAM=upstream.url, ANTHROPIC_API_KEY_REAL=REAL_KEY)
    for method in ("GET", "HEAD"):
        assert exchange(one.port, method, target, headers).status == 404
    assert upstream.call_count == 0


def test_api_clients_at_the_root_go_upstream_as_ever(
    upstream: Upstream, proxy: ProxyFactory
) -> None:
    """Claude Code sends `HEAD /` before its first request."""
    upstream.default = json_reply(b'{"ok": true}')
    one = proxy(CACHE_UPSTREAM=upstream.url)
    for method, headers in (
        ("HEAD", [("accept", "*/*")]),
        ("HEAD", []),
        ("GET", [("accept", "application/json")]),
        ("GET", [("accept", "*/*"), ("sec-fetch-mode", "cors")]),
        ("POST", BROWSER),
    ):
        answer = exchange(one.port, method, "/", headers)
        assert (answer.status, answer.header("x-cache")) == (200, "PASS"), (method, headers)
    assert upstream.call_count == 5


def test_the_page_is_behind_the_guard_and_the_token(
    upstream: Upstream, proxy: ProxyFactory
) -> None:
    one = proxy(CACHE_AUTH_TOKEN="token", CACHE_UPSTREAM=upstream.url)
    for target in ("/", "/favicon.ico", "/robots.txt"):
        assert page_of(one.port, BROWSER, target).status == 401
    assert page_of(one.port, [*BROWSER, ("x-cache-auth", "token")]).status == 200
    elsewhere = [(name, value) for name, value in BROWSER if name != "sec-fetch-site"]
    token = ("x-cache-auth", "token")
    assert page_of(one.port, [*elsewhere, ("sec-fetch-site", "cross-site"), token]).status == 403
    assert page_of(one.port, [("host", "rebound.example"), *BROWSER, token]).status == 403
    assert upstream.call_count == 0


def test_a_base_url_without_v1_is_told_in_the_answer_and_once_in_the_log(
    upstream: Upstream, proxy: ProxyFactory
) -> None:
    one = proxy()
    for _ in range(3):
        answer = one.post("/messages", b"{}", {"x-api-key": "sk-ant-x"})
        assert answer.status_code == 404
        assert "has to end with /v1" in answer.json()["error"]["message"]
    assert one.post("/unheard-of", b"{}").status_code == 404
    log = one.wait_logged("has to end with /v1")
    assert log.count("has to end with /v1") == 1
    assert upstream.call_count == 0
