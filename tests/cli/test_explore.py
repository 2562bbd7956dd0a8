"""explore for scripts, on stores that the real proxy filled: list, view, invalidate, and what is
kept of requests."""

from __future__ import annotations

import json
import math
import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import Response, exchange
from support.replies import json_reply, sse_reply
from support.upstream import Upstream

MODEL = "claude-haiku-4-5"
EVIL = "\x1b[2J\x1b]0;owned\x07evil\u202e\x9b31m"


def ask(cli: Cli, body: bytes, *headers: tuple[str, str]) -> Response:
    return exchange(
        int(cli.settings["CACHE_PORT"]),
        "POST",
        "/v1/messages",
        [*anthropic_headers(), *headers],
        body,
        deadline=20,
    )


def filled(cli: Cli, upstream: Upstream, *prompts: str) -> list[str]:
    """The keys of an entry for each prompt, stored by a proxy that runs on."""
    upstream.default = json_reply(wire.message("Gold is\na chemical element.", model=MODEL))
    cli.ok("on")
    answers = [ask(cli, wire.request(prompt, model=MODEL)) for prompt in prompts]
    return [answer.header("x-cache-key") or "" for answer in answers]


# list and JSON


@pytest.mark.parametrize("up", [True, False])
def test_the_list_has_a_line_for_each_entry_with_the_proxy_up_or_down(
    cli: Cli, upstream: Upstream, up: bool
) -> None:
    keys = filled(cli, upstream, "First\n question?", "Second question?")
    if not up:
        cli.ok("stop")
    second, first = cli.ok("explore", "--list").splitlines()
    assert first.split()[0] == keys[0][:12]
    assert first.endswith(" First question?")
    assert second.split()[0] == keys[1][:12]
    for fact in ("anthropic", MODEL, "46"):  # 12 tokens in and 34 out
        assert fact in first.split()


def test_json_tells_all_that_is_known_of_an_entry(cli: Cli, upstream: Upstream) -> None:
    [key] = filled(cli, upstream, "Question?")
    [entry] = cli.json("explore")
    assert entry["key"] == key
    assert (entry["provider"], entry["endpoint"], entry["model"]) == (
        "anthropic",
        "messages",
        MODEL,
    )
    assert (entry["tokens_in"], entry["tokens_out"], entry["status"]) == (12, 34, 200)
    assert (entry["prompt"], entry["snippet"]) == ("Question?", "Gold is a chemical element.")
    assert entry["request_kept"] is True
    assert entry["bytes"] == len(wire.message("Gold is\na chemical element.", model=MODEL))
    assert 0 < entry["usd"] < 0.01


def test_the_list_is_filtered_and_sorted(cli: Cli, upstream: Upstream) -> None:
    filled(cli, upstream, "banana split", "apple pie", "apple cake")
    prompts = [entry["prompt"] for entry in cli.json("explore", "--sort", "prompt")]
    assert prompts == ["apple cake", "apple pie", "banana split"]
    found = cli.json("explore", "--filter", "APPLE haiku pie")
    assert [entry["prompt"] for entry in found] == ["apple pie"]
    nothing = cli("explore", "--list", "--filter", "cherry")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no entry fits" in nothing.stderr


def test_without_a_store_the_list_is_empty_and_none_is_made(cli: Cli) -> None:
    assert cli.json("explore") == []
    assert "empty" in cli("explore", "--list").stderr
    assert not cli.home.exists()


# view


def test_view_shows_request_and_answer_readably(cli: Cli, upstream: Upstream) -> None:
    blocks = [
        wire.thinking_block("I should look."),
        wire.text_block("Let me see."),
        wire.tool_use_block("get_weather", {"city": "Paris"}, "toolu_1"),
    ]
    upstream.default = sse_reply(wire.stream(blocks, model=MODEL))
    cli.ok("on")
    image = {"type": "base64", "media_type": "image/png", "data": "iVBOR" * 200}
    content = [{"type": "image", "source": image}, wire.text_block("Where is it?")]
    body = wire.dump(
        {
            "model": MODEL,
            "max_tokens": 99,
            "stream": True,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": content}],
        }
    )
    key = ask(cli, body).header("x-cache-key") or ""
    said = cli.ok("explore", "--view", key[:10].upper())
    request, answer = said.split("══ ANSWER")
    assert key in request
    assert "max_tokens: 99" in request
    for lines in ("── system ─", "Be brief.", "── user ─", "[image: image/png, 750 bytes]"):
        assert lines in request
    assert "Where is it?" in request
    for lines in ("── thinking ─", "I should look.", "── assistant ─", "Let me see."):
        assert lines in answer
    assert "── calls get_weather  (toolu_1) ─" in answer
    assert '{\n  "city": "Paris"\n}' in answer

    assert re.search(r"^created +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d \(\d+ s ago\)$", request, re.M)
    assert re.search(r"^usd +\$0\.0\d+$", request, re.M)
    assert re.search(r"^request_kept +yes$", request, re.M)

    whole = json.loads(cli.ok("explore", "--view", key, "--json"))
    assert whole["request"].encode() == body
    assert whole["answer"].encode() == b"".join(wire.stream(blocks, model=MODEL))


