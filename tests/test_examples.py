"""The examples run as they stand, and the second run asks nothing upstream."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.command import Cli
from support.replies import Reply, json_reply
from support.upstream import Request, Upstream

EXAMPLES = Path(__file__).parent.parent / "examples"

CLAUDE = """
import sys
sys.path.insert(0, {folder!r})
import eval_samples
assert sys.argv[1] == "-p"
print(eval_samples.ask(sys.argv[2]))
"""
"""Plays Claude Code: one question to where its base URL leads."""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the programs that the examples call."""
    folder = tmp_path / "programs"
    folder.mkdir()
    claude = shlex.quote(CLAUDE.format(folder=str(EXAMPLES)).strip())
    python = shlex.quote(sys.executable)
    for name, line in {
        "llm-cache": f'exec {python} -m llm_cache "$@"',
        "python3": f'exec {python} -B "$@"',
        "claude": f'exec {python} -B -c {claude} "$@"',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def answering(upstream: Upstream) -> Upstream:
    """An upstream that never gives one answer twice."""
    numbers = itertools.count()

    def answer(request: Request) -> Reply:
        return json_reply(wire.message(f"answer {next(numbers)}"))

    upstream.default = answer
    return upstream


def run(cli: Cli, programs: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EXAMPLES / name],
        env={
            **cli.environment,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "ANTHROPIC_API_KEY": "sk-ant-test-key",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_example_is_told_of_and_tested() -> None:
    shells = {path.name for path in EXAMPLES.glob("*.sh")}
    assert shells == {"eval_samples.sh", "ci.sh", "claude_code.sh"}
    told = (EXAMPLES / "README.md").read_text()
    assert all(f"`{path.name}`" in told for path in EXAMPLES.glob("*.*") if path.suffix != ".md")


def test_an_eval_gets_k_answers_and_the_same_ones_again(
    cli: Cli, programs: Path, answering: Upstream
) -> None:
    first = run(cli, programs, "eval_samples.sh")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("3 different answers of 3") == 2
    assert answering.call_count == 6
    second = run(cli, programs, "eval_samples.sh")
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert answering.call_count == 6
    assert "6 hits, 0 misses" in second.stderr


def test_ci_replays_without_a_key_what_it_recorded(
    cli: Cli, programs: Path, answering: Upstream
) -> None:
    done = run(cli, programs, "ci.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 hits, 6 misses" in done.stderr
    assert "6 hits, 0 misses" in done.stderr
    assert answering.call_count == 6


def test_claude_code_asks_once(cli: Cli, programs: Path, answering: Upstream) -> None:
    first = run(cli, programs, "claude_code.sh")
    assert first.returncode == 0, first.stderr
    assert run(cli, programs, "claude_code.sh").stdout == first.stdout
    assert answering.call_count == 1
