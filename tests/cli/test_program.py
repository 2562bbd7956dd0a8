"""What holds for every command: help with an example, exit codes, one line of error, no colour in
a pipe, quiet ends."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.child import child
from support.command import Cli

import llm_cache

COMMANDS = (
    *("on", "off", "restart", "stop", "run", "status", "stats", "monitor"),
    *(
        "explore",
        "validate",
        "setup",
        "install",
        "uninstall",
        "key",
        "price",
        "usage",
        "presets",
        "demo",
        "exec",
    ),
    *("token", "completion"),
)


def test_help_lists_every_command(cli: Cli) -> None:
    listed = cli.ok("--help").partition("Commands:")[2].split("\n")
    assert [line.split()[0] for line in listed if line.strip()] == list(COMMANDS)
    assert cli.ok() == cli.ok("-h")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(cli: Cli, command: str) -> None:
    said = cli.ok(command, "--help")
    assert f"Usage: llm-cache {command}" in said
    assert "Example: " in said
    assert f"llm-cache {command}" in said.partition("Example: ")[2]
    assert not re.search(r"--[a-z-]+ <", said)  # `--host HOST`, not Python's type
    example = next(line for line in said.splitlines() if "Example: " in line)
    assert example.count("'") % 2 == 0  # whole on its line, to be copied


@pytest.mark.parametrize(
    "command", ["status", "stats", "monitor", "explore", "validate", "key", "price", "usage"]
)
def test_what_a_script_would_read_has_json(cli: Cli, command: str) -> None:
    assert "--json" in cli.ok(command, "--help")


def test_help_is_quick(cli: Cli) -> None:
    """It imports nothing that takes long. Seconds are measured by bench/footprint.py."""
    result = cli("--help", PYTHONPROFILEIMPORTTIME="1")
    assert result.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "llm_cache.cli.app" in imported
    slow = ("anthropic", "asyncio", "genai_prices", "httpx", "hypercorn", "prometheus_client")
    assert imported.isdisjoint((*slow, "questionary", "regex", "rich", "sqlite3", "textual"))


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(cli: Cli, flag: str) -> None:
    assert cli.ok(flag) == f"llm-cache {llm_cache.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("on", "--bogus"),
        ("on", "extra"),
        ("key",),
        ("price",),
        ("on", "--port", "http"),
        ("on", "--port", "70000"),
        ("key", "{}", "--tier", "nearest"),
        ("key", "{}", "--header", "no colon"),
        ("key", "{}", "--sample", "a\nb"),
        ("key", "{}", "--path", "/v1/files"),
        ("key", "{}", "--path", "v1/messages"),
        ("key", "{}", "--path", "http://localhost:4000/v1/messages"),
        ("key", "{}", "--path", ""),
        ("key", "{}", "--header", "x-cache-mode: sometimes"),
        ("key", "@/no/such/file"),
        ("usage", "{}", "--provider", "nobody"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_line(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("llm-cache: ")
    assert result.stderr.count("\n") == 1


def test_each_of_several_wrong_settings_is_a_line_below_one_that_leads(cli: Cli) -> None:
    wrong = {"CACHE_TTL_SEC": "soon", "CACHE_MODE": "cash", "CACHE_MAX_BYTES": "2 heaps"}
    for command in ("on", "run", "restart", "status", "stats", "exec"):
        result = cli(*((command, "--", "true") if command == "exec" else (command,)), **wrong)
        assert (result.returncode, result.stdout) == (2, "")
        first, *others = result.stderr.splitlines()
        assert first == "llm-cache: 3 settings are wrong:"
        assert [line.partition("=")[0] for line in others] == [
            f"  {name}" for name in sorted(wrong)
        ]
        assert (
            others[1] == "  CACHE_MODE=cash (environment): must be cache, fresh, bypass or replay"
        )


def test_a_line_break_lost_in_env_shows_no_key_in_any_command(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    key = "sk-ant-api03-canary0123456789canary"
    (cli.home / ".env").write_text(f"CACHE_TTL_SEC=60ANTHROPIC_API_KEY_REAL={key}\n")
    for command in ("on", "run", "status", "stats", "validate", "restart", "stop"):
        result = cli(command)
        said = result.stdout + result.stderr
        assert "canary0123456789" not in said, said
        assert result.returncode != 0
        assert "CACHE_TTL_SEC" in said
    log = cli.home / "proxy.log"
    assert not log.exists() or "canary0123456789" not in log.read_text()


def test_an_env_file_that_cannot_be_parsed_is_one_line(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / ".env").write_text("CACHE_PORT=4000\nwhat is this\n")
    assert ".env, line 2: " in cli.fails(2, "status")


def test_a_fault_of_our_own_is_one_line_too(cli: Cli) -> None:
    code = (
        "import sys; from llm_cache.cli import app, lifecycle\n"
        "def broken(): raise KeyError('canary')\n"
        "app.app.command('broken')(broken); sys.exit(app.run(['broken']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=cli.environment, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.startswith("llm-cache: a fault in llm-cache itself (KeyError)")
    assert result.stderr.count("\n") == 1


def test_a_full_disk_behind_stdout_is_one_line(cli: Cli) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            cli.command("stats", "--json"),
            env=cli.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert result.returncode == 1
    assert result.stderr == "llm-cache: No space left on device\n"


def test_a_reader_that_has_gone_is_no_error(cli: Cli) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        cli.command("stats", "--json"),
        env=cli.environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_error(cli: Cli, closed: str) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", f'"$@" {closed}', "sh", *cli.command(*arguments)],
            env=cli.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    for arguments in (("stats",), ("on",), ("explore", "--json"), ("stop",)):
        result = run(*arguments)
        assert result.returncode == 0, result.stderr
        assert "fault" not in result.stderr
        assert bool(result.stdout) is (closed in ("<&-", "2>&-"))


def test_ctrl_c_is_quiet(cli: Cli, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # The pipe opens once the command is there to read it.
    with cli.started("key", f"@{pipe}") as waiting, pipe.open("wb"):
        waiting.send_signal(signal.SIGINT)
        stdout, stderr = waiting.communicate(timeout=20)
    assert (waiting.returncode, stdout, stderr) == (130, "", "")


@pytest.mark.parametrize("command", ["stats", "status", "price"])
def test_no_colour_in_a_pipe_or_with_no_color(cli: Cli, command: str) -> None:
    arguments = (command, "claude-haiku-4-5") if command == "price" else (command,)
    del cli.environment["NO_COLOR"]
    assert "\x1b" not in cli(*arguments).stdout
    environment = {**cli.environment, "TERM": "xterm-256color"}
    assert "\x1b" not in on_terminal(cli, arguments, {**environment, "NO_COLOR": "1"})


def test_stats_on_a_terminal_may_have_colour(cli: Cli) -> None:
    environment = {**cli.environment, "TERM": "xterm-256color"}
    del environment["NO_COLOR"]
    assert "\x1b[" in on_terminal(cli, ("stats",), environment)


def on_terminal(cli: Cli, arguments: tuple[str, ...], environment: dict[str, str]) -> str:
    """What a command prints to a terminal."""
    ours, theirs = pty.openpty()
    with child(cli.command(*arguments), env=environment, stdout=theirs, stderr=subprocess.DEVNULL):
        os.close(theirs)
        printed = b""
        try:
            while piece := os.read(ours, 65536):
                printed += piece
        except OSError:  # Linux tells the end of a terminal so
            pass
    os.close(ours)
    return printed.decode()
