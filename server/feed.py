"""`/monitor`: every call as a server-sent event, to whoever listens.

A listener that doesn't keep up loses the oldest events and is told how many; it never holds
anything back and its memory is bounded.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence

from llm_cache.exchange import Call
from llm_cache.exchange import Listener as JournalListener

BACKLOG = 1000
"""Events kept for a listener that is behind."""


class Listener:
    """One open `/monitor`."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._closed = False
        self._more = asyncio.Event()

    def push(self, line: bytes) -> None:
        """Add an event; the oldest goes when there are too many."""
        if len(self._lines) >= BACKLOG:
            self._lines.popleft()
            self._dropped += 1
        self._lines.append(line)
        self._more.set()

    def close(self) -> None:
        """No more events come."""
        self._closed = True
        self._more.set()

    async def next(self) -> bytes:
        """The events since the last call, b"" at the end."""
        while not self._lines and not self._closed:
            self._more.clear()
            await self._more.wait()
        data = b"".join(self._lines)
        self._lines.clear()
        if self._dropped:
            data = b'data: {"type":"dropped","count":%d}\n\n' % self._dropped + data
            self._dropped = 0
        return data


class Feed(JournalListener):
    """Numbers the calls of this run and passes them to the listeners."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._seq = 0

    def listen(self, listener: Listener | None = None) -> Listener:
        """A new listener, or this one; its first event is `{"type":"connected"}`."""
        listener = Listener() if listener is None else listener
        listener.push(b'data: {"type":"connected"}\n\n')
        self._listeners.add(listener)
        self.watched = True
        return listener

    def leave(self, listener: Listener) -> None:
        """The listener has gone."""
        self._listeners.discard(listener)
        self.watched = bool(self._listeners)

    def close(self) -> None:
        """End every open `/monitor`."""
        for listener in self._listeners:
            listener.close()

    def heard(self, calls: Sequence[Call], now: float) -> None:
        for call in calls:
            self.publish(call, now)

    def publish(self, call: Call, now: float) -> None:
        """Tell everybody of a call. `t` is the unix time in milliseconds, `usd` US dollars or
        null when the price isn't known, `ms` milliseconds."""
        self._seq += 1
        if not self._listeners:
            return
        usage = call.usage
        event = {
            "seq": self._seq,
            "t": int(now * 1000),
            "type": call.type,
            "kind": call.kind,
            "from_cache": call.from_cache,
            "stored": call.stored,
            "status": call.status,
            "method": call.method,
            "path": call.path,
            "provider": call.provider,
            "model": call.model or call.asked_model,
            "in": usage.input_tokens if usage else 0,
            "out": usage.output_tokens if usage else 0,
            "prompt_cache_read": usage.cache_read_tokens if usage else 0,
            "prompt_cache_write": usage.cache_write_tokens if usage else 0,
            "usd": None if call.nano_usd is None else call.nano_usd / 1e9,
            "ms": round(call.seconds * 1000, 3),
            "key": call.key,
            "snippet": call.snippet,
        }
        if call.note:
            event["note"] = call.note
        if call.but_for_credentials:
            event["but_for_credentials"] = call.but_for_credentials
        line = (
            b"data: " + json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
        )
        for listener in self._listeners:
            listener.push(line)
