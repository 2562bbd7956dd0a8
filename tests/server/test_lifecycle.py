"""From the start to the end of the server's process: sockets, lock, signals, exit codes.

The commands around it (`on`, `off`, `stop`, ...) are tests/cli's.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.anthropic_wire import message, message_of_size, request, stream
from support.proxy import COMMAND, MonitorFeed, Proxy, anthropic_headers, clean_environment
from support.raw import Ending, RawConnection, exchange, request_bytes
from support.replies import Gate, json_reply, sse_reply
from support.upstream import Upstream, unused_port, wait_until

if TYPE_CHECKING:
    from support.proxy import ProxyFactory

PIECES = stream("An answer that takes its time")
AT_ONCE = 10.0
"""Seconds: far below the 30 that answers in flight are given, far above what a stop takes."""


def ended(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """What became of a proxy that isn't expected to run."""
    return subprocess.run(
        COMMAND,
        env=clean_environment(home, settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def slow_answer(upstream: Upstream) -> Gate:
    """The next answer's second half waits for the gate."""
    gate = Gate()
    upstream.script(sse_reply([*PIECES[:3], gate, *PIECES[3:]]))
    return gate


def begun(proxy: Proxy, connection: RawConnection, prompt: str = "Slow") -> None:
    connection.send(
        request_bytes(
            "POST",
            "/v1/messages",
            "localhost",
            anthropic_headers(),
            request(prompt, stream=True),
        )
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_in_flight_finish(
    proxy: ProxyFactory, upstream: Upstream, number: signal.Signals
) -> None:
    """Nothing new is accepted meanwhile; the exit code is 0; the answer was stored."""
    gate = slow_answer(upstream)
    running = proxy()
    with running.connect() as connection, running.connect() as idle:
        idle.request("GET", "/health").read_all()
        begun(running, connection)
        answer = connection.response()
        answer.read_until(PIECES[2])
        running.signal(number)
        idle.wait_closed()  # the stop has begun
        wait_until(lambda: not running.healthy(), "new clients to be turned away", AT_ONCE)
        assert connection.is_quiet()
        gate.release()
        assert answer.read_all() == b"".join(PIECES)
        assert answer.ending is Ending.COMPLETE
        assert running.wait_exit() == 0
    again = proxy(CACHE_PORT=str(running.port))
    assert again.ask(request("Slow", stream=True)).header("x-cache") == "HIT"


def test_a_second_signal_ends_at_once_whatever_clients_and_upstreams_do(
    proxy: ProxyFactory, upstream: Upstream
) -> None:
    """A stalled upstream, a client that doesn't read, one that doesn't finish its request. Who was
    in the middle of an answer sees it cut, not ended."""
    slow_answer(upstream)
    large = message_of_size(12_000_000)
    upstream.default = json_reply(large)
    running = proxy()
    with ExitStack() as stack:
        stalled, unread, unfinished, half_head = (
            stack.enter_context(running.connect()) for _ in range(4)
        )
        begun(running, stalled)
        answer = stalled.response()
        answer.read_until(PIECES[2])
        begun(running, unread, "Large")
        unread.response().read(100)
        unfinished.send(
            b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        )
        half_head.send(b"POST /v1/mess")
        running.signal(signal.SIGTERM)
        half_head.wait_closed()
        assert running.running
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait_exit() == 0
        assert time.monotonic() - began < AT_ONCE
        assert answer.read_all() == b"".join(PIECES[:3])
        assert answer.ending in (Ending.CUT, Ending.RESET)
    upstream.wait_all_closed()
    assert "stopped" in running.log()


def test_who_only_waits_or_watches_does_not_delay_the_stop(
    proxy: ProxyFactory, upstream: Upstream
) -> None:
    """Idle connections, half a head, and /monitor, whose stream ends as it should."""
    running = proxy()
    feed = MonitorFeed(running.port)
    with ExitStack() as stack:
        idle, silent, half = (stack.enter_context(running.connect()) for _ in range(3))
        idle.request("GET", "/health").read_all()
        half.send(b"GET /stats HTTP/1.1\r\nHost: local")
        watching = stack.enter_context(running.connect())
        monitor = watching.request("GET", "/monitor")
        monitor.read_until(b"connected")
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait_exit() == 0
        assert time.monotonic() - began < AT_ONCE
        monitor.read_all()
        assert monitor.ending is Ending.COMPLETE
        with pytest.raises(EOFError):
            feed.next()
        for connection in (idle, silent, half):
            assert connection.wait_closed() == b""
    feed.close()


def test_hits_of_the_last_moment_are_counted(proxy: ProxyFactory, upstream: Upstream) -> None:
    upstream.default = json_reply(message())
    running = proxy()
    for _ in range(5):
        running.ask(request())
    running.signal(signal.SIGTERM)  # hits are only in memory for up to half a second
    assert running.wait_exit() == 0
    figures = proxy().stats()
    assert (figures["calls"], figures["hits"], figures["misses"]) == (5, 4, 1)


def test_a_taken_port_is_a_clear_error(home: Path) -> None:
    """BAR fault 13: a taken port prints "ready". Either address counts: `localhost` may be both."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((address, 0), family=family) as taken:
            port = taken.getsockname()[1]
            result = ended(home, CACHE_PORT=str(port))
        assert result.returncode == 1
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        assert str(port) in lines[0]
        assert "CACHE_PORT" in lines[0]
        assert "listens on" not in result.stdout
    assert pid_in(home) in (None, "")  # and the home isn't taken by who failed


def test_of_two_that_start_at_once_on_one_port_one_runs(tmp_path: Path, upstream: Upstream) -> None:
    """Two sockets can be bound to one port as long as neither listens."""
    port = str(unused_port())
    settings = {"CACHE_PORT": port, "CACHE_UPSTREAM_ANTHROPIC": upstream.url}
    homes = [tmp_path / name / "home" for name in ("one", "two")]
    for home in homes:
        home.parent.mkdir()
    starting = [Proxy(home, settings).start(wait=False) for home in homes]
    try:
        wait_until(lambda: sum(one.running for one in starting) == 1, "one to give way", 20)
        winner, loser = sorted(starting, key=lambda one: not one.running)
        winner.wait_ready()
        assert loser.wait_exit() == 1
        assert "taken by another program" in loser.output()
        assert len(loser.output().strip().splitlines()) == 1
    finally:
        for one in starting:
            one.close()


def test_a_home_has_one_proxy(proxy: ProxyFactory, home: Path) -> None:
    """The second says who is there, touches nothing, and the first goes on."""
    first = proxy()
    result = ended(home, CACHE_PORT=str(unused_port()))
    assert result.returncode == 1
    assert str(first.pid) in result.stderr
    assert "already" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert first.healthy()
    assert pid_in(home) == f"{first.pid}\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "LOCALHOST"])
def test_localhost_is_both_of_its_addresses(proxy: ProxyFactory, host: str) -> None:
    """SPEC 3: `localhost` clients on IPv4 and IPv6 both work."""
    running = proxy(CACHE_HOST=host)
    for address in ("127.0.0.1", "::1"):
        assert exchange(running.port, "GET", "/health", host=address).status == 200
    assert f"http://localhost:{running.port}" in running.output().lower()


def test_another_loopback_address_is_only_itself(proxy: ProxyFactory, home: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only 127.0.0.1 is there")
    running = proxy(start=False, CACHE_HOST="127.0.0.5")
    running.start(wait=False)
    running.wait_logged("listens on")
    with RawConnection(running.port, "127.0.0.5") as connection:
        assert connection.request("GET", "/health").status == 200
    with pytest.raises(ConnectionRefusedError):
        RawConnection(running.port)


@pytest.mark.parametrize(
    "content", ["", "\n", "999999999\n", "OWN", "not a pid", "\x00" * 8], ids=repr
)
def test_a_stale_pid_file_heals(proxy: ProxyFactory, home: Path, content: str) -> None:
    """Even one that names a process that lives: who holds the lock is the proxy, nobody else."""
    home.mkdir(mode=0o700)
    (home / "proxy.pid").write_text(f"{os.getpid()}\n" if content == "OWN" else content)
    running = proxy()
    assert pid_in(home) == f"{running.pid}\n"
    running.stop()
    # Not emptied: the next start has room for its pid even on a disk that is full by then.
    assert (pid_in(home) or "").isspace()


def test_after_a_kill_the_next_start_is_as_any(proxy: ProxyFactory, upstream: Upstream) -> None:
    """Same home, same port, at once, with clients still connected to the old one."""
    upstream.default = json_reply(message())
    first = proxy()
    assert first.ask(request()).header("x-cache") == "MISS"
    with first.connect() as connection:
        connection.request("GET", "/health").read_all()
        first.kill()
        second = proxy(CACHE_PORT=str(first.port))
        assert second.ask(request()).header("x-cache") == "HIT"
        assert pid_in(second.home) == f"{second.pid}\n"


@pytest.mark.parametrize("what", ["a file", "in a file", "not writable"])
def test_a_home_that_can_not_be_is_a_clear_error(tmp_path: Path, what: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    home = {"a file": file, "in a file": file / "home", "not writable": Path("/proc/home")}[what]
    environment = {**clean_environment(home, {"CACHE_PORT": str(unused_port())})}
    environment["HOME"] = str(tmp_path)
    result = subprocess.run(
        COMMAND, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode in (1, 2)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert str(home)[:60] in lines[0]  # a long one is cut


def test_the_environment_of_the_person_is_no_setting(proxy: ProxyFactory, home: Path) -> None:
    """The proxy takes nothing to be code from where it is started."""
    trap = home.parent / "llm_cache.py"
    trap.write_text("raise SystemExit('imported from the working directory')")
    (home.parent / "sitecustomize.py").write_text("raise SystemExit('sitecustomize')")
    result = subprocess.run(
        [sys.executable, "-P", "-m", "llm_cache", "--help"],
        cwd=home.parent,
        env=clean_environment(home),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def pid_in(home: Path) -> str | None:
    try:
        return (home / "proxy.pid").read_text()
    except FileNotFoundError:
        return None
