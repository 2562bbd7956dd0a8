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
import sys
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from support import leftovers
from support.cache import Cache, CacheFactory
from support.command import Cli
from support.proxy import Proxy, ProxyFactory, clean_environment
from support.upstream import Upstream, unused_port

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
INSIDE = ("exchange", "wire", "store", "sdk", "test_arrows.py")
"""Where tests run in this process alone, but for those marked `process`."""

REAL_HOME = Path.home() / ".llm-cache"


def pytest_configure(config: pytest.Config) -> None:
    """Take back SIGINT's default: `scripts/check &` in a script starts with SIGINT ignored, which
    every child would inherit, and what a test interrupts would never end. And note how things are
    before the run (see `support.leftovers`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Leftovers(), "leftovers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs in this process alone, which is what `scripts/check --quick` runs."""
    for item in items:
        place = item.path.relative_to(TESTS)
        if place.parts[0] in INSIDE and item.get_closest_marker("process") is None:
            item.add_marker("inside")


_inside: str | None = None
"""The test that runs now, when it may start no process."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold a test that is marked as running in this process alone to it."""
    global _inside
    _inside = item.nodeid if item.get_closest_marker("inside") else None
    try:
        return (yield)
    finally:
        _inside = None


def _no_process(event: str, arguments: tuple[object, ...]) -> None:
    if _inside is not None and event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
        pytest.fail(
            f"{_inside} starts a process ({arguments[0]}): mark it with pytest.mark.process"
        )


sys.addaudithook(_no_process)


class Leftovers:
    """Fails a run that leaves something running or lying about."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        os.environ[leftovers.MARK] = self._mark  # which workers inherit
        self._files = leftovers.changed_files(ROOT)
        self._home_was_there = REAL_HOME.exists()
        self._watcher = leftovers.watcher(self._mark)
        self._found: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look at what is there now; pytest-xdist has ended its workers by then."""
        left = leftovers.left_running(self._mark, but=self._watcher.pid)
        self._found += [f"left running, now killed: {pid} {what}" for pid, what in left.items()]
        if self._files is not None:
            files = leftovers.changed_files(ROOT) or set()
            self._found += [f"changed in the checkout: {line}" for line in files ^ self._files]
        if REAL_HOME.exists() and not self._home_was_there:
            self._found.append(f"made in the real home: {REAL_HOME}")
        if self._found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was left."""
        for line in sorted(self._found):
            terminalreporter.write_line(f"LEFT BEHIND: {line}", red=True)

    def pytest_unconfigure(self) -> None:
        """Let the watcher go."""
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()


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
