"""The CI example of docs/CI.md, run as it stands: one job records, one replays with no key."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from support import anthropic_wire as wire
from support.command import Cli
from support.replies import json_reply
from support.upstream import Upstream

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/CI.md"

SUITE = """
import json, os, sys, urllib.request
request = urllib.request.Request(
    os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
    json.dumps({"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [
        {"role": "user", "content": sys.argv[1]}]}).encode(),
    {"content-type": "application/json", "anthropic-version": "2023-06-01",
     "x-api-key": os.environ["ANTHROPIC_API_KEY"]})
print(urllib.request.urlopen(request, timeout=30).headers["x-cache"])
"""


def job(name: str) -> str:
    [workflow] = re.findall(r"^```yaml\n(.*?)^```", EXAMPLE.read_text(), re.MULTILINE | re.DOTALL)
    return str(workflow).partition(f"\n  {name}:\n")[2].partition("\n\n")[0]


def run(
    cli: Cli, name: str, prompt: str, **settings: str
) -> list[subprocess.CompletedProcess[str]]:
    """The job's own commands, with a suite of one request in the place of pytest."""
    environment = {**cli.environment, "CACHE_SCOPE": "shared", "CACHE_TTL_SEC": "0", **settings}
    results = []
    for line in re.findall(r"- run: llm-cache (.+)", job(name)):
        words = shlex.split(line)
        if "--" in words:
            words[words.index("--") + 1 :] = [sys.executable, "-c", SUITE, prompt]
        results.append(
            subprocess.run(
                cli.command(*words),
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        )
    return results


def test_the_example_says_what_the_test_runs_with() -> None:
    text = EXAMPLE.read_text()
    assert "CACHE_SCOPE: shared" in text
    assert 'CACHE_TTL_SEC: "0"' in text
    assert "ANTHROPIC_API_KEY" in job("record")
    assert "ANTHROPIC_API_KEY" not in job("replay")


def test_what_one_job_recorded_the_other_replays_without_a_key(
    cli: Cli, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message())
    validated, executed, counted = run(cli, "record", "Hello", ANTHROPIC_API_KEY="sk-ant-canary")
    assert (validated.returncode, executed.returncode, counted.returncode) == (0, 0, 0), validated
    assert executed.stdout == "MISS\n"
    assert upstream.call_count == 1
    validated, executed = run(cli, "replay", "Hello")
    assert (validated.returncode, executed.returncode) == (0, 0), executed
    assert executed.stdout == "HIT\n"
    assert upstream.call_count == 1
    stored = b"".join(path.read_bytes() for path in cli.home.rglob("*") if path.is_file())
    assert b"canary" not in stored


def test_what_was_not_recorded_fails_the_job(cli: Cli, upstream: Upstream) -> None:
    _, executed = run(cli, "replay", "Something new")
    assert executed.returncode == 1
    assert "was not in the cache" in executed.stderr
    assert upstream.call_count == 0


def test_a_wrong_setting_fails_the_job(cli: Cli) -> None:
    validated, _ = run(cli, "replay", "Hello", CACHE_PORT="99999")
    assert validated.returncode == 1
    assert "✗ CACHE_PORT=99999" in validated.stdout
