"""on, off, restart, stop, run, status: the proxy comes, switches and goes; nothing else does."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.child import child
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import exchange
from support.replies import Gate, json_reply
from support.upstream import Upstream, unused_port, wait_until

from llm_cache.host.process import start as start_in_background
from llm_cache.settings import load_settings


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that isn't ours."""
    with child([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        assert process.poll() is None, "the stranger was killed"
        process.communicate(b"\n")


def outcome(cli: Cli, prompt: str = "Say hello.", port: int | None = None) -> str:
    answer = exchange(
        port or int(cli.settings["CACHE_PORT"]),
        "POST",
        "/v1/messages",
        anthropic_headers(),
        wire.request(prompt),
        deadline=20,
    )
    assert answer.status == 200
    return answer.header("x-cache") or ""


def test_on_starts_the_proxy_and_says_what_to_export(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    port = cli.settings["CACHE_PORT"]
    result = cli("on")
    assert result.returncode == 0, result.stderr
    assert f"llm-cache is on: http://localhost:{port} (pid {cli.pid()})" in result.stdout
    assert f"export ANTHROPIC_BASE_URL=http://localhost:{port}\n" in result.stdout
    assert f"export OPENAI_BASE_URL=http://localhost:{port}/openai/v1\n" in result.stdout
    assert "your own ANTHROPIC_API_KEY and OPENAI_API_KEY as always" in result.stdout
    assert "passes each client's own credentials through" in result.stderr
    assert (outcome(cli), outcome(cli)) == ("MISS", "HIT")


def test_on_says_which_key_a_client_sends(cli: Cli) -> None:
    cli.settings["OPENAI_API_KEY_REAL"] = "sk-real"
    said = cli.ok("on")
    assert "export OPENAI_API_KEY=anything" in said
    assert "your own ANTHROPIC_API_KEY as always" in said
    cli.ok("stop")
    cli.settings["CACHE_AUTH_TOKEN"] = "a-token-that-is-long"
    said = cli.ok("on")
    assert "export OPENAI_API_KEY=...    # the value of CACHE_AUTH_TOKEN" in said
    assert "x-cache-auth" in said
    assert "sk-real" not in said
    assert "a-token" not in said
    cli.ok("stop")


def test_what_on_makes_is_private_to_the_user(cli: Cli) -> None:
    before = os.umask(0)
    try:
        cli.ok("on")
    finally:
        os.umask(before)
    assert stat.S_IMODE(cli.home.stat().st_mode) == 0o700
    for path in cli.home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_proxy_outlives_the_terminal_it_was_started_from(cli: Cli) -> None:
    cli.ok("on")
    pid = cli.pid()
    assert pid is not None
    assert os.getsid(pid) == pid  # a hang-up of the terminal doesn't reach it


def test_on_twice_says_so_and_changes_nothing(cli: Cli) -> None:
    cli.ok("on")
    pid = cli.pid()
    assert "llm-cache is already on" in cli.ok("on")
    assert cli.pid() == pid


def test_two_starts_at_once_leave_one_proxy(cli: Cli) -> None:
    with cli.started("on") as one, cli.started("on") as other:
        said = [process.communicate(timeout=60) for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), said
    assert all(f"(pid {cli.pid()})" in stdout for stdout, _ in said)


def test_a_start_that_another_was_faster_than_leaves_nothing_behind(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had started would come up after a `stop`, once port and lock are free."""
    cli.ok("on")
    settings = load_settings(environ=cli.environment)
    children: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            children.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    assert start_in_background(settings, {}, environ=cli.environment).pid == cli.pid()
    [late] = children
    assert late.returncode is not None  # ended, and waited for


def test_off_and_on_switch_without_a_restart(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    cli.ok("on")
    pid = cli.pid()
    assert outcome(cli) == "MISS"
    assert "now off" in cli.ok("off")
    assert outcome(cli) == "BYPASS"
    assert "already off" in cli.ok("off")
    assert "now on" in cli.ok("on")
    assert outcome(cli) == "HIT"
    assert cli.pid() == pid


def test_off_starts_a_proxy_that_stores_nothing(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    assert "llm-cache is off" in cli.ok("off")
    assert (outcome(cli), outcome(cli)) == ("BYPASS", "BYPASS")
    assert cli.json("stats")["entries"] == 0


def test_on_starts_caching_even_when_the_settings_say_off(cli: Cli) -> None:
    cli.ok("on", CACHE_OFF="1")
    assert cli.json("status")["cache"] == "on"


def test_neither_switch_drops_a_request_in_flight(cli: Cli, upstream: Upstream) -> None:
    gate = Gate()
    upstream.default = replace(json_reply(wire.message()), before=(gate,))
    cli.ok("on")
    with child(
        [
            *(sys.executable, "-c", ASK, cli.settings["CACHE_PORT"]),
            wire.request().decode(),
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        upstream.wait_for_calls(1)
        cli.ok("off")
        cli.ok("on")
        gate.release()
        said, _ = client.communicate(timeout=30)
    assert said.strip() == "200 MISS"


ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
headers = {"content-type": "application/json", "x-api-key": "k", "anthropic-version": "2023-06-01"}
connection.request("POST", "/v1/messages", sys.argv[2], headers)
answer = connection.getresponse()
answer.read()
print(answer.status, answer.headers["x-cache"])
"""


def test_restart_keeps_on_and_off(cli: Cli) -> None:
    cli.ok("on")
    before = cli.pid()
    assert "llm-cache is on" in cli.ok("restart")
    assert cli.pid() not in (None, before)
    cli.ok("off")
    assert "llm-cache is off" in cli.ok("restart")
    assert cli.json("status")["cache"] == "off"


def test_restart_of_nothing_is_a_start(cli: Cli) -> None:
    assert "llm-cache is on" in cli.ok("restart")


def test_a_wrong_setting_stops_nothing_at_a_restart(cli: Cli) -> None:
    cli.ok("on")
    pid = cli.pid()
    assert "CACHE_TTL_SEC=x" in cli.fails(2, "restart", CACHE_TTL_SEC="x")
    assert cli.pid() == pid


def test_stop_ends_it_and_a_second_stop_is_fine(cli: Cli) -> None:
    cli.ok("on")
    assert "llm-cache is stopped" in cli.ok("stop")
    assert cli.pid() is None
    assert not listens(cli)
    assert "llm-cache is not running" in cli.ok("stop")


def test_stop_lets_an_answer_in_flight_finish(cli: Cli, upstream: Upstream) -> None:
    gate = Gate()
    upstream.default = replace(json_reply(wire.message()), before=(gate,))
    cli.ok("on")
    with child(
        [*(sys.executable, "-c", ASK, cli.settings["CACHE_PORT"]), wire.request().decode()],
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        upstream.wait_for_calls(1)
        with cli.started("stop") as stopping:
            wait_until(lambda: not listens(cli), "the proxy takes no new connection")
            gate.release()
            said, _ = client.communicate(timeout=30)
            stopped, _ = stopping.communicate(timeout=60)
    assert said.strip() == "200 MISS"
    assert "stopped" in stopped


def listens(cli: Cli) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", int(cli.settings["CACHE_PORT"])), 5):
            return True
    except OSError:
        return False


# Fault 13 of the bar: what went wrong in another system's commands.


def test_a_port_that_only_the_env_file_names_is_seen_by_every_command(cli: Cli) -> None:
    port = cli.settings.pop("CACHE_PORT")
    cli.home.mkdir(mode=0o700)
    (cli.home / ".env").write_text(f"CACHE_PORT={port}\n")
    began = time.monotonic()
    assert f"llm-cache is on: http://localhost:{port}" in cli.ok("on")
    assert time.monotonic() - began < 10
    assert cli.json("status")["address"] == f"http://localhost:{port}"
    assert cli.json("stats")["cache"] == "on"
    assert "now off" in cli.ok("off")
    assert f"http://localhost:{port}" in cli.ok("restart")
    assert "stopped" in cli.ok("stop")


def test_a_port_that_only_a_flag_named_is_found(cli: Cli) -> None:
    other = unused_port()
    cli.ok("on", "--port", str(other))
    assert cli.json("status")["address"] == f"http://localhost:{other}"
    wanted = cli.settings["CACHE_PORT"]
    told = cli.fails(1, "on", "--port", wanted)
    assert f"keeps port {other}; `llm-cache restart --port {wanted}` moves it" in told


def test_with_a_token_every_command_works_and_none_shows_it(cli: Cli) -> None:
    token = "canary-7d0c2f"
    cli.settings["CACHE_AUTH_TOKEN"] = token
    said = cli.ok("on")
    stats = cli.json("stats")
    assert stats["session"] is not None  # asked of the running proxy, not of the ledger
    said += cli.ok("status") + cli.ok("off") + cli.ok("restart") + cli.ok("stats")
    command_line = Path(f"/proc/{cli.pid()}/cmdline")
    if command_line.exists():
        said += command_line.read_text()
    said += cli.ok("stop") + (cli.home / "proxy.log").read_text()
    assert token not in said


def test_another_token_is_said_to_be_refused_not_that_nothing_runs(cli: Cli) -> None:
    cli.settings["CACHE_AUTH_TOKEN"] = "first-token"
    cli.ok("on")
    told = cli.fails(1, "stats", CACHE_AUTH_TOKEN="second-token")
    assert "refuses this CACHE_AUTH_TOKEN" in told
    assert "token" not in told.replace("CACHE_AUTH_TOKEN", "")


def test_a_taken_port_is_told_with_its_number_and_owner(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", int(cli.settings["CACHE_PORT"]))):
        told = cli.fails(1, "on")
        assert f"port {cli.settings['CACHE_PORT']}" in told
        assert "is taken" in told
        if sys.platform == "linux":
            assert f"(pid {os.getpid()})" in told
    assert cli.pid() is None


def test_a_port_taken_by_the_proxy_of_another_home_is_told(cli: Cli, tmp_path: Path) -> None:
    cli.ok("on")
    other = Cli(tmp_path / "other", dict(cli.settings))
    told = other.fails(1, "on")
    assert f"(pid {cli.pid()})" in told
    assert other.json("status")["up"] is False
    assert other.ok("stop") == "llm-cache is not running\n"
    assert cli.json("status")["up"] is True


def test_stop_leaves_alone_the_process_a_stale_pid_file_names(
    cli: Cli, stranger: subprocess.Popen[bytes]
) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "proxy.pid").write_text(f"{stranger.pid}\n")
    assert "llm-cache is not running" in cli.ok("stop")
    assert cli.json("status")["pid"] is None


def test_a_stale_pid_file_heals_itself(cli: Cli, stranger: subprocess.Popen[bytes]) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "proxy.pid").write_text(f"{stranger.pid}\n")
    cli.ok("on")
    assert (cli.home / "proxy.pid").read_text() == f"{cli.pid()}\n"
    assert cli.pid() != stranger.pid


def test_after_kill_9_the_next_on_works(cli: Cli) -> None:
    cli.ok("on")
    first = cli.pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: cli.pid() is None, "the killed proxy has gone")
    assert cli.json("status")["up"] is False
    cli.ok("on")
    assert cli.pid() not in (None, first)


def test_a_port_out_of_range_is_wrong_usage_not_a_crash(cli: Cli) -> None:
    for command in ("on", "off", "restart", "stop", "run", "status", "stats", "monitor"):
        assert "CACHE_PORT=99999" in cli.fails(2, command, CACHE_PORT="99999")


def test_an_invalid_pattern_is_an_error_not_a_switch(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "normalize.json").write_text('{"system_strip": ["(unclosed"]}')
    assert "normalize.json" in cli.fails(2, "on")
    assert cli.pid() is None
    assert "normalize.json" in cli.fails(2, "run")


# Ends


def test_a_proxy_that_does_not_end_is_killed_and_no_other(
    cli: Cli, stranger: subprocess.Popen[bytes]
) -> None:
    """Something that holds the lock and ignores SIGTERM, beside a stranger."""
    cli.home.mkdir(mode=0o700)
    with child(
        [sys.executable, "-c", DEAF, str(cli.home / "proxy.pid")], stdout=subprocess.PIPE
    ) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"ready\n"
        code = (
            "from llm_cache.host import process; from llm_cache.settings import load_settings; "
            "print(process.stop(load_settings(), patience_sec=0.3))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=cli.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout == "killed\n"
        assert deaf.wait(10) == -signal.SIGKILL


DEAF = """
import fcntl, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, b"%d\\n" % os.getpid())
print("ready", flush=True)
signal.pause()
"""


def test_a_lock_without_a_pid_signals_nobody(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    with (cli.home / "proxy.pid").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "is locked, but holds no pid" in cli.fails(1, "stop")


def test_a_process_that_holds_the_lock_and_does_not_answer_is_told(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    with child(
        [sys.executable, "-c", DEAF, str(cli.home / "proxy.pid")], stdout=subprocess.PIPE
    ) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"ready\n"
        result = cli("status")
        assert result.returncode == 1
        assert f"not answering, though process {deaf.pid} runs" in result.stdout
        assert "doesn't answer" in cli.fails(1, "on")
        deaf.kill()


def test_a_proxy_can_be_stopped_when_the_settings_are_wrong(cli: Cli) -> None:
    cli.ok("on")
    for line, settings in (("what is this", {}), ("", {"CACHE_PORT": "99999"})):
        (cli.home / ".env").write_text(f"{line}\n")
        result = cli("stop", **settings)
        assert (result.returncode, result.stdout) == (0, "llm-cache is stopped\n")
        assert result.stderr.startswith("the settings are wrong")
        assert cli.pid() is None
        cli.fails(2, "stop", **settings)
        (cli.home / ".env").unlink()
        cli.ok("on")
    cli.ok("stop")


# run and status


def test_run_serves_in_the_foreground_until_sigterm(cli: Cli) -> None:
    with cli.started("run") as running:
        wait_until(lambda: cli("status").returncode == 0, "up", 20)
        assert cli.pid() == running.pid
        running.terminate()
        stdout, stderr = running.communicate(timeout=30)
    assert running.returncode == 0
    assert f"listens on http://localhost:{cli.settings['CACHE_PORT']}" in stdout
    assert stderr == ""


def test_a_second_run_of_one_home_is_refused(cli: Cli) -> None:
    cli.ok("on")
    for port in (str(unused_port()), cli.settings["CACHE_PORT"]):
        told = cli.fails(1, "run", CACHE_PORT=port)
        assert f"running already (pid {cli.pid()})" in told


def test_status_when_down_is_exit_1(cli: Cli) -> None:
    result = cli("status")
    assert (result.returncode, result.stdout) == (1, "down: start it with `llm-cache on`\n")
    assert cli.json("status")["up"] is False
    assert not cli.home.exists()  # asking makes nothing


def test_status_tells_the_facts(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.error("overloaded_error"), status=529)
    cli.ok("on")
    before = cli.json("status")
    assert before["up"] is before["accepting_calls"] is True
    assert (before["pid"], before["cache"], before["last_call_s"]) == (cli.pid(), "on", None)
    assert (before["errors"], before["recent_errors"]) == (0, [])
    answer = exchange(
        int(cli.settings["CACHE_PORT"]),
        "POST",
        "/v1/messages",
        anthropic_headers(),
        wire.request(),
        deadline=20,
    )
    assert answer.status == 529
    wait_until(lambda: cli.json("status")["errors"] == 1, "the error counted")
    after = cli.json("status")
    assert after["last_call_s"] >= 0
    assert len(after["recent_errors"]) == 1
    assert "529" in after["recent_errors"][0]
    cli.ok("stop")
    down = cli.json("status")
    assert down["recent_errors"] == after["recent_errors"]  # from the log now


def test_status_tells_the_mode_and_who_is_asked(cli: Cli, upstream: Upstream) -> None:
    cli.ok("on", "--mode", "replay")
    report = cli.json("status")
    assert (report["mode"], report["upstreams"]) == ("replay", {"anthropic": upstream.url})
    said = cli.ok("status")
    assert "mode       replay: never asks upstream, a miss is a 504\n" in said
    assert f"upstreams  anthropic   {upstream.url}\n" in said
    assert "           all others  each provider's own\n" in said
    since = report["since"]
    assert {cli.json("status")["since"] for _ in range(3)} == {since}
    cli.settings["CACHE_UPSTREAMS"] = "mine=http://127.0.0.1:9"
    cli.ok("stop")
    cli.ok("on", "--upstream", "http://127.0.0.1:8/base")
    assert cli.json("status")["upstreams"] == {
        "*": "http://127.0.0.1:8/base",
        "mine": "http://127.0.0.1:9",
    }
    assert "           all others  http://127.0.0.1:8/base\n" in cli.ok("status")
    del cli.settings["CACHE_UPSTREAMS"], cli.settings["CACHE_UPSTREAM_ANTHROPIC"]
    cli.ok("stop")
    cli.ok("on")
    said = cli.ok("status")
    assert "mode       cache\n" in said
    assert "upstream   each provider's own\n" in said


def test_a_start_that_fails_shows_the_proxys_own_words(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "store").write_text("not a folder")
    told = cli.fails(1, "on")
    assert "store" in told
    assert cli.pid() is None


def test_a_misspelt_setting_is_told_when_a_proxy_starts(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    lines = ("CACHE_PROT=4100", "CACHE_DRIVER=file", "ANTROPIC_API_KEY_REAL=sk", "")
    (cli.home / ".env").write_text("\n".join(lines))
    told = [
        "CACHE_PROT in .env: there is no such setting, so it does nothing; did you mean "
        "CACHE_PORT?",
        "CACHE_DRIVER in .env: ",
        "CACHE_TTL_SECS in the environment: there is no such setting, so it does nothing; did you "
        "mean CACHE_TTL_SEC?",
        "ANTROPIC_API_KEY_REAL in .env: there is no provider antropic, so it does nothing; did you "
        "mean ANTHROPIC_API_KEY_REAL?",
    ]
    cli.settings |= {"CACHE_TTL_SECS": "60", "CACHE_STORES": "redis"}
    for arguments in (("on",), ("restart",), ("exec", "--", "true")):
        result = cli(*arguments)
        assert result.returncode == 0, result.stderr
        assert all(result.stderr.count(words) == 1 for words in told), result.stderr
        assert "CACHE_STORES" not in result.stderr  # of some other program
    assert all(words in (cli.home / "proxy.log").read_text() for words in told)
    assert cli("on").stderr == ""  # a running proxy isn't started
    cli.ok("stop")


def test_a_log_file_that_cannot_be_written_is_told(cli: Cli) -> None:
    assert "CACHE_LOG_FILE=" in cli.fails(1, "on", CACHE_LOG_FILE="/proc/none/x.log")


def test_no_log_file_is_no_hindrance(cli: Cli) -> None:
    cli.settings["CACHE_LOG_FILE"] = "none"
    cli.ok("on")
    assert cli.json("status")["up"] is True
    assert not list(cli.home.glob("*.log"))


def test_a_file_in_the_home_is_never_imported(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "hypercorn.py").write_text("raise SystemExit('imported from the home')")
    cli.ok("on")


def test_every_address_is_asked_on_loopback(cli: Cli) -> None:
    cli.settings |= {"CACHE_HOST": "0.0.0.0", "CACHE_AUTH_TOKEN": "a-token"}
    assert f"http://localhost:{cli.settings['CACHE_PORT']}" in cli.ok("on")
    assert cli.json("stats")["session"]["calls"] == 0
    cli.ok("stop")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_the_address_told_is_one_that_answers(cli: Cli) -> None:
    cli.settings["CACHE_HOST"] = "127.0.0.2"  # loopback, but not where localhost leads
    url = f"http://127.0.0.2:{cli.settings['CACHE_PORT']}"
    assert f"export ANTHROPIC_BASE_URL={url}" in cli.ok("on")
    assert cli.json("status")["address"] == cli.json("stats")["address"] == url
    assert f"export ANTHROPIC_BASE_URL={url}" in cli.ok("setup", "--yes")
    cli.ok("stop")


def test_https_is_asked_with_the_certificate_of_the_settings(cli: Cli, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "proxy.example")
    cli.settings |= {"CACHE_TLS_CERTFILE": str(certificate), "CACHE_TLS_KEYFILE": str(key)}
    assert f"https://localhost:{cli.settings['CACHE_PORT']}" in cli.ok("on")
    assert cli.json("status")["address"] == f"https://localhost:{cli.settings['CACHE_PORT']}"
    assert cli.json("stats")["session"]["calls"] == 0
    (tmp_path / "other").mkdir()
    other, other_key = make_certificate(tmp_path / "other", "proxy.example")
    elsewhere = {"CACHE_TLS_CERTFILE": str(other), "CACHE_TLS_KEYFILE": str(other_key)}
    assert cli("status", **elsewhere).returncode == 1  # trusted is that certificate alone
    cli.ok("stop")


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_status_as_json_is_one_document(cli: Cli) -> None:
    assert set(json.loads(cli("status", "--json").stdout)) == {
        *("up", "pid", "address", "accepting_calls", "since", "uptime_s", "cache"),
        *("mode", "upstreams"),
        *("last_call_s", "errors", "recent_errors", "service"),
    }


def test_restart_stops_nothing_when_a_file_of_the_home_is_wrong(cli: Cli, home: Path) -> None:
    cli.ok("on")
    pid = cli.json("status")["pid"]
    (home / "normalize.json").write_text('{"system_strip": ["("]}')
    assert "system_strip[0]" in cli.fails(2, "restart")
    assert cli.json("status")["pid"] == pid
    (home / "normalize.json").unlink()
    cli.ok("stop")


def test_on_says_which_flags_a_running_proxy_does_not_take(cli: Cli) -> None:
    cli.ok("on")
    said = cli("on", "--mode", "replay").stderr
    assert "CACHE_MODE" in said
    assert "restart" in said
    cli.ok("stop")


def test_an_env_file_others_could_read_is_private_once_the_proxy_runs(cli: Cli, home: Path) -> None:
    home.mkdir(exist_ok=True)
    env = home / ".env"
    env.write_text("ANTHROPIC_API_KEY_REAL=sk-ant-real\n")
    env.chmod(0o644)
    cli.ok("on")
    assert env.stat().st_mode & 0o777 == 0o600
    cli.ok("stop")


def test_status_tells_all_that_kept_the_last_start_from_being_one(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "proxy.log").write_text(
        "llm-cache: normalize.json: 2 things are wrong:\n  the first\n  the second\n"
    )
    [line] = cli.json("status")["recent_errors"]
    assert line == "llm-cache: normalize.json: 2 things are wrong: the first; the second"


def test_status_and_stats_speak_of_a_running_proxy_whatever_the_settings_say(cli: Cli) -> None:
    cli.ok("on")
    for text in ("CACHE_TTL_SEC=soon\n", "what is this\n"):
        (cli.home / ".env").write_text(text)
        for command in ("status", "stats"):
            result = cli(command)
            assert result.returncode == 0, result.stderr
            [line] = result.stderr.splitlines()
            assert line.startswith("the settings are wrong, which a start will refuse: ")
        assert cli.json("status")["up"] is True
    cli.ok("stop")
    cli.fails(2, "status")
