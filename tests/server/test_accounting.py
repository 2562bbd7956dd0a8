"""Every call is counted once, as what it was, and costs what the price list says (SPEC 5a).

Figures are exact: each test knows every token of every answer. Prices are compared with those of
genai-prices itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import genai_prices
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import anthropic_wire as wire
from support.proxy import (
    COMMAND,
    START_DEADLINE,
    STOP_DEADLINE,
    MonitorFeed,
    Proxy,
    anthropic_headers,
    clean_environment,
)
from support.raw import exchange
from support.replies import Cut, Gate, json_reply, sse_reply
from support.upstream import Upstream, unused_port, wait_until

FIGURES = {
    "calls": int,
    "hits": int,
    "coalesced": int,
    "misses": int,
    "errors": int,
    "hit_rate_pct": float,
    "tokens_saved": int,
    "tokens_saved_in": int,
    "tokens_saved_out": int,
    "usd_saved": float,
    "tokens_spent": int,
    "usd_spent": float,
    "savings_pct": float,
}
"""The names of SPEC 5a and their types, for all time and for the session."""


def price(model: str, tokens: wire.Json) -> float:
    """What genai-prices says an answer with this `usage` costs. It counts cached tokens as input
    tokens too; Anthropic doesn't."""
    read = tokens["cache_read_input_tokens"]
    written = tokens["cache_creation_input_tokens"]
    usage = genai_prices.Usage(
        input_tokens=tokens["input_tokens"] + read + written,
        output_tokens=tokens["output_tokens"],
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    return float(genai_prices.calc_price(usage, model, provider_id="anthropic").total_price)


def about(usd: float) -> Any:
    """/stats rounds to a millionth of a dollar."""
    return pytest.approx(usd, abs=6e-7)


TOKENS = wire.usage(3, 500)
HAIKU = "claude-haiku-4-5"


def test_figures_have_their_names_and_are_exact(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    haiku = wire.usage(100, 20)
    upstream.script(
        json_reply(wire.message(tokens=TOKENS)),
        json_reply(wire.message(tokens=TOKENS)),
        sse_reply(wire.stream(tokens=haiku, model=HAIKU)),
    )
    for _ in range(4):
        one.ask(wire.request("a"))
    one.ask(wire.request("a"), {"x-cache-mode": "bypass"})
    one.ask(wire.request("b", stream=True))
    one.ask(b" " + wire.request("b", stream=True))
    stats = one.stats()
    costs, haiku_costs = price(wire.MODEL, TOKENS), price(HAIKU, haiku)
    expected = {
        "calls": 7,
        "hits": 4,
        "coalesced": 0,
        "misses": 2,
        "errors": 0,
        "hit_rate_pct": 57.14,
        "tokens_saved": 3 * 503 + 120,
        "tokens_saved_in": 3 * 3 + 100,
        "tokens_saved_out": 3 * 500 + 20,
        "usd_saved": about(3 * costs + haiku_costs),
        "tokens_spent": 2 * 503 + 120,
        "usd_spent": about(2 * costs + haiku_costs),
        "savings_pct": pytest.approx(
            100 * (3 * costs + haiku_costs) / (5 * costs + 2 * haiku_costs), abs=0.01
        ),
    }
    assert {name: stats[name] for name in FIGURES} == expected
    assert {name: stats["session"][name] for name in FIGURES} == expected
    for figures in (stats, stats["session"]):
        assert {name: type(figures[name]) for name in FIGURES} == FIGURES
    assert stats["bypassed"] == 1
    assert (stats["cache"], stats["entries"], stats["unpriced_calls"]) == ("on", 2, 0)
    assert stats["bytes"] > 0
    assert isinstance(stats["uptime_s"], int)
    rows = {row["model"]: row for row in stats["by_model"]}
    assert {model: row["provider"] for model, row in rows.items()} == {
        wire.MODEL: "anthropic",
        HAIKU: "anthropic",
    }
    assert [rows[HAIKU][name] for name in ("calls", "hits", "misses", "tokens_saved")] == [
        2,
        1,
        1,
        120,
    ]
    assert rows[HAIKU]["usd_spent"] == about(haiku_costs)


def test_an_unknown_model_costs_unknown_not_zero_and_not_the_dearest(
    upstream: Upstream, proxy: Any
) -> None:
    """BAR fault 11: unknown models are priced as the dearest."""
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message(model="house-model-1", tokens=TOKENS))
    feed = MonitorFeed(one.port, deadline=20)
    for _ in range(2):
        one.ask(wire.request())
    events = [feed.next(), feed.next()]
    feed.close()
    assert [event["usd"] for event in events] == [None, None]
    assert [(event["in"], event["out"]) for event in events] == [(3, 500)] * 2
    stats = one.stats()
    assert (stats["unpriced_calls"], stats["usd_spent"], stats["usd_saved"]) == (2, 0, 0)
    assert (stats["tokens_spent"], stats["tokens_saved"]) == (503, 503)
    lines = [line for line in one.wait_logged("HIT ").splitlines() if "house-model-1" in line]
    assert ["503tok $?" in line for line in lines] == [True, True]


def test_the_proxy_does_not_start_on_prices_it_cannot_use(
    upstream: Upstream, proxy: Any, home: Path
) -> None:
    home.mkdir(mode=0o700)
    (home / "prices.json").write_text('{"haiku": [1, "2"]}')
    one: Proxy = proxy(start=False)
    one.start(wait=False)
    assert one.wait_exit() == 2
    assert one.output().count("\n") == 1
    assert "prices.json" in one.output()
    assert "haiku" in one.output()


def test_errors_are_errors_and_neither_hits_nor_misses(upstream: Upstream, proxy: Any) -> None:
    """BAR fault 10: 4xx and 5xx are counted as misses, never as errors."""
    one: Proxy = proxy()
    statuses = (400, 401, 404, 429, 500, 529)
    feed = MonitorFeed(one.port, deadline=20)
    for status in statuses:
        upstream.script(json_reply(wire.error(), status=status))
        assert one.ask(wire.request()).status == status
    pieces = wire.stream()
    upstream.script(sse_reply([*pieces[:4], Cut()]))
    assert not one.ask(wire.request(stream=True)).complete
    upstream.refuse()
    upstream.drop_connections()
    assert one.ask(wire.request()).status == 502
    wait_until(lambda: one.stats()["calls"] == 8, "all are counted")
    stats = one.stats()
    assert [stats[name] for name in ("errors", "hits", "misses", "coalesced")] == [8, 0, 0, 0]
    assert stats["usd_spent"] == 0
    assert len(stats["recent_errors"]) == 8
    events = [feed.next() for _ in range(8)]
    feed.close()
    assert [event["status"] for event in events] == [*statuses, 200, 502]
    assert {(event["from_cache"], event["stored"]) for event in events} == {(False, False)}
    metrics = samples(one)
    assert metrics["llm_cache_errors_total"] == 8
    assert metrics["llm_cache_misses_total"] == 0


def test_a_joiner_of_an_answer_that_broke_off_is_no_hit_anywhere(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    gate = Gate()
    pieces = wire.stream()
    upstream.script(sse_reply([*pieces[:4], gate, Cut()]))
    feed = MonitorFeed(one.port, deadline=20)
    threads = [
        threading.Thread(target=one.ask, args=(wire.request(stream=True),)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    gate.wait_reached()
    for _ in range(3):
        one.get("/health")
    gate.release()
    for thread in threads:
        thread.join()
    events = [feed.next() for _ in range(3)]
    feed.close()
    assert {event["from_cache"] for event in events} == {False}
    stats = one.stats()
    assert [stats[name] for name in ("calls", "hits", "errors")] == [3, 0, 3]
    upstream.default = json_reply(wire.message())
    for _ in range(2):
        one.ask(wire.request())
    assert "hit-rate 20.0%" in one.wait_logged("hit-rate")


def samples(proxy: Proxy) -> dict[str, float]:
    """/metrics, parsed; samples of one name added up over their labels."""
    answer = proxy.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_metrics_are_prometheus_text_by_provider_and_model(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    upstream.script(
        json_reply(wire.message(tokens=TOKENS)),
        json_reply(wire.message(model='odd"\\model', tokens=TOKENS)),
    )
    for prompt in ("a", "a", "a", "b"):
        one.ask(wire.request(prompt))
    one.ask(wire.request("c"), {"x-cache-mode": "replay"})
    families = {
        family.name: family for family in text_string_to_metric_families(one.get("/metrics").text)
    }
    counters = ("calls", "hits", "coalesced", "misses", "errors", "tokens_saved", "usd_saved")
    for name in (*counters, "usd_spent"):
        family = families[f"llm_cache_{name}"]
        assert family.type == "counter"
        assert {sample.name for sample in family.samples} == {f"llm_cache_{name}_total"}
        models = {sample.labels["model"] for sample in family.samples}
        assert models == {wire.MODEL, 'odd"\\model', ""}
        assert {sample.labels["provider"] for sample in family.samples} == {"anthropic"}
    of_model = {
        name: next(
            sample.value
            for sample in families[f"llm_cache_{name}"].samples
            if sample.labels["model"] == wire.MODEL
        )
        for name in (*counters, "usd_spent")
    }
    costs = price(wire.MODEL, TOKENS)
    assert of_model == {
        "calls": 3,
        "hits": 2,
        "coalesced": 0,
        "misses": 1,
        "errors": 0,
        "tokens_saved": 1006,
        "usd_saved": about(2 * costs),
        "usd_spent": about(costs),
    }
    assert families["llm_cache_hit_ratio"].type == "gauge"
    assert families["llm_cache_hit_ratio"].samples[0].value == pytest.approx(0.4)
    counts = {
        kind: {
            sample.labels["model"]: sample.value
            for sample in families[f"llm_cache_{kind}_seconds"].samples
            if sample.name == f"llm_cache_{kind}_seconds_count"
        }
        for kind in ("hit", "upstream")
    }
    assert families["llm_cache_hit_seconds"].type == "histogram"
    assert counts == {
        "hit": {wire.MODEL: 2},
        # The replay that missed has asked no upstream.
        "upstream": {wire.MODEL: 1, 'odd"\\model': 1},
    }


# /monitor


EVENT = {
    "seq": int,
    "t": int,
    "type": str,
    "from_cache": bool,
    "stored": bool,
    "provider": str,
    "model": str,
    "in": int,
    "out": int,
    "usd": float,
    "ms": float,
    "key": str,
    "snippet": str,
}


def test_every_call_is_an_event_with_all_its_fields(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    text = "Gold is a chemical element.\nIts symbol is Au — " + "世界" * 60
    flat = " ".join(text.split())[:80]
    upstream.script(
        json_reply(wire.message(text, tokens=TOKENS)),
        sse_reply(wire.stream(text, tokens=TOKENS)),
        json_reply(wire.message("bypassed", tokens=TOKENS)),
        json_reply(b'{"data":[]}'),
    )
    feed = MonitorFeed(one.port, deadline=20)
    keys = []
    for body, headers in (
        (wire.request("plain"), {}),
        (wire.request("plain"), {}),
        (wire.request("plain") + b" ", {}),
        (wire.request("streamed", stream=True), {}),
        (wire.request("streamed", stream=True), {}),
        (wire.request("plain"), {"x-cache-mode": "bypass"}),
    ):
        keys.append(one.ask(body, headers).header("x-cache-key"))
    exchange(one.port, "GET", "/v1/models", anthropic_headers())
    events = [feed.next() for _ in range(7)]
    feed.close()
    calls, passed = events[:6], events[6]
    for event in calls:
        assert {name: type(event[name]) for name in EVENT} == EVENT
        assert (event["provider"], event["model"]) == ("anthropic", wire.MODEL)
        assert (event["in"], event["out"]) == (3, 500)
        assert event["usd"] == pytest.approx(price(wire.MODEL, TOKENS))
        assert event["ms"] > 0
    assert [event["seq"] for event in events] == list(range(1, 8))
    assert [event["t"] for event in events] == sorted(event["t"] for event in events)
    assert [(e["type"], e["from_cache"], e["stored"]) for e in calls] == [
        ("MISS", False, True),
        ("HIT", True, False),
        ("HIT-NORM", True, False),
        ("MISS", False, True),
        ("HIT", True, False),
        ("BYPASS", False, False),
    ]
    assert [event["key"] for event in calls] == keys
    assert [event["snippet"] for event in calls] == [flat] * 5 + ["bypassed"]
    assert (passed["type"], passed["model"], passed["usd"]) == ("PASS", None, None)


def test_a_monitor_that_is_not_read_holds_nobody_up(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message("世" * 100))
    with one.connect() as stuck:
        assert stuck.request("GET", "/monitor").status == 200
        with httpx.Client(base_url=one.url, trust_env=False, headers=anthropic_headers()) as client:
            for _ in range(1000):
                answer = client.post("/v1/messages", content=wire.request())
                assert answer.status_code == 200
        assert one.stats()["calls"] == 1000
        feed = MonitorFeed(one.port, deadline=20)
        one.ask(wire.request())
        assert feed.next()["seq"] == 1001
        feed.close()


# The log


STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
MISS_LINE = re.compile(
    STAMP + r"MISS claude-sonnet-5  200  503tok \$0\.00501  \d+ms \[cached\]  \| spend \$0\.0050$"
)
HIT_LINE = re.compile(
    STAMP + r"HIT  claude-sonnet-5  \+503tok \$0\.00501  \| saved \$0\.0050 / 503tok  "
    r"hit-rate 50\.0%$"
)


def test_a_call_is_one_line_in_the_log_as_llm_cache_proxy_writes_it(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message(tokens=TOKENS))
    for _ in range(2):
        one.ask(wire.request())
    one.stop()
    started, miss, hit, stopped = one.log().splitlines()
    assert "listens on" in started
    assert MISS_LINE.match(miss), miss
    assert HIT_LINE.match(hit), hit
    assert stopped.endswith("stopped")
    assert one.output().splitlines() == one.log().splitlines()  # teed to stdout


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"CACHE_LOG_LEVEL": "silent"}, set()),
        ({"CACHE_QUIET": "1", "CACHE_LOG_LEVEL": "debug"}, set()),
        ({"CACHE_LOG_LEVEL": "error"}, {"error"}),
        ({"CACHE_LOG_LEVEL": "info"}, {"error", "call"}),
        ({"CACHE_LOG_LEVEL": "debug"}, {"error", "call", "debug"}),
    ],
    ids=["silent", "quiet", "error", "info", "debug"],
)
def test_each_log_level_shows_its_lines_and_those_above(
    upstream: Upstream, proxy: Any, settings: dict[str, str], seen: set[str]
) -> None:
    one: Proxy = proxy(**settings)
    upstream.script(json_reply(wire.message()), json_reply(wire.error(), status=429))
    one.ask(wire.request("a"))
    one.ask(wire.request("b"))
    one.ask(wire.request("b"), {"x-cache-mode": "unheard of"})
    assert one.stats()["errors"] == 1
    one.stop()
    for text in (one.log(), one.output()):
        found = {
            name
            for name, mark in (
                ("error", "  429  "),
                ("call", "[cached]"),
                ("debug", "DEBUG refused: 400"),
            )
            if mark in text
        }
        assert found == seen
    assert bool(one.log()) == bool(seen)


def test_the_log_file_can_be_none_or_elsewhere(
    upstream: Upstream, proxy: Any, home: Path, tmp_path: Path
) -> None:
    upstream.default = json_reply(wire.message())
    none: Proxy = proxy(CACHE_LOG_FILE="none")
    none.ask(wire.request())
    none.stop()
    assert "MISS" in none.output()
    assert not list(home.glob("*.log*"))
    elsewhere = tmp_path / "logs" / "own.log"
    other: Proxy = proxy(CACHE_LOG_FILE=str(elsewhere))
    other.ask(wire.request())
    other.stop()
    assert "HIT" in elsewhere.read_text()
    assert elsewhere.stat().st_mode & 0o777 == 0o600
    assert not list(home.glob("*.log*"))


def test_a_stdout_that_nobody_reads_holds_nobody_up(upstream: Upstream, home: Path) -> None:
    upstream.default = json_reply(wire.message(model="m" * 200))
    port = unused_port()
    settings = {"CACHE_PORT": str(port), "CACHE_UPSTREAM_ANTHROPIC": upstream.url}
    process = subprocess.Popen(
        COMMAND,
        env=clean_environment(home, settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert b" listens on " in process.stdout.readline()
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, trust_env=False, headers=anthropic_headers()) as client:
            for _ in range(1500):
                assert client.post("/v1/messages", content=wire.request()).status_code == 200
        log = home / "proxy.log"
        wait_until(lambda: log.read_text().count("HIT") == 1499, "every hit in the log file")
        process.terminate()
        said, _ = process.communicate(timeout=STOP_DEADLINE)
        assert said.startswith(log.read_bytes().split(b"\n")[1])
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["", "a file/proxy.log", "a pipe"])
def test_the_proxy_does_not_start_on_a_log_file_it_cannot_write(
    home: Path, tmp_path: Path, name: str
) -> None:
    """A folder, a file in place of a folder, a pipe that nobody reads."""
    (tmp_path / "a file").touch()
    os.mkfifo(tmp_path / "a pipe")
    path = tmp_path / name
    settings = {"CACHE_PORT": str(unused_port()), "CACHE_LOG_FILE": str(path)}
    ended = subprocess.run(
        COMMAND,
        env=clean_environment(home, settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_DEADLINE,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"llm-cache: CACHE_LOG_FILE={path}: can't be written: ")
    assert ended.stderr.count("\n") == 1


LINES_THAT_NOBODY_READS = """
import sys, time
from llm_cache.server.logfile import Log
log = Log(None, "info")
for number in range(3000):
    log.write("info", [f"line {number} " + "x" * 200])
print("written", file=sys.stderr, flush=True)
sys.stdin.readline()
while True:  # until the test has seen enough
    log.write("info", ["later"])
    time.sleep(0.01)
"""


def test_lines_that_stdout_did_not_take_are_told(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LINES_THAT_NOBODY_READS],
        env=clean_environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == "written\n"
        process.stdin.write("go on\n")
        process.stdin.flush()
        told = missing = 0
        for line in process.stdout:
            if line == "later\n":
                break
            if match := re.match(r"(\d+) lines are missing here", line):
                missing += int(match[1])
            else:
                assert line.startswith(f"line {told + missing} "), "whole lines, in order"
                told += 1
        assert missing > 0
        assert told + missing >= 3000
    finally:
        process.kill()
        process.communicate()


def test_a_full_log_file_is_rotated_and_private(upstream: Upstream, proxy: Any, home: Path) -> None:
    upstream.default = json_reply(wire.message())
    home.mkdir(mode=0o700)
    log = home / "proxy.log"
    log.write_bytes(b"old line\n" * ((10 << 20) // 9))
    log.chmod(0o600)
    (home / "proxy.log.1").write_text("older\n")
    one: Proxy = proxy()
    one.ask(wire.request())
    one.stop()
    rotated = home / "proxy.log.1"
    assert rotated.read_bytes()[:9] == b"old line\n"
    assert rotated.stat().st_size <= 10 << 20
    assert "MISS" in one.log()
    assert log.stat().st_size < 10_000
    assert {path.stat().st_mode & 0o777 for path in (log, rotated)} == {0o600}
    assert sorted(path.name for path in home.glob("proxy.log*")) == ["proxy.log", "proxy.log.1"]


def test_figures_never_go_backwards_while_they_are_read(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message())
    one.ask(wire.request())
    stop = threading.Event()
    asked = [0, 0, 0]

    def ask(number: int) -> None:
        with httpx.Client(base_url=one.url, trust_env=False, headers=anthropic_headers()) as client:
            while not stop.is_set():
                client.post("/v1/messages", content=wire.request())
                asked[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    try:
        last = 0
        for _ in range(80):
            calls = one.stats()["calls"]
            assert calls >= last
            last = calls
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert one.stats()["calls"] == sum(asked) + 1
