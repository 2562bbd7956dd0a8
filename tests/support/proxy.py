"""The product as a process of its own: `python -m llm_cache run` on a free port, seen from outside.

What always holds here:
- The process has a clean environment: nothing of the caller's settings, keys, proxies or home.
- Waiting is for facts (`/health` answers, the process has ended), each with a deadline.
- Only the process started here is ever signalled, by its pid.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

from support.leftovers import MARK
from support.raw import RawConnection, Response, exchange
from support.upstream import unused_port, wait_until

COMMAND = (sys.executable, "-m", "llm_cache", "run")

START_DEADLINE = 20.0
"""Seconds until `/health` must answer. Generous: the machine may be busy."""

STOP_DEADLINE = 15.0
"""Seconds a stopped proxy may take to end."""

_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ", "SYSTEMROOT", MARK)
TROUBLE = (
    "Traceback (most recent call last)",
    "was never retrieved",
    "was never awaited",
    "Task was destroyed but it is pending",
    "ResourceWarning",
)
"""What no log may hold."""


def clean_environment(home: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment with `LLM_CACHE_HOME` and `settings`, and nothing else of the caller's that
    could change what llm-cache or an official client does."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        **kept,
        "HOME": str(home.parent),
        "LLM_CACHE_HOME": str(home),
        "NO_COLOR": "1",
        **(settings or {}),
    }


class Proxy:
    """One run of the proxy. `settings` are environment variables; the port is chosen here."""

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, str] | None = None,
        *,
        arguments: Sequence[str] = (),
        output: Path | None = None,
    ) -> None:
        self.home = home
        self.settings = dict(settings or {})
        self.port = int(self.settings.setdefault("CACHE_PORT", str(unused_port())))
        self.output_file = output or home.parent / f"proxy-{self.port}.out"
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(
            base_url=self.url, trust_env=False, timeout=30, headers={"accept-encoding": "identity"}
        )

    @property
    def url(self) -> str:
        """The base URL clients are given."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    # Life

    def start(self, *, wait: bool = True) -> Self:
        """Start the process; with `wait`, return when `/health` answers."""
        assert not self.running, "already started"
        with self.output_file.open("ab") as output:
            self._process = subprocess.Popen(
                [*COMMAND, *self._arguments],
                env=clean_environment(self.home, self.settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.home.parent,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout: float = START_DEADLINE) -> None:
        """Block until `/health` answers; a process that ends before is an error."""
        deadline = time.monotonic() + timeout
        while not self.healthy():
            if not self.running:
                raise RuntimeError(f"the proxy ended at its start:\n{self.output()}")
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"no answer on {self.url}/health:\n{self.output()}")
            time.sleep(0.01)

    def healthy(self) -> bool:
        """True when this process itself answers on `/health`."""
        try:
            health = exchange(self.port, "GET", "/health", deadline=2)
            return health.status == 200 and json.loads(health.body)["pid"] == self.pid
        except (OSError, EOFError):
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process."""
        if self.running:
            assert self._process is not None
            self._process.send_signal(number)

    def wait_exit(self, timeout: float = STOP_DEADLINE) -> int:
        """Block until the process has ended; its exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    def stop(self) -> int:
        """SIGTERM and wait; the exit code. A proxy that doesn't end in time is killed, and that is
        an error."""
        if self._process is None:
            return 0
        self.signal(signal.SIGTERM)
        try:
            return self.wait_exit()
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"the proxy did not stop:\n{self.output()}") from None

    def kill(self) -> None:
        """SIGKILL and wait."""
        self.signal(signal.SIGKILL)
        self.wait_exit()

    def close(self) -> None:
        """End the process if it still runs, and everything held here."""
        try:
            self.stop()
        finally:
            self._client.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What it says

    def output(self) -> str:
        """Everything the process wrote to stdout and stderr so far."""
        return read_text(self.output_file)

    def log(self) -> str:
        """`proxy.log` so far, or what CACHE_LOG_FILE names."""
        named = self.settings.get("CACHE_LOG_FILE", "")
        return read_text(Path(named) if named not in ("", "none") else self.home / "proxy.log")

    def wait_logged(self, text: str, timeout: float = 10.0) -> str:
        """Block until `text` is in the log or the output; the log."""
        wait_until(lambda: text in self.log() or text in self.output(), f"{text!r} logged", timeout)
        return self.log()

    def trouble(self) -> list[str]:
        """Lines of log and output that no run may have: tracebacks, forgotten tasks."""
        lines = (self.output() + self.log()).splitlines()
        return [line for line in lines if any(mark in line for mark in TROUBLE)]

    # Requests

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """`GET path`."""
        return self._client.get(path, headers=headers)

    def post(
        self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """`POST path` with these bytes, as JSON unless `headers` says otherwise."""
        return self._client.post(
            path, content=body, headers={"content-type": "application/json", **(headers or {})}
        )

    def ask(self, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
        """`POST /v1/messages` as a client with an API key, on a connection of its own, with the
        answer's bytes untouched."""
        return exchange(
            self.port,
            "POST",
            "/v1/messages",
            [*anthropic_headers(), *(headers or {}).items()],
            body,
            deadline=30,
        )

    def connect(self, host: str = "127.0.0.1", deadline: float = 10.0) -> RawConnection:
        """A raw connection to the proxy."""
        return RawConnection(self.port, host, deadline)

    def stats(self) -> dict[str, Any]:
        """`GET /stats`, parsed."""
        answer = self.get("/stats")
        answer.raise_for_status()
        parsed: dict[str, Any] = answer.json()
        return parsed


class ProxyFactory(Protocol):
    """Starts a proxy in the test's home; keyword arguments are settings. With `start` False it is
    only prepared."""

    def __call__(
        self, *, start: bool = True, home: Path | None = None, **settings: str
    ) -> Proxy: ...


def anthropic_headers(key: str = "sk-ant-test-key") -> list[tuple[str, str]]:
    """The headers every Anthropic client sends."""
    return [
        ("content-type", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("x-api-key", key),
    ]


class MonitorFeed:
    """A connection to `/monitor`; its events as parsed JSON, in order."""

    def __init__(
        self, port: int, headers: Sequence[tuple[str, str]] = (), deadline: float = 600
    ) -> None:
        self._connection = RawConnection(port, deadline=deadline)
        self._response = self._connection.request("GET", "/monitor", headers)
        self._read = 0
        if self._response.status != 200:
            raise RuntimeError(f"/monitor answered {self._response.status}")

    def next(self) -> dict[str, Any]:
        """The next event that is a call (it has a `seq`)."""
        while True:
            event = self._next_event()
            if "seq" in event:
                return event

    def _next_event(self) -> dict[str, Any]:
        while True:
            end = self._response.body.find(b"\n\n", self._read)
            if end < 0:
                before = len(self._response.body)
                if len(self._response.read(before + 1)) == before:
                    raise EOFError("/monitor ended")
                continue
            block = self._response.body[self._read : end]
            self._read = end + 2
            data = b"".join(
                line.removeprefix(b"data:")
                for line in block.split(b"\n")
                if line.startswith(b"data:")
            )
            if data:
                parsed: dict[str, Any] = json.loads(data)
                return parsed

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def running_proxy(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    """A started proxy that has ended, and logged nothing it may not, when the block is left."""
    proxy = Proxy(home, settings)
    with proxy:
        yield proxy
    assert not proxy.trouble(), f"{proxy.trouble()}\n{proxy.output()}\n{proxy.log()}"


def read_text(path: Path) -> str:
    """A file's text, "" while there is none."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
