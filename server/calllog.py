"""The log's lines about calls, in the form of llm-cache-proxy's after a time stamp, and the last
errors for `status`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from llm_cache.exchange import NANO, Call, Kind, Level, Listener, Tallies, kind_of
from llm_cache.server.logfile import Log


class CallLog(Listener):
    """Writes calls to the log. Its running sums begin with those of all time."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.errors: deque[str] = deque(maxlen=20)
        self._saved_nano = self._saved_tokens = self._spent_nano = 0
        self._calls = self._hits = 0

    def told(self, level: Level, text: str, now: float) -> None:
        if level == "error":
            line = f"{_stamp(now)} ERR  {text}"
            self.errors.append(line)
            self._log.write(level, [line])
        elif self._log.shows(level):
            mark = "DEBUG " if level == "debug" else ""
            self._log.write(level, [f"{_stamp(now)} {mark}{text}"])

    def heard(self, calls: Sequence[Call], now: float) -> None:
        stamp = _stamp(now)
        lines: list[str] = []
        for call in calls:
            line = self._line(call, stamp)
            if call.error:
                self.errors.append(line)
            if self._log.shows("error" if call.error else "info"):
                lines.append(line)
        if lines:
            self._log.write("error", lines)

    def summed(self, all_time: Tallies) -> None:
        self._saved_nano = self._saved_tokens = self._spent_nano = 0
        self._calls = self._hits = 0
        for scope, counters in all_time.items():
            kind = kind_of(json.loads(scope)[2])
            if kind is Kind.PASS:
                continue
            calls, nano = int(counters.get("calls", 0)), int(counters.get("nano_usd", 0))
            self._calls += calls
            if kind is Kind.HIT:
                self._hits += calls
                self._saved_nano += nano
                self._saved_tokens += int(
                    counters.get("tokens_in", 0) + counters.get("tokens_out", 0)
                )
            else:
                self._spent_nano += nano

    def _line(self, call: Call, stamp: str) -> str:
        usage = call.usage
        tokens = usage.input_tokens + usage.output_tokens if usage else 0
        nano = call.nano_usd or 0
        price = "$?" if usage and call.nano_usd is None else f"${nano / NANO:.5f}"
        head = f"{stamp} {call.type:<4} {call.model or call.asked_model or '?'}"
        kind = call.kind
        if kind is not Kind.PASS:
            self._calls += 1
        if kind is Kind.HIT:
            self._hits += 1
            self._saved_nano += nano
            self._saved_tokens += tokens
            rate = 100 * self._hits / self._calls
            return (
                f"{head}  +{tokens}tok {price}  | saved ${self._saved_nano / NANO:.4f} / "
                f"{self._saved_tokens}tok  hit-rate {rate:.1f}%"
            )
        self._spent_nano += nano
        stored = " [cached]" if call.stored else f" [{call.note}]" if call.note else ""
        return (
            f"{head}  {call.status}  {tokens}tok {price}  {call.seconds * 1000:.0f}ms{stored}  "
            f"| spend ${self._spent_nano / NANO:.4f}"
        )


def _stamp(now: float) -> str:
    return _stamp_of_second(int(now))


@lru_cache(2)
def _stamp_of_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