def test_looking_is_no_use_of_an_entry(cli: Cli, upstream: Upstream) -> None:
    [key] = filled(cli, upstream, "Question?")
    [before] = cli.json("explore")
    cli.ok("explore", "--view", key)
    [after] = cli.json("explore")
    assert (after["hits"], after["accessed"]) == (0, before["accessed"])


@pytest.mark.parametrize("arguments", [("--list",), ("--json",), ("--view",), ("--json", "--view")])
def test_nothing_stored_writes_to_the_terminal_what_it_likes(
    cli: Cli, upstream: Upstream, arguments: tuple[str, ...]
) -> None:
    blocks = [wire.text_block(EVIL), wire.tool_use_block(EVIL, {EVIL: EVIL}, EVIL)]
    upstream.default = json_reply(wire.message(blocks, model=f"m{EVIL}"))
    cli.ok("on")
    key = ask(cli, wire.request(EVIL, model=f"m{EVIL}", system=EVIL)).header("x-cache-key") or ""
    said = cli.ok("explore", *arguments, *([key] if "--view" in arguments else []))
    assert "evil" in said
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(said)


# invalidate


def test_an_invalidated_entry_is_a_miss_for_the_running_proxy(cli: Cli, upstream: Upstream) -> None:
    first, _ = filled(cli, upstream, "First?", "Second?")
    for prompt in ("First?", "Second?"):  # the proxy has them in its memory now
        assert ask(cli, wire.request(prompt, model=MODEL)).header("x-cache") == "HIT"
    assert cli.ok("explore", "--invalidate", first[:16]) == f"removed {first}\n"
    assert ask(cli, wire.request("First?", model=MODEL)).header("x-cache") == "MISS"
    assert ask(cli, wire.request("Second?", model=MODEL)).header("x-cache") == "HIT"


def test_a_prefix_of_several_entries_needs_all(cli: Cli, upstream: Upstream) -> None:
    keys = sorted(filled(cli, upstream, *(f"Question {number}?" for number in range(40))))
    shared = next(a[0] for a, b in pairwise(keys) if a[0] == b[0])
    fitting = [key for key in keys if key.startswith(shared)]
    refused = cli.fails(2, "explore", "--invalidate", shared)
    assert "--all" in refused
    assert len(cli.json("explore")) == 40
    removed = json.loads(cli.ok("explore", "--invalidate", shared, "--all", "--json"))["removed"]
    assert set(fitting) <= set(removed)  # an entry has further keys, which may begin so too
    assert {entry["key"] for entry in cli.json("explore")} == set(keys) - set(removed)
    prefix = shared_prefix(cli)
    told = cli.fails(2, "explore", "--view", prefix)
    assert re.search(rf"several entries \({prefix}[0-9a-f]{{15}}, {prefix}[0-9a-f]{{15}}", told)


def shared_prefix(cli: Cli) -> str:
    """A digit that several keys of the store begin with."""
    digits = [entry["key"][0] for entry in cli.json("explore")]
    return next(digit for digit in digits if digits.count(digit) > 1)


@pytest.mark.parametrize("option", ["--view", "--invalidate"])
def test_a_key_that_is_not_there_is_exit_1(cli: Cli, upstream: Upstream, option: str) -> None:
    assert "no entry has a key" in cli.fails(1, "explore", option, "abc123")
    filled(cli, upstream, "Question?")
    assert "no entry has a key" in cli.fails(1, "explore", option, "f" * 64)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--view", "nothex"),
        ("--invalidate", ""),
        ("--invalidate", "a" * 65),
        ("--view", "a", "--invalidate", "a"),
        ("--all",),
        ("--list", "--sort", "colour"),
        (),
    ],
)
def test_wrong_usage_of_explore_is_exit_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    said = cli.fails(2, "explore", *arguments)
    if not arguments:
        assert "--list" in said


