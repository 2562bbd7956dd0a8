"""exec: a command finds a proxy of its own, is itself in every way, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.child import child
from support.command import Cli
from support.replies import Gate, Reply, json_reply
from support.upstream import Upstream, wait_until

from llm_cache.cli.exec import command_environment
from llm_cache.host.beside import Calls
from llm_cache.settings import load_settings

ASK = """
import http.client, json, os, sys, urllib.parse
url = urllib.parse.urlsplit(os.environ["ANTHROPIC_BASE_URL"])
connection = http.client.HTTPConnection(url.hostname, url.port)
for prompt in sys.argv[1:]:
    connection.request("POST", "/v1/messages", json.dumps({
        "model": "claude-sonnet-4-5", "max_tokens": 9,
        "messages": [{"role": "user", "content": prompt}]}), {
        "content-type": "application/json", "anthropic-version": "2023-06-01",
        "x-api-key": os.environ.get("ANTHROPIC_API_KEY", "sk-ant-test-key")})
    answer = connection.getresponse()
    answer.read()
    print(answer.status, answer.headers["x-cache"], answer.headers["x-cache-key"])
"""
"""Sends each argument as a prompt, on one connection, and prints how it was answered."""

PROXY_PID = """
import json, os, urllib.request
url = os.environ["ANTHROPIC_BASE_URL"] + "/health"
print(json.load(urllib.request.urlopen(url))["pid"], flush=True)
"""


def ask(*prompts: str) -> tuple[str, ...]:
    return (sys.executable, "-c", ASK, *prompts)


def outcomes(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [" ".join(line.split()[:2]) for line in result.stdout.splitlines()]


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> None:
    wait_until(lambda: not lives(pid), f"process {pid} gone", 20)


def test_a_command_uses_the_homes_store_and_its_sums_go_to_stderr(
    cli: Cli, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message())
    first = cli("exec", "--", *ask("a", "b", "a"))
    assert first.returncode == 0, first.stderr
    assert outcomes(first) == ["200 MISS", "200 MISS", "200 HIT"]
    assert "llm-cache: 1 hit, 2 misses; saved " in first.stderr
    second = cli("exec", "--", *ask("a", "b"))
    assert outcomes(second) == ["200 HIT", "200 HIT"]
    assert "llm-cache: 2 hits, 0 misses; saved " in second.stderr
    assert "; spent 0 tokens, $0.0000" in second.stderr
    assert upstream.call_count == 2
    stats = cli.json("stats")
    assert (stats["hits"], stats["misses"]) == (3, 2)  # in the ledger before it ended


def test_money_and_tokens_are_those_of_the_answers(cli: Cli, upstream: Upstream) -> None:
    usage = wire.usage(100_000, 10_000)
    upstream.default = json_reply(wire.message(model="claude-sonnet-4-5", tokens=usage))
    result = cli("exec", "--", *ask("a", "a", "a"))
    assert "saved 220,000 tokens, $0.9000; spent 110,000 tokens, $0.4500" in result.stderr


def test_misses_that_another_credential_would_hit_are_told_with_the_remedy(
    cli: Cli, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message())
    recorded = cli("exec", "--", *ask("a", "b"), ANTHROPIC_API_KEY="sk-ant-one-canary")
    assert recorded.returncode == 0, recorded.stderr
    replay = ("exec", "--fail-on-miss", "--", *ask("a", "b", "never asked"))
    other = cli(*replay, ANTHROPIC_API_KEY="sk-ant-two-canary")
    assert other.returncode == 1
    assert "llm-cache: 2 of the missed are in the cache for another key" in other.stderr
    assert "record and replay with --scope shared" in other.stderr
    assert "canary" not in other.stderr
    shared = cli(*replay[:1], "--scope", "shared", *replay[1:])
    assert "2 of the missed are in the cache for another key" in shared.stderr
    assert "record them with --scope shared too" in shared.stderr
    same = cli(*replay, ANTHROPIC_API_KEY="sk-ant-one-canary")
    assert outcomes(same) == ["200 HIT", "200 HIT", "504 MISS"]
    assert "another key" not in same.stderr


def test_misses_that_a_shared_scope_would_hit_are_told_so(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    assert cli("exec", "--scope", "shared", "--", *ask("a")).returncode == 0
    missed = cli("exec", "--mode", "replay", "--", *ask("a"))
    assert outcomes(missed) == ["504 MISS"]
    assert "1 of the missed is in the cache for another key" in missed.stderr
    assert "give --scope shared" in missed.stderr
    found = cli("exec", "--scope", "shared", "--mode", "replay", "--", *ask("a"))
    assert outcomes(found) == ["200 HIT"]
    other_namespace = cli("exec", "--mode", "replay", "--namespace", "x", "--", *ask("a"))
    assert outcomes(other_namespace) == ["504 MISS"]
    assert "another key" not in other_namespace.stderr


CODEX = """#!/bin/sh
for word; do echo "$word"; done
"""


def test_codex_is_led_by_arguments_since_it_reads_no_base_url(cli: Cli, tmp_path: Path) -> None:
    codex = tmp_path / "codex"
    codex.write_text(CODEX)
    codex.chmod(0o755)
    led = cli("exec", "--", str(codex), "exec", "hello", OPENAI_API_KEY="sk-canary")
    words = led.stdout.splitlines()
    assert words[:2] == ["-c", "model_provider=llm-cache"]
    assert words[-2:] == ["exec", "hello"]
    [url] = [word for word in words if word.startswith("model_providers.llm-cache.base_url=")]
    assert url.startswith('model_providers.llm-cache.base_url="http://localhost:')
    assert url.endswith('/openai/v1"')
    assert 'model_providers.llm-cache.env_key="OPENAI_API_KEY"' in words
    assert 'model_providers.llm-cache.wire_api="responses"' in words
    assert "canary" not in led.stdout
    own = ("-c", "model_provider=mine", "exec")
    named = cli("exec", "--", str(codex), *own, OPENAI_API_KEY="sk-canary")
    assert named.stdout.splitlines() == list(own)
    with_a_login = cli("exec", "--", str(codex), "exec")
    assert with_a_login.stdout == "exec\n"
    assert "codex is not led to the proxy" in with_a_login.stderr


def test_it_runs_beside_the_proxy_of_the_home(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    cli.ok("on")
    pid = cli.pid()
    result = cli("exec", "--", *ask("a"))
    assert outcomes(result) == ["200 MISS"]
    port = cli.settings["CACHE_PORT"]
    through_the_other = subprocess.run(
        ask("a"),
        env={**cli.environment, "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert outcomes(through_the_other) == ["200 HIT"]
    assert (cli.pid(), cli.json("status")["up"]) == (pid, True)


def test_several_run_at_once(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    with cli.started("exec", "--", *ask("a")) as one, cli.started("exec", "--", *ask("b")) as other:
        for process in (one, other):
            stdout, stderr = process.communicate(timeout=60)
            assert (process.returncode, stdout.split()[:2]) == (0, ["200", "MISS"]), stderr


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_exit_code_is_the_commands(cli: Cli, script: str, code: int) -> None:
    result = cli("exec", "--", "sh", "-c", script)
    assert (result.returncode, result.stdout) == (code, "")


def test_a_command_that_cannot_be_run_has_the_shells_codes(cli: Cli, tmp_path: Path) -> None:
    assert "no-such-command: No such file" in cli.fails(127, "exec", "--", "no-such-command")
    (tmp_path / "text").write_text("not a program")
    assert "Permission denied" in cli.fails(126, "exec", str(tmp_path / "text"))


def test_options_after_the_commands_name_are_its_own(cli: Cli) -> None:
    assert cli.ok("exec", "echo", "--mode", "-h", "--") == "--mode -h --\n"


def test_stdin_reaches_the_command(cli: Cli) -> None:
    result = subprocess.run(
        cli.command("exec", "--", "cat"),
        env=cli.environment,
        input=b"\x00any bytes\xff",
        capture_output=True,
        check=True,
    )
    assert result.stdout == b"\x00any bytes\xff"


def test_a_command_that_asks_nothing_is_told_so(cli: Cli) -> None:
    for options in ((), ("--fail-on-miss",)):  # what asks nothing misses nothing
        for command, code in (("true", 0), ("false", 1)):
            result = cli("exec", *options, "--", command)
            assert (result.returncode, result.stdout) == (code, "")
            assert "no request reached the proxy" in result.stderr


# Replay


def test_a_full_cache_passes_with_no_upstream(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    cli.ok("exec", "--", *ask("a", "b"))
    calls = upstream.call_count
    result = cli("exec", "--mode", "replay", "--fail-on-miss", "--", *ask("b", "a"))
    assert (result.returncode, outcomes(result)) == (0, ["200 HIT", "200 HIT"])
    assert "missed" not in result.stderr
    assert upstream.call_count == calls


def test_fail_on_miss_lists_each_missed_key_and_fails(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    cli.ok("exec", "--", *ask("a"))
    calls = upstream.call_count
    result = cli("exec", "--fail-on-miss", "--", *ask("a", "b", "c", "b"))
    assert outcomes(result) == ["200 HIT", "504 MISS", "504 MISS", "504 MISS"]
    keys = [line.split()[2] for line in result.stdout.splitlines()]
    assert result.returncode == 1
    listed = [line for line in result.stderr.splitlines() if line.startswith("missed ")]
    assert [line.split()[1] for line in listed] == [keys[1], keys[2]]
    assert "  POST /v1/messages  " in listed[0]
    assert listed[0].endswith("  2 times")
    assert "llm-cache: 2 requests were not in the cache; the command ended with code 0" in (
        result.stderr
    )
    assert upstream.call_count == calls  # replay is what --fail-on-miss means


def test_an_upstream_s_refusal_is_an_error_as_it_is_in_stats(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.error("authentication_error", "no"), 401)
    result = cli("exec", "--", *ask("a"))
    assert outcomes(result) == ["401 MISS"]
    assert "llm-cache: 0 hits, 0 misses, 1 error; " in result.stderr
    stats = json.loads(cli.ok("stats", "--json"))
    assert (stats["misses"], stats["errors"]) == (0, 1)


HEAD_FIRST = """
import os, sys, urllib.error, urllib.request
base = os.environ["ANTHROPIC_BASE_URL"]
for method, path in (("HEAD", "/"), ("GET", "/v1/models"), ("GET", "/nowhere")):
    try:
        urllib.request.urlopen(urllib.request.Request(base + path, method=method))
    except urllib.error.HTTPError as error:
        print(method, path, error.code)
