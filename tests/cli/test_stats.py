"""stats as a person sees it: on a terminal of any width, with and without colour or a proxy."""

from __future__ import annotations

import re

import pytest
from support import anthropic_wire as wire
from support import openai_wire
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import exchange
from support.replies import json_reply
from support.terminal import Terminal
from support.upstream import Upstream

SONNET, HAIKU = "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"


@pytest.fixture
def used(cli: Cli, upstream: Upstream) -> Cli:
    """A proxy that answered nine calls: Sonnet's once and from the cache three times, Haiku's twice
    and from the cache three times."""
    cli.ok("on")
    port = int(cli.settings["CACHE_PORT"])
    for model, prompt, times in ((SONNET, "a", 4), (HAIKU, "b", 4), (HAIKU, "c", 1)):
        upstream.script(json_reply(wire.message(model=model)))
        for _ in range(times):
            body = wire.request(prompt, model=model)
            exchange(port, "POST", "/v1/messages", anthropic_headers(), body, deadline=20)
    return cli


def shown(cli: Cli, *, columns: int = 80, **settings: str) -> Terminal:
    """`stats` on a terminal, to its end."""
    environment = {**cli.environment, **settings}
    if "NO_COLOR" not in settings:
        del environment["NO_COLOR"]
    with Terminal(cli.command("stats"), environment, columns=columns, lines=50) as terminal:
        assert terminal.ended() == 0
    return terminal


def test_this_run_all_time_and_models_fit_80_columns(used: Cli) -> None:
    text = shown(used).text
    assert re.search(r"up \d+ s · cache on · http://localhost:\d+", text)
    assert re.search(r"this run +all time", text)
    assert re.search(r"hit rate +(████████░░░░  66\.7 %) +\1", text)
    for label, figure in (("calls", "9"), ("  hits", "6"), ("  misses", "3"), ("  errors", "0")):
        assert re.search(rf"^{label} +{figure} +{figure}$", text, re.MULTILINE)
    assert re.search(r"^tokens saved +276 +276$", text, re.MULTILINE)
    assert re.search(
        rf"^{SONNET} +4 +█████░  75\.0 % +138 +\$0\.\d+ +\$0\.\d+$", text, re.MULTILINE
    )
    assert re.search(rf"^{HAIKU} +5 +████░░  60\.0 % +138 ", text, re.MULTILINE)
    assert re.search(r"^3 entries, [\d.]+ K?i?B on disk$", text, re.MULTILINE)


def test_all_time_goes_on_over_runs_and_is_there_with_the_proxy_down(used: Cli) -> None:
    used.ok("restart")
    text = shown(used).text
    assert re.search(r"^calls +0 +9$", text, re.MULTILINE)
    assert re.search(r"hit rate +░{12}   0\.0 % +████████░░░░  66\.7 %", text)
    used.ok("stop")
    text = shown(used).text
    assert "the proxy is down" in text
    assert "this run" not in text
    assert re.search(r"hit rate +████████░░░░  66\.7 %", text)
    assert SONNET in text


@pytest.mark.parametrize("columns", [50, 64, 132])
def test_no_line_is_longer_than_the_terminal(used: Cli, columns: int) -> None:
    terminal = shown(used, columns=columns)
    written = re.sub(rb"\x1b\[[0-9;]*m", b"", terminal.written).decode()
    assert max(len(line) for line in written.splitlines()) <= columns
    assert "66.7 %" in terminal.text


def test_what_was_gained_is_green_and_without_colour_all_is_plain(used: Cli) -> None:
    coloured = shown(used)
    row = next(y for y, line in enumerate(coloured.text.splitlines()) if "money saved" in line)
    figure = coloured.text.splitlines()[row].index("$")
    assert coloured.screen.buffer[row][figure].fg == "green"
    assert b"\x1b" not in shown(used, NO_COLOR="1").written
    assert b"\x1b" not in shown(used, TERM="dumb").written


def test_one_model_of_two_providers_is_told_apart(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(openai_wire.chat("Hi."))
    other = upstream.url.replace("127.0.0.1", "localhost")  # of one host it would be a hit
    cli.settings["CACHE_UPSTREAMS"] = f"mine={upstream.url} provider=openai; your={other}"
    cli.ok("on")
    for path in ("/mine/v1/chat/completions", "/your/v1/chat/completions"):
        exchange(
            int(cli.settings["CACHE_PORT"]),
            "POST",
            path,
            [("content-type", "application/json"), ("authorization", "Bearer k")],
            openai_wire.request(),
            deadline=20,
        )
    said = cli.ok("stats", COLUMNS="120")
    model = openai_wire.MODEL
    rows = [line.split("  ")[0] for line in said.splitlines() if model in line]
    assert sorted(rows) == [f"{model} (compatible)", f"{model} (openai)"]


def test_a_name_that_is_too_long_for_its_column_is_told_whole(cli: Cli, upstream: Upstream) -> None:
    name = "publisher/" + "x" * 40 + "-instruct-v1:0"
    upstream.default = json_reply(wire.message(model=name))
    cli.ok("on")
    port = int(cli.settings["CACHE_PORT"])
    body = wire.request(model=name)
    exchange(port, "POST", "/v1/messages", anthropic_headers(), body, deadline=20)
    text = shown(cli).text
    first = [line.split("  ")[0] for line in text.partition("model ")[2].splitlines()]
    assert name in "".join(first)
