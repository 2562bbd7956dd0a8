"""What a proxy was started with stays: at a restart, and, with --save, at every later start."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from support.command import Cli
from support.upstream import unused_port, wait_until

LOCAL = "http://127.0.0.1:9/v1"


def test_a_restart_keeps_flags_and_environment_of_the_start(cli: Cli) -> None:
    port = str(unused_port())
    flags = ("--port", port, "--upstream", LOCAL, "--mode", "replay")
    assert cli("on", *flags, CACHE_SCOPE="shared").returncode == 0
    started = json.loads((cli.home / "started.json").read_text())
    assert started["flags"] == {
        "CACHE_PORT": port,
        "CACHE_UPSTREAM": LOCAL,
        "CACHE_MODE": "replay",
    }
    assert started["environment"]["CACHE_SCOPE"] == "shared"
    assert (cli.home / "started.json").stat().st_mode & 0o777 == 0o600
    upstream = cli.settings.pop("CACHE_UPSTREAM_ANTHROPIC")  # another shell, which knows nothing
    cli.ok("restart")
    report = cli.json("status")
    assert report["address"] == f"http://localhost:{port}"
    assert (report["mode"], report["upstreams"]) == ("replay", {"*": LOCAL})
    again = json.loads((cli.home / "started.json").read_text())
    assert {**again, "pid": 0} == {**started, "pid": 0}
    assert again["environment"]["CACHE_UPSTREAM_ANTHROPIC"] == upstream
    cli.ok("restart", "--mode", "cache")  # a flag changes it
    report = cli.json("status")
    assert (report["mode"], report["upstreams"]) == ("cache", {"*": LOCAL})
    cli.ok("stop")
    assert not (cli.home / "started.json").exists()


def test_a_proxy_that_was_killed_is_restarted_as_it_was(cli: Cli) -> None:
    cli.ok("on", "--upstream", LOCAL)
    pid = cli.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: cli.pid() is None, "its end", 20)
    cli.ok("restart")
    assert cli.json("status")["upstreams"] == {"*": LOCAL}


def test_a_shell_that_would_change_the_upstream_is_refused_with_both_named(cli: Cli) -> None:
    cli.ok("on", CACHE_UPSTREAM=LOCAL)
    pid = cli.pid()
    other = "http://127.0.0.1:8"
    told = cli.fails(1, "restart", CACHE_UPSTREAM=other)
    assert f"ask {LOCAL}; " in told
    assert f"ask {other}: " in told
    (cli.home / "started.json").unlink()  # nothing is known but what the proxy says
    told = cli.fails(1, "restart", CACHE_UPSTREAM=other)
    assert f"ask {LOCAL}; " in told
    assert cli.pid() == pid
    cli.ok("restart", "--upstream", other)
    assert cli.json("status")["upstreams"] == {"*": other}


def test_an_upstream_that_env_names_anew_counts_at_a_restart(cli: Cli) -> None:
    del cli.settings["CACHE_UPSTREAM_ANTHROPIC"]
    cli.home.mkdir(mode=0o700)
    (cli.home / ".env").write_text(f"CACHE_UPSTREAM={LOCAL}\n")
    cli.ok("on")
    (cli.home / ".env").write_text("CACHE_UPSTREAM=http://127.0.0.1:8\n")
    cli.ok("restart")
    assert cli.json("status")["upstreams"] == {"*": "http://127.0.0.1:8"}


def test_a_secret_of_the_start_is_in_no_file_and_is_asked_for(cli: Cli) -> None:
    secret = "sk-ant-canary-0123456789"
    assert cli("on", ANTHROPIC_API_KEY_REAL=secret).returncode == 0
    pid = cli.pid()
    files = [path for path in cli.home.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    told = cli.fails(1, "restart")
    assert "started with ANTHROPIC_API_KEY_REAL in its environment" in told
    assert cli.pid() == pid
    assert cli("restart", ANTHROPIC_API_KEY_REAL=secret).returncode == 0


def test_flags_that_are_saved_count_at_every_later_start(cli: Cli) -> None:
    port = str(unused_port())
    del cli.settings["CACHE_PORT"]
    cli.ok("on", "--port", port, "--upstream", LOCAL, "--verbose", "--save")
    said = (cli.home / ".env").read_text()
    assert f"CACHE_PORT={port}\n" in said
    assert f"CACHE_UPSTREAM={LOCAL}\n" in said
    assert "CACHE_LOG_LEVEL=debug\n" in said
    cli.ok("stop")
    cli.ok("on")
    report = cli.json("status")
    assert report["address"] == f"http://localhost:{port}"
    assert report["upstreams"]["*"] == LOCAL
    other = str(unused_port())
    cli.ok("restart", "--port", other, "--save")
    assert f"CACHE_PORT={other}\n" in (cli.home / ".env").read_text()
    assert cli.json("status")["address"] == f"http://localhost:{other}"


def test_on_with_another_upstream_than_the_running_one_is_refused(cli: Cli) -> None:
    cli.ok("on")
    told = cli.fails(1, "on", "--upstream", LOCAL)
    assert f"`llm-cache restart --upstream {LOCAL}` changes it" in told
    cli.ok("restart", "--upstream", LOCAL)
    cli.ok("on", "--upstream", LOCAL)  # which it does


def test_a_record_that_cannot_be_read_is_none(cli: Cli, home: Path) -> None:
    cli.ok("on")
    for text in ("", "[]", '{"pid": 1}', '{"pid": "x", "flags": [], "environment": 1}'):
        (home / "started.json").write_text(text)
        cli.ok("restart")
