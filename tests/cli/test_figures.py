"""stats, monitor, key, price, usage and demo: what they show is what the proxy did."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support import bedrock_wire as aws
from support import gemini_wire as gemini
from support import openai_wire as gpt
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import Response, exchange
from support.replies import json_reply
from support.upstream import Upstream, wait_until

MODEL = "claude-haiku-4-5"
GEMINI = gemini.usage(prompt=12, candidates=34)


def ask(cli: Cli, body: bytes, *headers: tuple[str, str]) -> Response:
    return exchange(
        int(cli.settings["CACHE_PORT"]),
        "POST",
        "/v1/messages",
        [*anthropic_headers(), *headers],
        body,
        deadline=20,
    )


# stats


def test_stats_are_the_same_from_the_proxy_and_from_the_ledger(
    cli: Cli, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message(model=MODEL))
    cli.ok("on")
    for _ in range(3):
        ask(cli, wire.request(model=MODEL))
    up = cli.json("stats")
    assert (up["calls"], up["hits"], up["misses"]) == (3, 2, 1)
    assert up["tokens_saved"] == 2 * up["tokens_spent"] > 0
    assert up["usd_saved"] > 0
    assert up["session"]["hits"] == 2
    cli.ok("stop")
    down = cli.json("stats")
    assert (down["session"], down["cache"], down["uptime_s"]) == (None, None, None)
    for name in ("calls", "hits", "tokens_saved", "usd_saved", "hit_rate_pct", "entries", "bytes"):
        assert down[name] == up[name]
    assert down["by_model"] == up["by_model"]
    assert down["by_model"][0]["model"] == MODEL


def test_stats_as_a_table_have_a_bar_and_the_models(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message(model=MODEL))
    cli.ok("on")
    for _ in range(2):
        ask(cli, wire.request(model=MODEL))
    up = cli.ok("stats")
    assert "this run" in up
    assert "██████░░░░░░  50.0 %" in up
    assert MODEL in up
    cli.ok("stop")
    result = cli("stats")
    assert "this run" not in result.stdout
    assert "██████░░░░░░  50.0 %" in result.stdout
    assert "the proxy is down" in result.stderr


def test_asking_for_figures_makes_no_store(cli: Cli) -> None:
    assert cli.json("stats")["calls"] == 0
    assert not cli.home.exists()


def test_what_a_model_is_called_cannot_write_to_the_terminal(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message(model="evil\x1b[2Jmodel"))
    cli.ok("on")
    ask(cli, wire.request(model="evil\x1b[2Jmodel"))
    said = cli.ok("stats")
    assert "evil" in said
    assert "\x1b" not in said


# monitor


def test_monitor_shows_a_line_per_call_and_outlives_a_restart(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message("Gold is\na chemical element.", model=MODEL))
    cli.ok("on")
    with cli.started("monitor") as monitor:
        assert monitor.stdout is not None
        assert monitor.stderr is not None
        ask_until_shown(cli, monitor)
        ask(cli, wire.request(model=MODEL))
        line = monitor.stdout.readline()
        while "HIT" not in line:
            line = monitor.stdout.readline()
        time, number, kind, model, tokens, price, took, bar, *snippet = line.split()
        assert time.endswith("Z")
        assert number.startswith("#0")
        assert (kind, model, bar) == ("HIT", MODEL, "|")
        assert tokens.endswith("tok")
        assert price.startswith("$0.0")
        assert took.endswith("ms")
        assert " ".join(snippet) == "Gold is a chemical element."

        cli.ok("restart")
        assert "waiting" in monitor.stderr.readline()
        assert "connected again" in monitor.stderr.readline()
        ask_until_shown(cli, monitor)
        monitor.send_signal(signal.SIGINT)
        monitor.communicate(timeout=20)
    assert monitor.returncode == 130


def test_monitor_json_prints_the_events(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message(model=MODEL))
    cli.ok("on")
    with cli.started("monitor", "--json") as monitor:
        event = json.loads(ask_until_shown(cli, monitor))
        assert {"seq", "t", "type", "from_cache", "stored", "provider", "model"} <= set(event)
        assert {"in", "out", "usd", "ms", "key", "snippet"} <= set(event)
        monitor.terminate()
        monitor.communicate(timeout=20)


@pytest.mark.parametrize("connected_first", [False, True])
def test_monitor_ends_with_its_reader_even_when_no_call_comes(
    cli: Cli, upstream: Upstream, connected_first: bool
) -> None:
    upstream.default = json_reply(wire.message(model=MODEL))
    cli.ok("on")
    with cli.started("monitor") as monitor:
        assert monitor.stdout is not None
        assert monitor.stderr is not None
        if connected_first:
            ask_until_shown(cli, monitor)
        monitor.stdout.close()
        assert monitor.wait(20) == 0
        assert monitor.stderr.read() == ""


def test_monitor_without_a_proxy_is_exit_1(cli: Cli) -> None:
    assert "the proxy is down" in cli.fails(1, "monitor")


def ask_until_shown(cli: Cli, monitor: subprocess.Popen[str]) -> str:
    """Make calls until `monitor`, which may not be connected yet, has printed one; that line."""
    assert monitor.stdout is not None
    shown: list[str] = []
    output = monitor.stdout
    reader = threading.Thread(target=lambda: shown.append(output.readline()))
    reader.start()
    count = 0
    while not shown:
        count += 1
        assert count < 500, "monitor shows nothing"
        ask(cli, wire.request(model=MODEL))
        reader.join(0.05)
    return shown[0]


# key


def test_key_is_the_proxys_own(cli: Cli, upstream: Upstream, tmp_path: Path) -> None:
    upstream.default = json_reply(wire.message())
    cli.settings["CLIENT_KEY"] = "sk-ant-test-key"
    cli.ok("on")
    body = tmp_path / "body.json"
    body.write_bytes(wire.request("Grüße"))
    headers = ("--header", "anthropic-version: 2023-06-01", "--api-key-env", "CLIENT_KEY")
    asked = ask(cli, body.read_bytes(), ("x-cache-namespace", "suite"), ("x-cache-sample", "2"))
    key = cli.ok("key", f"@{body}", *headers, "--namespace", "suite", "--sample", "2").strip()
    assert key == asked.header("x-cache-key")
    assert len(key) == 64
    other = cli.ok("key", f"@{body}", *headers, "--namespace", "suite", "--sample", "3").strip()
    assert other != key
    piped = subprocess.run(
        cli.command("key", "-", *headers, "--namespace", "suite", "--sample", "2"),
        env=cli.environment,
        input=body.read_bytes(),
        capture_output=True,
        check=True,
    )
    assert piped.stdout.decode().strip() == key


def test_key_of_the_normalized_tier_ignores_what_the_tier_ignores(cli: Cli) -> None:
    one, two = '{"model": "m", "messages": []}', '{"messages":[],"model":"m"}'
    assert cli.ok("key", one) != cli.ok("key", two)
    tier = ("--tier", "normalized")
    assert cli.ok("key", one, *tier) == cli.ok("key", two, *tier) != cli.ok("key", one)
    both = cli.json("key", one)
    assert both["exact"] + "\n" == cli.ok("key", one)
    assert both["suffix"] is None
    assert "no suffix key" in cli.fails(1, "key", one, "--tier", "suffix")
    assert "no normalized key" in cli.fails(1, "key", one, *tier, CACHE_NORMALIZE="off")


def test_key_says_when_credentials_are_missing(cli: Cli) -> None:
    body = '{"model": "m"}'
    assert "--api-key-env" in cli("key", body).stderr
    assert cli("key", body, CACHE_SCOPE="shared").stderr == ""
    assert cli("key", body, ANTHROPIC_API_KEY_REAL="sk").stderr == ""
    assert "no such variable" in cli.fails(2, "key", body, "--api-key-env", "NO_SUCH")


# price and usage


def test_price_per_token_and_per_million(cli: Cli) -> None:
    said = cli.ok("price", MODEL)
    assert "input        $0.000001 per token   $1 per million" in said
    assert "output       $0.000005 per token   $5 per million" in said
    costs = cli.json("price", MODEL)["usd_per_token"]
    assert (costs["input"], costs["output"]) == (1e-6, 5e-6)
    assert 0 < costs["cache_read"] < costs["input"] < costs["cache_write"]


def test_price_obeys_prices_json(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "prices.json").write_text('{"mine": [0.5e-6, 4e-6]}')
    assert cli.json("price", "mine-8b")["usd_per_token"]["input"] == 0.5e-6


@pytest.mark.parametrize(
    ("model", "whose", "dollars"),
    [
        ("gpt-4o", None, 2.5e-6),
        ("gemini-2.5-flash", None, 0.3e-6),
        ("us.amazon.nova-micro-v1:0", "bedrock", 0.035e-6),
        ("openai.gpt-oss-120b", "bedrock", 0.15e-6),
        ("zai-glm-4.7", "cerebras", 2.25e-6),
    ],
)
def test_price_of_whoevers_model_without_saying_whose(
    cli: Cli, model: str, whose: str | None, dollars: float
) -> None:
    said = cli.json("price", model)
    assert said["provider"] == whose
    assert said["usd_per_token"]["input"] == pytest.approx(dollars)


def test_price_per_token_is_without_what_is_taken_for_each_request(cli: Cli) -> None:
    assert "$3 per million" in cli.ok("price", "sonar-pro").splitlines()[0]


def test_price_of_a_model_that_several_serve_is_asked_back(cli: Cli) -> None:
    model = "openai/gpt-oss-120b"
    result = cli("price", model)
    assert result.returncode == 1
    assert "--provider" in result.stdout
    assert "groq" in result.stdout
    assert cli.json("price", model)["usd_per_token"] is None
    assert cli.json("price", model, "--provider", "groq")["usd_per_token"]["input"] > 0


def test_an_unknown_price_is_unknown_and_exit_1(cli: Cli) -> None:
    result = cli("price", "no-such-model")
    assert result.returncode == 1
    assert result.stdout.startswith("no-such-model: unknown")
    assert cli.json("price", "no-such-model")["usd_per_token"] is None
    assert cli("price", "no-such-model", "--json").returncode == 1


@pytest.mark.parametrize("stream", [False, True])
def test_usage_is_read_from_json_and_from_a_stream(cli: Cli, tmp_path: Path, stream: bool) -> None:
    used = wire.usage(input_tokens=12, output_tokens=34)
    body = tmp_path / "body"
    body.write_bytes(b"".join(wire.stream(tokens=used)) if stream else wire.message(tokens=used))
    facts = cli.json("usage", f"@{body}")
    assert facts["complete"] is True
    assert facts["usage"]["input_tokens"] == 12
    assert facts["usage"]["output_tokens"] == 34
    assert "input_tokens           12" in cli.ok("usage", f"@{body}")


def test_usage_shows_what_else_has_a_price_where_there_is_any(cli: Cli, tmp_path: Path) -> None:
    used = {**wire.usage(12, 34), "server_tool_use": {"web_search_requests": 3}}
    body = tmp_path / "body"
    body.write_bytes(wire.message(tokens={**used, "service_tier": "priority"}))
    shown = cli.ok("usage", f"@{body}").splitlines()
    assert "web_searches           3" in shown
    assert "service_tier           priority" in shown
    assert not any(line.startswith(("input_audio_tokens", "speed")) for line in shown)


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (gpt.chat("hi", tokens=gpt.usage(12, 34)), ()),
        (b"".join(gpt.chat_stream("hi", tokens=gpt.usage(12, 34))), ()),
        (b"".join(gpt.chat_stream("hi", tokens=gpt.usage(12, 34))), ("--provider", "groq")),
        (gpt.chat("hi", tokens=gpt.usage(12, 34)), ("--path", "/api/v1/chat/completions?x=1")),
        (b"".join(gemini.sse(gemini.chunks([gemini.text("hi")], tokens=GEMINI))), ()),
        (b"".join(gemini.array(gemini.chunks([gemini.text("hi")], tokens=GEMINI))), ()),
        (b"".join(aws.conversation("hi", usage=aws.tokens(12, 34))), ()),
        (b"".join(aws.conversation("hi", usage=aws.tokens(12, 34))), ("--provider", "bedrock")),
    ],
)
def test_usage_of_whoevers_answer_is_read_without_saying_whose(
    cli: Cli, tmp_path: Path, body: bytes, options: tuple[str, ...]
) -> None:
    file = tmp_path / "body"
    file.write_bytes(body)
    facts = cli.json("usage", f"@{file}", *options)
    assert facts["complete"] is True
    assert (facts["usage"]["input_tokens"], facts["usage"]["output_tokens"]) == (12, 34)
    assert facts["model"] != "-"


def test_usage_of_an_unknown_kind_is_a_wrong_use(cli: Cli) -> None:
    assert "--provider nobody" in cli.fails(2, "usage", "{}", "--provider", "nobody")
    assert "--path /v1/files" in cli.fails(2, "usage", "{}", "--path", "/v1/files")


@pytest.mark.parametrize("body", ["", "hello", '{"type": "error"}', "[]", "data: x\n\n"])
def test_no_usage_is_exit_1(cli: Cli, body: str) -> None:
    result = cli("usage", body)
    assert result.returncode == 1
    assert result.stdout.startswith("no usage found")


# demo


def test_the_demo_shows_miss_hit_and_what_was_saved(cli: Cli, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    said = cli.ok(
        "demo",
        TMPDIR=str(scratch),
        CACHE_PORT="1",  # none of the user's settings gets into it
        CACHE_MODE="bypass",
        ANTHROPIC_BASE_URL="http://127.0.0.1:9",
        HTTP_PROXY="http://127.0.0.1:9",
    )
    assert said.count("MISS") == 2
    assert said.count("the same ") == 2
    assert "6 requests, 2 reached the upstream, 4 were hits" in said
    assert not list(scratch.iterdir())  # nothing is left behind
    assert not cli.home.exists()


def test_a_demo_that_is_stopped_leaves_nothing_behind(cli: Cli, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    cli.settings["TMPDIR"] = str(scratch)
    with cli.started("demo") as demo:
        wait_until(lambda: bool(list(scratch.glob("*/home/proxy.log"))), "the proxy runs", 20)
        demo.terminate()
        _, stderr = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert stderr == ""
    assert not list(scratch.iterdir())