"""


def test_what_can_never_be_cached_is_no_miss(cli: Cli, upstream: Upstream) -> None:
    """Claude Code begins with `HEAD /`."""
    upstream.default = json_reply(wire.message())
    cli.ok("exec", "--", *ask("a"))
    calls = upstream.call_count
    command = (sys.executable, "-c", HEAD_FIRST)
    result = cli("exec", "--fail-on-miss", "--", *command, CACHE_UPSTREAM=upstream.url)
    assert result.stdout.splitlines()[:2] == ["HEAD / 504", "GET /v1/models 504"]
    assert result.returncode == 0, result.stderr
    assert "missed" not in result.stderr
    assert upstream.call_count == calls


def test_replay_alone_lists_misses_and_leaves_the_exit_code(cli: Cli, upstream: Upstream) -> None:
    result = cli("exec", "--mode", "replay", "--", "sh", "-c", '"$@"; exit 5', "sh", *ask("a"))
    assert (result.returncode, outcomes(result)) == (5, ["504 MISS"])
    assert f"missed {result.stdout.split()[2]}" in result.stderr


def test_of_many_calls_none_is_lost(cli: Cli, upstream: Upstream) -> None:
    """More than /monitor keeps for a listener that is slow."""
    prompts = [f"question {number}" for number in range(1500)]
    result = cli("exec", "--fail-on-miss", "--", *ask(*prompts))
    assert result.returncode == 1
    assert "1,500 misses" in result.stderr
    listed = {line.split()[1] for line in result.stderr.splitlines() if line.startswith("missed ")}
    assert listed == {line.split()[2] for line in result.stdout.splitlines()}
    assert len(listed) == 1500


def test_an_upstream_that_is_away_is_a_miss_too(cli: Cli) -> None:
    away = {"CACHE_UPSTREAM_ANTHROPIC": "http://127.0.0.1:1"}
    result = cli("exec", "--mode", "cache", "--fail-on-miss", "--", *ask("a"), **away)
    assert (result.returncode, outcomes(result)) == (1, ["502 ERROR"])
    assert "llm-cache: 0 hits, 0 misses, 1 error; " in result.stderr
    assert f"missed {result.stdout.split()[2]}" in result.stderr


# Which store, which settings


def test_a_namespace_splits_the_cache(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    for namespace, seen in (("one", "MISS"), ("two", "MISS"), ("one", "HIT")):
        result = cli("exec", "--namespace", namespace, "--", *ask("a"))
        assert outcomes(result) == [f"200 {seen}"]
    assert "CACHE_NAMESPACE=" in cli.fails(2, "exec", "--namespace", "a\nb", "--", "true")


def test_isolated_has_the_homes_settings_and_an_empty_store(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    cli.ok("exec", "--", *ask("a"))
    del cli.settings["CACHE_UPSTREAM_ANTHROPIC"]
    (cli.home / ".env").write_text(f"CACHE_UPSTREAM_ANTHROPIC={upstream.url}\n")
    before = cli.json("stats")
    result = cli("exec", "--isolated", "--", *ask("a", "a"))
    assert outcomes(result) == ["200 MISS", "200 HIT"]
    assert cli.json("stats") == before


def test_isolated_needs_no_home(cli: Cli) -> None:
    cli.ok("exec", "--isolated", "--", "true")
    assert not cli.home.exists()


def test_another_home_is_another_store(cli: Cli, upstream: Upstream, tmp_path: Path) -> None:
    upstream.default = json_reply(wire.message())
    other = tmp_path / "an other home"
    for _ in range(2):
        result = cli("exec", "--home", str(other), "--", *ask("a"))
    assert outcomes(result) == ["200 HIT"]
    assert (other / "store").is_dir()
    assert not cli.home.exists()
    assert "--isolated" in cli.fails(2, "exec", "--home", str(other), "--isolated", "--", "true")


def test_settings_of_the_homes_listener_do_not_reach_it(cli: Cli, upstream: Upstream) -> None:
    """Host, switch and log are those of the home's proxy; a token guards what has no key here."""
    upstream.default = json_reply(wire.message())
    cli.settings |= {"CACHE_HOST": "0.0.0.0", "CACHE_AUTH_TOKEN": "a-token", "CACHE_OFF": "1"}
    result = cli("exec", "--", *ask("a", "a"))
    assert outcomes(result) == ["200 MISS", "200 HIT"]
    assert not list(cli.home.glob("*.log"))
    cli.ok("exec", "--log-file", str(cli.home / "exec.log"), "--", *ask("a"))
    assert "HIT" in (cli.home / "exec.log").read_text()


