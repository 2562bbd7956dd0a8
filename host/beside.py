"""A proxy beside one command, as whoever runs the command sees it: started, heard, ended.

The proxy is `companion` in a process and a session of its own, so that Ctrl-C in a terminal ends
the command first and the proxy after it. What always holds: every call it answered is counted
once it has ended, and it never outlives the process that started it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llm_cache.errors import LlmCacheError
from llm_cache.exchange.entries import Credential, Meta, but_for_credentials
from llm_cache.host.process import START_SEC
from llm_cache.store import Store

GRACE_SEC = 5.0
"""How long answers that something else than the command still waits for may take."""


@dataclass(slots=True)
class Missed:
    """A request that the cache didn't answer, by its key."""

    model: str
    what: str = ""  # method and path
    but_for_credentials: str = ""  # as `exchange.entries` makes it, of what mode replay missed
    times: int = 0


@dataclass(slots=True)
class Calls:
    """What the proxy did for the command. Amounts in US dollars."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    bypassed: int = 0
    passed: int = 0
    tokens_saved: int = 0
    tokens_spent: int = 0
    usd_saved: float = 0.0
    usd_spent: float = 0.0
    unpriced: int = 0
    missed: dict[str, Missed] = field(default_factory=dict)
    """By key, in the order they were first missed."""

    @property
    def total(self) -> int:
        """All calls."""
        return self.hits + self.misses + self.errors + self.bypassed + self.passed

    def count(self, event: Mapping[str, Any]) -> None:
        """Add one event of /monitor."""
        tokens = int(event["in"]) + int(event["out"])
        usd = event["usd"]
        self.unpriced += bool(tokens) and usd is None
        if event["from_cache"]:
            self.hits += 1
            self.tokens_saved += tokens
            self.usd_saved += usd or 0.0
            return
        self.tokens_spent += tokens
        self.usd_spent += usd or 0.0
        kind = event["kind"]
        if kind == "pass":
            self.passed += 1
            return
        if kind == "bypass":
            self.bypassed += 1
            return
        if kind == "error":
            self.errors += 1
        else:
            self.misses += 1
        what = f"{event['method']} {event['path']}"
        alike = str(event.get("but_for_credentials", ""))
        missed = self.missed.setdefault(
            str(event["key"]), Missed(str(event["model"] or ""), what, alike)
        )
        missed.times += 1

    def missed_by_credential(self, store: Store) -> dict[Credential, int]:
        """How many of the missed requests the store has, asked with other credentials, by whose
        those were. Raises StoreError."""
        wanted = {missed.but_for_credentials for missed in self.missed.values()} - {""}
        found: dict[str, Credential] = {}
        for _, entry in store.entries() if wanted else ():
            with suppress(ValueError):
                asked = Meta.decode(entry.meta).request
                if asked is not None and entry.request_digest is not None:
                    alike = but_for_credentials(asked, entry.request_digest)
                    # One that splits nothing serves everybody: it says more than a client's.
                    if alike in wanted and found.get(alike, "client") == "client":
                        found[alike] = asked.credential
        return dict(Counter(found.values()))


class Beside:
    """The running proxy. `calls` is whole once it has ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.calls = Calls()
        self._process = process
        self._first: dict[str, Any] = {}
        self._told = threading.Event()
        assert process.stdout is not None  # as `proxy_beside` starts it
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def address(self) -> str:
        """The base URL for the command, once it listens. Raises LlmCacheError with its words."""
        if not self._told.wait(START_SEC):
            raise LlmCacheError(f"the proxy didn't answer within {START_SEC:.0f} s")
        if "address" in self._first:
            return str(self._first["address"])
        if "error" in self._first:
            raise LlmCacheError.heard(self._first)
        raise LlmCacheError(f"the proxy ended with code {self._process.wait()}")

    def end(self) -> None:
        """End the proxy and hear it out."""
        assert self._process.stdin is not None  # as `proxy_beside` starts it
        with suppress(OSError):
            self._process.stdin.close()  # which is how it is told
        if not self._ends():
            self._process.terminate()  # the second word: what is in flight is given up
            if not self._ends():
                self.kill()
        self._reader.join()

    def kill(self) -> None:
        """End the proxy now."""
        self._process.kill()
        self._process.wait()

    def _ends(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SEC)
            return True
        return False

    def _read(self, events: IO[bytes]) -> None:
        with events:
            for line in events:
                if not line.startswith(b"data: "):
                    continue
                event = json.loads(line[6:])
                if "seq" in event:
                    self.calls.count(event)
                elif not self._told.is_set():
                    self._first = event
                    self._told.set()
        self._told.set()


@contextmanager
def proxy_beside(environ: Mapping[str, str], folder: Path) -> Iterator[Beside]:
    """A proxy with the settings in `environ`, run in `folder`; gone when the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "llm_cache.host.companion"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        env=dict(environ),
        start_new_session=True,
    )
    try:
        beside = Beside(process)
        yield beside
        beside.end()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
