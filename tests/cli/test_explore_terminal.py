"""explore on a real terminal, keys and all, over stores that the real proxy filled."""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support import anthropic_wire as wire
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import Response, exchange
from support.replies import json_reply, sse_reply
from support.terminal import Terminal
from support.upstream import Upstream

MODEL = "claude-haiku-4-5"
PROMPTS = ("Apples in autumn", "Bananas in boats", "Cherries in cake", "Dates in deserts")
WEATHER = [
    wire.thinking_block("I should look."),
    wire.text_block("Let me see."),
    wire.tool_use_block("get_weather", {"city": "Paris"}, "toolu_1"),
]


def ask(cli: Cli, prompt: str, *, stream: bool = False) -> Response:
    body = wire.request(prompt, model=MODEL, stream=stream)
    port = int(cli.settings["CACHE_PORT"])
    return exchange(port, "POST", "/v1/messages", anthropic_headers(), body, deadline=20)


@pytest.fixture
def keys(cli: Cli, upstream: Upstream) -> list[str]:
    """The keys of an entry for each prompt; the proxy runs on."""
    upstream.default = json_reply(wire.message("It depends.", model=MODEL))
    cli.ok("on")
    return [ask(cli, prompt).header("x-cache-key") or "" for prompt in PROMPTS]


@contextmanager
def explorer(cli: Cli, *arguments: str, columns: int = 80, **settings: str) -> Iterator[Terminal]:
    """`explore` on a terminal, with all entries read."""
    environment = {**cli.environment, **settings}
    if "NO_COLOR" not in settings:
        del environment["NO_COLOR"]
    command = cli.command("explore", *arguments)
    with Terminal(command, environment, columns=columns) as terminal:
        terminal.wait("PROMPT", "proxy ", lambda text: "reading" not in text)
        yield terminal


def at_cursor(terminal: Terminal) -> str:
    """The line with the cursor: the bold one below the headings."""
    lines = terminal.text.splitlines()
    bold = [y for y in range(2, 22) if terminal.screen.buffer[y][30].bold]
    return lines[bold[0]] if bold else ""


def cursor_on(terminal: Terminal, words: str) -> Callable[[str], bool]:
    return lambda text: words in at_cursor(terminal)


