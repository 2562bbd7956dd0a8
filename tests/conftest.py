"""Fixtures of all tests: a home, an upstream, and the proxy as a process of its own.

A test that wants several proxies calls `proxy` several times:

    def test_x(upstream, proxy):
        upstream.default = json_reply(message())
        first = proxy()
        second = proxy(CACHE_TTL_SEC="1")
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cache import Cache, CacheFactory
from support.command import Cli
from support.proxy import Proxy, ProxyFactory, clean_environment
from support.upstream import Upstream, unused_port


def pytest_configure() -> None:
    """Take back SIGINT's default. `scripts/check &` in a script starts with SIGINT ignored, which
    every child would inherit: what a test interrupts would never end."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that doesn't exist yet. It is `LLM_CACHE_HOME` of the test's own process too, whose
    environment is cleaned of everything that could reach a real setting or host."""
    path = tmp_path / "home"
    environment = clean_environment(path)
    for name in list(os.environ):
        if _is_ours_or_a_client_setting(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", environment["HOME"])
    monkeypatch.setenv("LLM_CACHE_HOME", environment["LLM_CACHE_HOME"])
    return path


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A running upstream. A fault inside its script fails the test."""
    with Upstream() as server:
        yield server
    assert not server.errors, server.errors


@pytest.fixture
def proxy(home: Path, upstream: Upstream) -> Iterator[ProxyFactory]:
    """A factory of proxies in front of `upstream`. At the end each is stopped, by its pid, and must
    have logged no traceback."""
    started: list[Proxy] = []

    def make(*, start: bool = True, home: Path | None = home, **settings: str) -> Proxy:
        assert home is not None
        one = Proxy(home, {"CACHE_UPSTREAM_ANTHROPIC": upstream.url, **settings})
        started.append(one)
        return one.start() if start else one

    yield make
    failures: list[str] = []
    for one in started:
        try:
            one.close()
        except TimeoutError as error:
            failures.append(str(error))
    for one in started:
        if trouble := one.trouble():
            failures.append("\n".join([*trouble, one.output(), one.log()]))
    assert not failures, "\n".join(failures)


@pytest.fixture
def cache(home: Path, upstream: Upstream) -> Iterator[CacheFactory]:
    """A factory of caches in this process, in front of `upstream`. At the end each is closed, and
    must have gone wrong nowhere."""
    opened: list[Cache] = []

    def make(**settings: str) -> Cache:
        one = Cache(home, {"CACHE_UPSTREAM_ANTHROPIC": upstream.url, **settings})
        opened.append(one)
        return one.start()

    yield make
    for one in opened:
        one.stop()
    failures = ["\n".join([*trouble, one.log()]) for one in opened if (trouble := one.trouble())]
    assert not failures, "\n".join(failures)


@pytest.fixture
def cli(home: Path, upstream: Upstream) -> Iterator[Cli]:
    """The command with a fresh home, a free port and an upstream; its proxy is gone at the end."""
    port = str(unused_port())
    one = Cli(home, {"CACHE_PORT": port, "CACHE_UPSTREAM_ANTHROPIC": upstream.url})
    yield one
    pid = one.pid()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    log = home / "proxy.log"
    assert not log.exists() or "Traceback" not in log.read_text()


def _is_ours_or_a_client_setting(name: str) -> bool:
    return (
        name.startswith(
            ("CACHE_", "LLM_CACHE_", "ANTHROPIC_", "OPENAI_", "GOOGLE_", "GEMINI_", "AWS_")
        )
        or "_API_KEY" in name
        or name.lower().endswith("_proxy")
    )