def test_a_real_key_is_spent_by_the_command_alone_when_a_token_guards_it(
    cli: Cli, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message())
    cli.settings |= {"CACHE_AUTH_TOKEN": "a-token", "ANTHROPIC_API_KEY_REAL": "sk-ant-real"}
    stranger = 'unset ANTHROPIC_API_KEY; "$@"'
    result = cli("exec", "--", "sh", "-c", f"{stranger}; exit 0", "sh", *ask("a"))
    assert outcomes(result) == ["401 ERROR"]
    assert outcomes(cli("exec", "--", *ask("a"))) == ["200 MISS"]
    assert upstream.calls[-1].request.header("x-api-key") == "sk-ant-real"


def test_a_wrong_setting_is_one_line_and_runs_nothing(cli: Cli, tmp_path: Path) -> None:
    told = cli.fails(2, "exec", "--mode", "sometimes", "--", "touch", str(tmp_path / "ran"))
    assert "CACHE_MODE=sometimes" in told
    for place in (tmp_path, "/proc/none/x.log"):
        told = cli.fails(2, "exec", "--log-file", str(place), "--", "touch", str(tmp_path / "ran"))
        assert f"--log-file {place}: can't be written" in told
    cli.home.mkdir(mode=0o700)
    (cli.home / "normalize.json").write_text('{"system_strip": ["(unclosed"]}')
    told = cli.fails(2, "exec", "--", "touch", str(tmp_path / "ran"))
    assert "normalize.json" in told
    assert not (tmp_path / "ran").exists()