def test_the_table_fits_24_lines_of_80_columns(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        text = terminal.wait(*PROMPTS, "proxy up", "q quit")
        assert re.search(r"AGE USED▼ +HITS PROVIDER +MODEL +TOKENS +SIZE PROMPT", text)
        row = next(line for line in text.splitlines() if PROMPTS[0] in line)
        assert re.search(rf"\d+s +\d+s +0 anthropic {MODEL[:14]}.* 46 +\d+B Apples", row)
        assert "4 entries" in text
        assert all(len(line) <= 80 for line in text.splitlines())
        terminal.type("q")
        assert terminal.ended() == 0


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_printed_list_has_a_head_and_a_line_for_each_entry(
    cli: Cli, keys: list[str], columns: int
) -> None:
    command = cli.command("explore", "--list")
    with Terminal(command, cli.environment, columns=columns) as terminal:
        assert terminal.ended() == 0
        head, *rows = [line for line in terminal.text.splitlines() if line.strip()]
    assert head.startswith("KEY")
    assert [row[:12] for row in rows] == [key[:12] for key in reversed(keys)]


def test_arrows_move_and_enter_shows_both_sides(cli: Cli, upstream: Upstream) -> None:
    upstream.script(sse_reply(wire.stream(WEATHER, model=MODEL)))
    upstream.default = json_reply(wire.message("It depends.", model=MODEL))
    cli.ok("on")
    key = ask(cli, "Weather in Paris?", stream=True).header("x-cache-key") or ""
    for prompt in PROMPTS:
        ask(cli, prompt)
    with explorer(cli, columns=100) as terminal:
        terminal.wait(cursor_on(terminal, PROMPTS[3]))
        terminal.type("down", "down")
        terminal.wait(cursor_on(terminal, PROMPTS[1]))
        terminal.type("up")
        terminal.wait(cursor_on(terminal, PROMPTS[2]))
        terminal.type("end")
        terminal.wait(cursor_on(terminal, "Weather in Paris?"))
        terminal.type("enter")
        text = terminal.wait(key, "I should look.", "calls get_weather", '"city": "Paris"')
        assert any("Weather in Paris?" in line.split("││")[0] for line in text.splitlines())
        assert any("Let me see." in line.split("││")[-1] for line in text.splitlines())
        assert "message_start" not in text
        terminal.type("v")
        terminal.wait("pretty", "message_start", '"stop_reason": null')
        terminal.type("v")
        terminal.wait("raw", "event: message_start")
        terminal.type("v")
        terminal.wait("readable", "I should look.")
        terminal.type("p")
        terminal.wait("Apples in autumn", "It depends.")
        terminal.type("tab", "z")
        terminal.wait("Apples in autumn", lambda text: "It depends." not in text)
        terminal.type("z")
        terminal.wait("Apples in autumn", "It depends.")
        terminal.type("escape")
        terminal.wait("q quit", cursor_on(terminal, PROMPTS[0]))


def test_long_answers_scroll(cli: Cli, upstream: Upstream) -> None:
    text = "\n".join(f"Line number {number}." for number in range(1000))
    upstream.default = json_reply(wire.message(text, model=MODEL))
    cli.ok("on")
    ask(cli, "Long?")
    with explorer(cli) as terminal:
        terminal.type("enter")
        terminal.wait("Line number 0.", "Line number 10.")
        terminal.type("down")
        terminal.wait_gone("│ assistant")
        terminal.type("pagedown")
        terminal.wait("Line number 25.")
        terminal.type("end")
        terminal.wait("Line number 999.")
        terminal.type("home")
        terminal.wait("Line number 0.")


def test_the_filter_works_while_it_is_typed(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        terminal.wait(*PROMPTS)
        terminal.type("/")
        terminal.wait("words to look for")
        terminal.type("c", "h")
        terminal.wait("1 of 4 entries", "Cherries")
        terminal.wait_gone("Apples")
        terminal.type("backspace", "backspace", "IN DESERT")
        terminal.wait("1 of 4 entries", "Dates")
        terminal.type("enter")
        terminal.wait("q quit")  # letters are keys again
        terminal.type("d")
        terminal.wait("0 of 3 entries", "invalidated")
        terminal.type("escape")
        terminal.wait("3 entries", *PROMPTS[:3])
        terminal.type("q")
        assert terminal.ended() == 0


def test_sorting_goes_through_the_columns_and_turns_round(cli: Cli, keys: list[str]) -> None:
    def order(text: str) -> list[str]:
        return [prompt for line in text.splitlines() for prompt in PROMPTS if prompt in line]

    with explorer(cli) as terminal:
        terminal.wait(lambda text: order(text) == list(reversed(PROMPTS)))
        for name in ("age", "hits", "tokens", "size", "provider", "model"):
            terminal.type("s")
            terminal.wait(f"by {name} ")
        terminal.type("s")
        terminal.wait("by prompt ▲", "PROMPT▲", lambda text: order(text) == list(PROMPTS))
        terminal.type("S")
        terminal.wait("PROMPT▼", lambda text: order(text) == list(reversed(PROMPTS)))


def test_an_invalidation_holds_at_once_and_can_be_undone(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        terminal.wait(cursor_on(terminal, PROMPTS[3]))
        terminal.type("down", "d")
        terminal.wait("3 entries", f"invalidated {keys[2][:16]}", "u brings it back")
        assert len(cli.json("explore")) == 3
        terminal.type("u")
        terminal.wait("4 entries", "is back", PROMPTS[2])
        assert ask(cli, PROMPTS[2]).header("x-cache") == "HIT"

        terminal.type("home", "d")
        terminal.wait("3 entries", "invalidated")
        terminal.type("down", "u")  # too late
        terminal.wait_gone("invalidated")
        terminal.type("q")
        assert terminal.ended() == 0
    assert len(cli.json("explore")) == 3
    outcomes = [ask(cli, prompt).header("x-cache") for prompt in PROMPTS]
    assert sorted(map(str, outcomes)) == ["HIT", "HIT", "HIT", "MISS"]


def test_an_entry_is_searched_invalidated_and_brought_back(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        terminal.wait(cursor_on(terminal, PROMPTS[3]))
        terminal.type("enter")
        terminal.wait("It depends.")
        terminal.type("/")
        terminal.wait("words to search for")
        terminal.type("dep", "enter")
        terminal.wait_gone("words to search for")
        terminal.type("d")
        terminal.wait("3 entries", "u brings it back")
        terminal.type("u")
        terminal.wait("4 entries", "is back", PROMPTS[3])
        terminal.type("q")
        assert terminal.ended() == 0


def test_the_copied_key_reaches_the_terminals_clipboard(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        terminal.wait(cursor_on(terminal, PROMPTS[3]))
        terminal.type("c")
        terminal.wait(f"copied {keys[3]}"[:79])
        encoded = base64.b64encode(keys[3].encode())
        assert b"\x1b]52;c;" + encoded + b"\x07" in terminal.written


def test_help_lists_the_keys_and_any_key_closes_it(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        terminal.type("?")
        terminal.wait("In the list", "In an entry", "the next request is a miss", "this help")
        terminal.type("down")
        terminal.wait_gone("In the list")
        assert cursor_on(terminal, PROMPTS[3])(terminal.text)  # that key did nothing else
        terminal.type("q")
        assert terminal.ended() == 0


@pytest.mark.parametrize("where", ["list", "entry", "help"])
@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_it_quits_from_everywhere_and_leaves_the_terminal_clean(
    cli: Cli, keys: list[str], where: str, key: str
) -> None:
    with explorer(cli) as terminal:
        terminal.wait(PROMPTS[0])
        if where == "entry":
            terminal.type("enter")
            terminal.wait("It depends.")
        if where == "help":
            terminal.type("?")
            terminal.wait("In the list")
        terminal.type(key)
        assert terminal.ended() == 0
        assert terminal.written.rstrip().endswith((b"\x1b[?1049l", b"\x1b[?1004l")) or (
            terminal.written.count(b"\x1b[?1049h") == terminal.written.count(b"\x1b[?1049l") == 1
        )
        assert b"Traceback" not in terminal.written


def test_a_terminating_signal_restores_the_terminal(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        terminal.wait(PROMPTS[0])
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.ended() == 0
        assert terminal.written.count(b"\x1b[?1049l") == 1


def test_another_size_divides_the_columns_anew(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        terminal.wait(PROMPTS[0])
        terminal.resize(120, 30)
        terminal.wait(lambda text: max(map(len, text.splitlines())) > 80 or MODEL + " " in text)
        terminal.resize(60, 15)
        terminal.wait(lambda text: text.count("\n") == 14 and PROMPTS[0][:6] in text)
        terminal.type("q")
        assert terminal.ended() == 0


def test_without_colour_the_cursor_is_still_to_be_seen(cli: Cli, keys: list[str]) -> None:
    with explorer(cli, NO_COLOR="1") as terminal:
        terminal.wait(cursor_on(terminal, PROMPTS[3]))
        terminal.type("down")
        terminal.wait(cursor_on(terminal, PROMPTS[2]))
        cells = [cell for row in terminal.screen.buffer.values() for cell in row.values()]
        assert {(cell.fg, cell.bg) for cell in cells} == {("default", "default")}
        row = next(y for y in range(2, 22) if PROMPTS[2] in terminal.text.splitlines()[y])
        assert terminal.screen.buffer[row][30].reverse
        assert not terminal.screen.buffer[row + 1][30].reverse


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_a_terminal_that_cannot_draw_is_told_what_to_use(cli: Cli, kind: str) -> None:
    with Terminal(cli.command("explore"), {**cli.environment, "TERM": kind}) as terminal:
        assert terminal.ended() == 2
        assert b"TERM=" + kind.encode() in terminal.written
        assert b"--list" in terminal.written
        assert b"\x1b" not in terminal.written


def test_stored_text_never_reaches_the_terminal_raw(cli: Cli, upstream: Upstream) -> None:
    evil = "\x1b]0;owned\x07\x1b[31mevil\x9b7m\u202e"
    blocks = [wire.text_block(evil), wire.tool_use_block(evil, {evil: evil}, "t")]
    upstream.default = sse_reply(wire.stream(blocks, model=f"m{evil}", piece=3))
    cli.ok("on")
    ask(cli, evil, stream=True)
    with explorer(cli, columns=120) as terminal:
        terminal.wait("evil")
        terminal.type("enter")
        terminal.wait("␛[31mevil")
        for form in ("pretty", "raw"):
            terminal.type("v")
            terminal.wait(form)
        terminal.type("escape")
        terminal.wait("q quit")
        terminal.type("c", "d")
        terminal.wait("invalidated")
        terminal.type("q")
        assert terminal.ended() == 0
        for raw in (b"]0;owned\x07", b"\x1b[31mevil", "\x9b".encode(), "\u202e".encode()):
            assert raw not in terminal.written


def test_what_the_proxy_does_meanwhile_shows(cli: Cli, keys: list[str]) -> None:
    with explorer(cli) as terminal:
        terminal.wait(cursor_on(terminal, PROMPTS[3]))
        ask(cli, "Elderberries at eight")
        terminal.wait("5 entries", "Elderberries")
        terminal.wait(cursor_on(terminal, PROMPTS[3]))  # the cursor stays on its entry
        ask(cli, PROMPTS[0])
        terminal.wait(lambda text: re.search(r" 1 anthropic .* Apples", text) is not None)
        cli.ok("explore", "--invalidate", keys[1])
        terminal.wait("4 entries")
        terminal.wait_gone("Bananas")
        cli.ok("stop")
        terminal.wait("proxy down")


def test_an_entry_that_went_meanwhile_says_so(cli: Cli, keys: list[str]) -> None:
    with explorer(cli, "--filter", "Cherries") as terminal:
        terminal.wait("1 of 4 entries")
        terminal.type("enter")
        terminal.wait("It depends.")
        cli.ok("explore", "--invalidate", keys[2])
        terminal.type("v")
        terminal.wait("this entry isn't there any more")
        terminal.type("d")
        terminal.wait("gone already")


def test_an_empty_or_missing_cache_is_no_fault(cli: Cli) -> None:
    with Terminal(cli.command("explore"), cli.environment) as terminal:
        assert terminal.ended() == 0
        assert "there is no cache" in terminal.text
    cli.ok("on")
    with explorer(cli) as terminal:
        terminal.wait("0 entries")
        terminal.type("enter", "d", "u", "c", "down", "end", "s", "q")
        assert terminal.ended() == 0


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux isn't installed")
def test_it_runs_in_tmux(cli: Cli, keys: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:  # a socket's path must be short
        tmux = ["tmux", "-S", f"{place}/s", "-f", "/dev/null"]
        command = [*tmux, "new-session", shlex.join(cli.command("explore"))]
        try:
            with Terminal(command, cli.environment, columns=90) as terminal:
                terminal.wait(*PROMPTS, "q quit")
                terminal.type("end", "enter")
                terminal.wait(keys[0], "It depends.", PROMPTS[0])
                terminal.type("left", "down", "escape")
                terminal.wait("q quit", *PROMPTS)
                terminal.type("q")
                assert terminal.ended() == 0
                assert "[exited]" in terminal.text
        finally:
            subprocess.run([*tmux, "kill-server"], capture_output=True, check=False)
