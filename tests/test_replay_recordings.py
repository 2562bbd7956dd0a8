"""`scripts/replay_recordings.py` passes what the proxy does right and finds what it doesn't."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "replay_recordings.py"


def recorded(
    body: bytes,
    *,
    status: int = 200,
    path: str = "/v1/messages?beta=true",
    content_type: str = "application/json",
    question: bytes | None = None,
    request_headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    asked = wire.request() if question is None else question
    return {
        "id": "one",
        "host": "api.anthropic.com",
        "method": "POST",
        "path": path,
        "status": status,
        "request_headers": {"content-type": "application/json", **(request_headers or {})},
        "response_headers": {"content-type": content_type, "request-id": "req_1"},
        "request_body_b64": base64.b64encode(asked).decode(),
        "response_body_b64": base64.b64encode(body).decode(),
    }


def replay(folder: Path, *exchanges: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = folder / "exchanges.jsonl.gz"
    lines = (json.dumps(exchange) for exchange in exchanges)
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    command = [sys.executable, str(SCRIPT), str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.usefixtures("home")
def test_every_kind_of_exchange_is_replayed_without_deviation(tmp_path: Path) -> None:
    tokens = wire.usage(5, 6, cache_read=7, cache_write_5m=8)
    stream = b"".join(wire.stream("Grüezi 世界", tokens=tokens))
    sse = "text/event-stream; charset=utf-8"
    ran = replay(
        tmp_path,
        recorded(wire.message("one", tokens=tokens)),
        recorded(wire.message("another answer to the same request")),
        recorded(stream, content_type=sse, question=wire.request(stream=True)),
        recorded(stream[:-40], content_type=sse, question=wire.request(stream=True)),
        recorded(wire.error(), status=400),
        recorded(wire.count_tokens(), path="/v1/messages/count_tokens"),
        recorded(b'{"id":"file_1"}', path="/v1/files"),
        {**recorded(wire.message("theirs")), "host": "api.unknown.example"},
        {**recorded(b"{}", path="/v1/other"), "host": "api.unknown.example"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "nobody's host, a named upstream of its own: api.unknown.example" in ran.stdout
    assert "9 exchanges, each sent twice; 0 deviations" in ran.stdout
    assert "api.unknown.example          1  second time a hit" in ran.stdout
    assert "api.unknown.example          1  passed through" in ran.stdout
    table = [
        line.split(maxsplit=2) for line in ran.stdout.splitlines() if "anthropic.com  " in line
    ]
    outcomes = {outcome: int(count) for _, count, outcome in table}
    incomplete = next(outcome for outcome in outcomes if "message_stop" in outcome)
    assert outcomes == {
        "second time a hit": 4,
        "passed through": 1,
        "not stored: status 400": 1,
        incomplete: 1,
    }


@pytest.mark.usefixtures("home")
def test_a_deviation_is_named_and_fails_the_run(tmp_path: Path) -> None:
    ran = replay(tmp_path, recorded(wire.message(), request_headers={"x-cache-mode": "bypass"}))
    assert ran.returncode == 1
    assert "DEVIATION one, time 2: x-cache: expected 'HIT', found 'BYPASS'" in ran.stdout