# what is kept of requests


def test_the_request_is_kept_beside_the_answer_compressed_and_counted(
    cli: Cli, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message("Short."))
    cli.ok("on")
    text = " ".join(random.Random(7).choices(["alpha", "beta", "gamma", "delta"], k=20_000))
    body = wire.request(text)
    key = ask(cli, body).header("x-cache-key") or ""
    whole = json.loads(cli.ok("explore", "--view", key, "--json"))
    assert whole["request"].encode() == body
    counted = cli.json("stats")["bytes"]
    on_disk = sum(path.stat().st_size for path in (cli.home / "store").glob("blobs/*/*"))
    assert counted == on_disk
    assert whole["bytes_on_disk"] < counted < len(body) / 2


def test_no_request_and_no_word_of_it_is_kept_when_switched_off(
    cli: Cli, upstream: Upstream
) -> None:
    cli.settings["CACHE_STORE_REQUESTS"] = "0"
    [key] = filled(cli, upstream, "A canary sings.")
    [entry] = cli.json("explore")
    assert (entry["request_kept"], entry["prompt"]) == (False, "")
    assert "CACHE_STORE_REQUESTS=0" in cli.ok("explore", "--view", key)
    assert "→ Gold is a chemical element." in cli.ok("explore", "--list")
    cli.ok("stop")
    files = [path for path in (cli.home / "store").rglob("*") if path.is_file()]
    assert files
    assert not any(b"canary" in path.read_bytes() for path in files)


def test_kept_requests_go_before_answers_do_when_space_runs_short(
    cli: Cli, upstream: Upstream
) -> None:
    """Room for eight answers and two of their requests: all answers stay, the newest requests."""
    cli.settings["CACHE_MAX_BYTES"] = "60000"
    noise = random.Random(3)
    answers = [wire.message(noise.randbytes(2_000).hex()) for _ in range(8)]
    bodies = [wire.request(f"Nr {n} {noise.randbytes(8_000).hex()}") for n in range(8)]
    cli.ok("on")
    for answer, body in zip(answers, bodies, strict=True):
        upstream.script(json_reply(answer))
        assert ask(cli, body).header("x-cache") == "MISS"
    listed = cli.json("explore")
    assert len(listed) == 8
    kept = {entry["prompt"][:4] for entry in listed if entry["request_kept"]}
    assert kept
    assert len(kept) < 8
    assert kept == {f"Nr {number}" for number in range(8 - len(kept), 8)}
    assert cli.json("stats")["bytes"] <= 60_000
    for answer, body in zip(answers, bodies, strict=True):
        again = ask(cli, body)
        assert (again.header("x-cache"), again.body) == ("HIT", answer)


def test_a_closed_pipe_ends_a_long_list(cli: Cli, tmp_path: Path) -> None:
    from support.large_store import fill

    fill(cli.home / "store", 3000)
    with cli.started("explore", "--list") as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.wait(20) == 0
        assert listing.stderr.read() == ""


@pytest.mark.parametrize("arguments", [("--json",), ("--view", "00", "--json")])
def test_a_ttl_without_end_is_null_in_json(cli: Cli, arguments: tuple[str, ...]) -> None:
    from llm_cache.store import Limits, open_store

    store = open_store("local", cli.home / "store", Limits())
    store.put([bytes(32)], b"{}", b"body", ttl=math.inf)
    store.close()
    said = cli.ok("explore", *arguments)
    told = json.loads(said, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    [entry] = told if isinstance(told, list) else [told]
    assert entry["ttl"] is None


def test_entries_of_any_meta_are_listed(cli: Cli) -> None:
    from llm_cache.store import Limits, open_store

    store = open_store("local", cli.home / "store", Limits())
    odd: list[Any] = [b"", b"not json", b"[1]", b'{"usage":{"input_tokens":5},"model":7}']
    for number, meta in enumerate(odd):
        store.put([bytes([number]) * 32], meta, b"body")
    store.close()
    assert len(cli.json("explore")) == 4
    assert len(cli.ok("explore", "--list").splitlines()) == 4
    assert "body" in cli.ok("explore", "--view", "00")