# What the command finds in its environment


def test_the_official_client_finds_the_proxy_and_a_key(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    code = (
        "import anthropic; answer = anthropic.Anthropic(max_retries=0).messages.create("
        "model='claude-sonnet-4-5', max_tokens=9, messages=[{'role': 'user', 'content': 'a'}])\n"
        "print(answer.content[0].text)"
    )
    command = (sys.executable, "-c", code)
    cli.ok("exec", "--", *command, ANTHROPIC_API_KEY_REAL="sk-ant-real")
    calls = upstream.call_count
    replayed = cli("exec", "--fail-on-miss", "--scope", "shared", "--", *command)
    assert (replayed.returncode, upstream.call_count) == (0, calls), replayed.stderr


def environment(**settings: str) -> tuple[dict[str, str], dict[str, str]]:
    """The environment of a command, and what differs from `settings`."""
    found = command_environment(load_settings(environ=settings), "http://localhost:9", settings)
    return found, {name: value for name, value in found.items() if settings.get(name) != value}


def test_every_kin_of_base_url_is_set_as_its_route(home: Path) -> None:
    _, added = environment()
    assert added["ANTHROPIC_BASE_URL"] == "http://localhost:9"
    assert added["OPENAI_BASE_URL"] == "http://localhost:9/openai/v1"
    assert added["GOOGLE_GEMINI_BASE_URL"] == "http://localhost:9/gemini"
    assert added["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] == "http://localhost:9/bedrock"
    assert not any("KEY" in name or "PROXY" in name.upper() for name in added)
    assert "AZURE_OPENAI_ENDPOINT" not in added
    _, added = environment(CACHE_UPSTREAM_AZURE="https://mine.example")
    assert added["AZURE_OPENAI_ENDPOINT"] == "http://localhost:9/azure"


def test_an_http_proxy_is_not_asked_for_loopback(home: Path) -> None:
    found, _ = environment(https_proxy="http://corporate:3128", NO_PROXY="internal.example")
    assert found["NO_PROXY"] == "internal.example,localhost,127.0.0.1,::1"
    assert found["no_proxy"] == "localhost,127.0.0.1,::1"


def test_a_base_url_that_led_elsewhere_is_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = environment(ANTHROPIC_BASE_URL="https://user:secret@gateway.example/llm")
    told = capsys.readouterr().err
    assert found["ANTHROPIC_BASE_URL"] == "http://localhost:9"
    assert "ANTHROPIC_BASE_URL led to gateway.example; the proxy asks https://api.anth" in told
    assert "CACHE_UPSTREAM_ANTHROPIC" in told
    assert "secret" not in told
    environment(ANTHROPIC_BASE_URL="http://localhost:4000")  # the home's own proxy
    environment(
        ANTHROPIC_BASE_URL="https://gateway.example",
        CACHE_UPSTREAM_ANTHROPIC="https://gateway.example",
    )
    assert capsys.readouterr().err == ""


def test_a_key_that_is_there_stays(home: Path) -> None:
    found, _ = environment(ANTHROPIC_API_KEY="mine", ANTHROPIC_API_KEY_REAL="real")
    assert found["ANTHROPIC_API_KEY"] == "mine"
    found, _ = environment(ANTHROPIC_AUTH_TOKEN="mine", ANTHROPIC_API_KEY_REAL="real")
    assert "ANTHROPIC_API_KEY" not in found


# Signals and ends


WAITING = f"""
import os, signal, sys, time
times = 0
def end(number, frame):
    global times
    times += 1
    os.write(1, b"got %d\\n" % number)
    sys.exit(3)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, end)
{PROXY_PID}
while not times:  # a signal.pause() would miss the signal that comes just before it
    time.sleep(0.01)
time.sleep(0.3)  # a second signal would come now
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_reaches_the_command_whose_end_is_awaited(cli: Cli, name: str) -> None:
    number = signal.Signals[name]
    with child(
        cli.command("exec", "--", sys.executable, "-c", WAITING),
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # no terminal: a signal comes by kill
    ) as process:
        assert process.stdout is not None
        proxy = int(process.stdout.readline())
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (3, f"got {int(number)}\n"), stderr
    gone(proxy)


def test_ctrl_c_on_a_terminal_reaches_the_command_once(cli: Cli) -> None:
    """The terminal tells both; the command must hear it one time, and the proxy not at all."""
    script = WAITING.replace("    sys.exit(3)", "") + "print('ended after', times, flush=True)"
    ours, theirs = pty.openpty()
    environ = cli.environment
    with child(
        cli.command("exec", "--", sys.executable, "-c", script),
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(theirs), os.O_RDWR)),  # our terminal now
    ) as process:
        os.close(theirs)
        seen = b""
        while b"\n" not in seen:
            seen += os.read(ours, 100)
        proxy = int(seen)
        os.write(ours, b"\x03")
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:  # Linux tells the end of a terminal so
            pass
        assert process.wait(30) == 0
    os.close(ours)
    assert b"got 2\r\nended after 1\r\n" in seen
    assert b"no request reached the proxy" in seen
    gone(proxy)


def test_a_signal_before_the_command_runs_ends_everything(cli: Cli, tmp_path: Path) -> None:
    """While the proxy starts: its price list is a pipe nobody writes to."""
    cli.home.mkdir(mode=0o700)
    os.mkfifo(cli.home / "prices.json")
    ran = tmp_path / "ran"
    prices = cli.home / "prices.json"
    # The pipe opens once the proxy is there to read it.
    with cli.started("exec", "--", "touch", str(ran)) as process, prices.open("wb"):
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (143, "", "")
    assert not ran.exists()
    assert not children_in(cli.home)


def test_killed_it_leaves_no_proxy_behind(cli: Cli) -> None:
    with child(
        cli.command(
            "exec", "--", sys.executable, "-c", PROXY_PID + "\nimport sys; sys.stdin.read()"
        ),
        env=cli.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        proxy = int(process.stdout.readline())
        process.kill()
        process.wait()
        gone(proxy)


def test_a_proxy_that_dies_is_an_error_of_the_command_alone(cli: Cli) -> None:
    code = PROXY_PID.replace("print(", "pid = ").replace(", flush=True)", "") + (
        "\nimport signal; os.kill(pid, signal.SIGKILL)"
    )
    result = cli("exec", "--", sys.executable, "-c", code)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr


def test_something_the_command_left_behind_is_not_waited_for_long(
    cli: Cli, upstream: Upstream
) -> None:
    """A process that the command leaves behind with a request in flight."""
    gate = Gate()
    upstream.default = Reply(before=(gate,), body=(b"{}",))
    began = time.monotonic()
    script = '"$@" > /dev/null 2>&1 & exec sleep 1'
    result = cli("exec", "--", "sh", "-c", script, "sh", *ask("a"))
    assert result.returncode == 0
    assert time.monotonic() - began < 20
    gate.release()


def children_in(folder: Path) -> list[str]:
    """Processes whose working folder is `folder`: the proxy of an exec runs in its home."""
    found = []
    for process in Path("/proc").iterdir() if Path("/proc/self").exists() else ():
        if process.name.isdigit():
            try:
                if (process / "cwd").readlink() == folder:
                    found.append((process / "cmdline").read_bytes().decode().replace("\0", " "))
            except OSError:
                continue
    return found


def test_events_are_those_of_monitor() -> None:
    """What is counted here and what /monitor sends have one form."""
    calls = Calls()
    event = {"in": 3, "out": 4, "usd": None, "model": None, "key": "ab", "from_cache": False}
    event |= {"method": "POST", "path": "/v1/messages"}
    for kind in ("pass", "bypass", "error", "miss", "miss"):
        calls.count(json.loads(json.dumps({**event, "kind": kind})))
    calls.count({**event, "kind": "hit", "from_cache": True, "usd": 0.5})
    assert (calls.passed, calls.bypassed, calls.errors, calls.misses, calls.hits) == (1, 1, 1, 2, 1)
    assert (calls.tokens_saved, calls.usd_saved, calls.unpriced, calls.total) == (7, 0.5, 5, 6)
    assert calls.missed["ab"].times == 3
