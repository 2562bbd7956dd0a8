"""monitor on a real terminal: one line a call, in colour by type, through restarts, to its end."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from support import anthropic_wire as wire
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import Response, exchange
from support.replies import json_reply
from support.terminal import Terminal
from support.upstream import Upstream

MODEL = "claude-haiku-4-5-20251001"
TEXT = "Gold is a chemical element with the symbol Au and the atomic number 79, a noble metal."


def ask(cli: Cli, prompt: str, *headers: tuple[str, str], model: str = MODEL) -> Response:
    port = int(cli.settings["CACHE_PORT"])
    fields = [*anthropic_headers(), *headers]
    return exchange(
        port, "POST", "/v1/messages", fields, wire.request(prompt, model=model), deadline=20
    )


def monitor(cli: Cli, *arguments: str, columns: int = 80, **settings: str) -> Terminal:
    """`monitor` on a terminal."""
    environment = {**cli.environment, **settings}
    if "NO_COLOR" not in settings:
        del environment["NO_COLOR"]
    return Terminal(cli.command("monitor", *arguments), environment, columns=columns)


def connected(cli: Cli, terminal: Terminal) -> None:
    """Block until calls reach the terminal: what was asked before isn't told."""
    for number in range(500):
        ask(cli, f"Is anybody there? {number}", ("x-cache-mode", "bypass"))
        if "BYPASS" in terminal.look(0.05):
            return
    raise AssertionError(f"monitor shows nothing:\n{terminal.text}")


@pytest.mark.parametrize("columns", [40, 60, 80, 132])
def test_every_call_is_one_line_of_the_terminal(cli: Cli, upstream: Upstream, columns: int) -> None:
    upstream.default = json_reply(wire.message(f"金は{TEXT}", model=MODEL))
    cli.ok("on")
    with monitor(cli, columns=columns) as terminal:
        connected(cli, terminal)
        ask(cli, "First")
        ask(cli, "First")
        text = terminal.wait(" MISS ", " HIT ")
        lines = [line for line in text.splitlines() if "#" in line]
        numbers = [int(line.split("#")[1][:4]) for line in lines]
        assert numbers == list(range(numbers[0], numbers[0] + len(lines)))  # none is two lines
        hit = next(line for line in lines if " HIT " in line)
        assert re.match(r"\d\d:\d\d:\d\d #\d{4} HIT +claude-", hit)
        if columns >= 80:
            pattern = r"HIT   claude-haiku-4-5\S* +46tok \$0\.00018 +\d+ms \| 金は"
            assert re.search(pattern, hit.replace("金 ", "金").replace("は ", "は"))


def test_each_type_has_its_colour(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message(TEXT, model=MODEL))
    cli.ok("on")
    with monitor(cli) as terminal:
        connected(cli, terminal)
        ask(cli, "First")
        ask(cli, "First")
        ask(cli, "Nobody asked this", ("x-cache-mode", "replay"))
        reordered = dict(reversed(json.loads(wire.request("First", model=MODEL)).items()))
        port = int(cli.settings["CACHE_PORT"])
        exchange(port, "POST", "/v1/messages", anthropic_headers(), wire.dump(reordered))
        terminal.wait(" MISS ", " HIT ", " HIT-NORM ")
        colours = {
            line.split()[2]: terminal.screen.buffer[y][15].fg
            for y, line in enumerate(terminal.text.splitlines())
            if "#" in line
        }
        assert colours["HIT"] == "green"
        assert colours["MISS"] == "brown"  # what yellow is called in pyte
        assert colours["HIT-NORM"] == "cyan"
        assert colours["BYPASS"] not in ("green", "brown", "cyan", "red")


def test_what_has_no_answer_says_why(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message(TEXT, model=MODEL))
    cli.ok("on")
    with monitor(cli, columns=160) as terminal:
        connected(cli, terminal)
        ask(cli, "Nobody asked this", ("x-cache-mode", "replay"))
        terminal.wait("ms | [not in the cache, and mode replay never asks upstream]")


@pytest.mark.parametrize("settings", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_is_no_escape_sequence_at_all(
    cli: Cli, upstream: Upstream, settings: dict[str, str]
) -> None:
    upstream.default = json_reply(wire.message("\x1b[31mred\x07\x9b2J", model="m\x1b[2J"))
    cli.ok("on")
    with monitor(cli, **settings) as terminal:
        connected(cli, terminal)
        ask(cli, "First")
        terminal.wait(" MISS ")
        assert b"\x1b" not in terminal.written
        assert b"\xc2\x9b" not in terminal.written


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_it_follows_the_next_proxy_when_one_ends(cli: Cli, upstream: Upstream, how: str) -> None:
    upstream.default = json_reply(wire.message(TEXT, model=MODEL))
    cli.ok("on")
    with monitor(cli) as terminal:
        connected(cli, terminal)
        if how == "restart":
            cli.ok("restart")
        else:
            pid = cli.pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            terminal.wait("waiting for it")
            cli.ok("on")
        terminal.wait("connected again")
        for number in range(500):
            ask(cli, f"After it {number}")
            if " MISS " in terminal.look(0.05):
                break
        terminal.wait(" MISS ")


def test_json_on_a_terminal_is_a_document_a_line(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message("\x9bevil", model=MODEL))
    cli.ok("on")
    with monitor(cli, "--json", columns=2000) as terminal:
        connected(cli, terminal)
        ask(cli, "First")
        text = terminal.wait('"MISS"')
        events = [json.loads(line) for line in text.splitlines() if line]
        assert events[-1]["type"] == "MISS"
        assert events[-1]["model"] == MODEL
        assert b"\xc2\x9b" not in terminal.written


@pytest.mark.parametrize("while_waiting", [False, True])
def test_ctrl_c_ends_it_without_a_word(cli: Cli, upstream: Upstream, while_waiting: bool) -> None:
    upstream.default = json_reply(wire.message(TEXT, model=MODEL))
    cli.ok("on")
    with monitor(cli) as terminal:
        terminal.wait("(Ctrl-C ends)")
        if while_waiting:
            connected(cli, terminal)
            cli.ok("stop")
            terminal.wait("waiting for it")
        before = terminal.text
        terminal.type("ctrl+c")
        assert terminal.ended() == 130
        assert terminal.text.replace("^C", "").strip() == before.strip()


def test_it_ends_with_its_terminal(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message(TEXT, model=MODEL))
    cli.ok("on")
    with monitor(cli) as terminal:
        terminal.wait("(Ctrl-C ends)")
        terminal.hang_up()
        assert terminal.exit_code() != 0


def test_what_failed_upstream_is_an_error_and_no_miss(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message(TEXT, model=MODEL))
    cli.ok("on")
    with monitor(cli) as terminal:
        connected(cli, terminal)
        upstream.default = json_reply(b'{"type": "error"}', status=401)
        ask(cli, "Who am I?")
        text = terminal.wait(" ERR ")
        assert " MISS " not in text
