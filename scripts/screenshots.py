"""Make the pictures of `explore`, `monitor` and `stats` in docs/screenshots/ from real runs.

    python scripts/screenshots.py [FOLDER]

Needs `pyte`, which the test dependencies bring. An upstream on loopback plays three APIs, the proxy
runs in a temporary home, requests are sent through it, and every command runs on a terminal of its
own (a pty). What the terminal shows is written as SVG, cell by cell, with no font of a web site.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from support import anthropic_wire, gemini_wire, openai_wire
from support.proxy import Proxy, running_proxy
from support.replies import Pause, Reply, json_reply, sse_reply
from support.terminal import Terminal
from support.upstream import Request, Upstream

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
COLUMNS, LINES = 110, 24

HAIKU, SONNET = "claude-haiku-4-5-20251001", "claude-sonnet-4-5-20250929"
OPENAI, GEMINI = "gpt-4.1-mini", "gemini-2.5-flash"

DARK = TerminalTheme(
    (18, 18, 24),
    (216, 218, 224),
    [
        *((40, 42, 54), (240, 98, 104), (118, 198, 120), (222, 178, 96)),
        *((104, 150, 230), (190, 130, 220), (90, 190, 200), (216, 218, 224)),
    ],
    [
        *((120, 124, 140), (255, 120, 126), (140, 220, 142), (240, 200, 120)),
        *((130, 172, 250), (210, 155, 240), (120, 214, 222), (255, 255, 255)),
    ],
)
_ANSI = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")

WEATHER = [
    anthropic_wire.thinking_block(
        "The user wants the weather of two cities. I have a tool for one city at a time, "
        "so I call it twice; Lisbon first."
    ),
    anthropic_wire.text_block("I'll look both cities up."),
    anthropic_wire.tool_use_block(
        "get_weather", {"city": "Lisbon", "unit": "celsius", "days": 3}, "toolu_01Lisbon"
    ),
]
TOOLS = [
    {
        "name": "get_weather",
        "description": "The forecast of one city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]
QUESTIONS = (
    ("Name the chemical element with the symbol Au.", "Gold is a chemical element."),
    ("Translate “good morning” into Portuguese.", "Bom dia!"),
    ("Write a haiku about caches.", "Kept from yesterday, / the answer waits in its drawer — / "),
    ("Is 2027 a prime number?", "Yes, 2027 is prime."),
    ("Summarize the release notes in one line.", "Faster hits, fewer surprises."),
    ("Which HTTP status means “gone”?", "410 Gone."),
    ("Give three synonyms of “quick”.", "Fast, rapid, swift."),
    ("Explain WAL mode of SQLite to a child.", "Imagine a notebook beside the big book …"),
    ("What is the capital of Mongolia?", "Ulaanbaatar."),
    ("Extract all dates as ISO 8601.", "2026-03-01, 2026-04-15"),
    ("Grade this essay from 1 to 10.", "7: clear, but the ending is abrupt."),
    ("Classify the sentiment: “not bad at all”", "positive"),
)


def answer(request: Request) -> Reply:
    """Play the three APIs, as slow as models are: a miss costs what a miss costs."""
    seconds = 0.5 + zlib.crc32(request.body) % 1000 / 1000
    reply = at_once(request)
    return replace(reply, before=(Pause(seconds), *reply.before))


def at_once(request: Request) -> Reply:
    """The answer, without the wait."""
    path = request.target.partition("?")[0]
    said = next((told for asked, told in QUESTIONS if asked.encode() in request.body), "Fine.")
    if b"Lisbon" in request.body:
        tokens = anthropic_wire.usage(412, 96)
        pieces = anthropic_wire.stream(WEATHER, model=SONNET, tokens=tokens)
        return sse_reply(pieces, headers=anthropic_wire.RESPONSE_HEADERS)
    if "generateContent" in path:
        return json_reply(gemini_wire.answer(said, model=GEMINI))
    if "chat/completions" in path:
        body = openai_wire.chat(said).replace(openai_wire.MODEL.encode(), OPENAI.encode())
        return json_reply(body)
    tokens = anthropic_wire.usage(24 + len(request.body) // 4, 8 + len(said) // 3)
    model = HAIKU if HAIKU.encode() in request.body else SONNET
    if b'"stream":true' in request.body:
        return sse_reply(anthropic_wire.stream(said, model=model, tokens=tokens))
    return json_reply(anthropic_wire.message(said, model=model, tokens=tokens))


def ask_everything(proxy: Proxy, only: int | None = None) -> None:
    """Send every question, some again and again."""
    google, openai = {"x-goog-api-key": "AIza-demo"}, {"authorization": "Bearer sk-demo"}
    for number, (asked, _) in enumerate(QUESTIONS[:only]):
        for _ in range(1 + number % 4):
            if number % 4 == 3:
                body = openai_wire.request(asked, model=OPENAI)
                proxy.post("/v1/chat/completions", body, openai).raise_for_status()
            elif number % 6 == 4:
                path = f"/v1beta/models/{GEMINI}:generateContent"
                proxy.post(path, gemini_wire.request(asked), google).raise_for_status()
            else:
                model = SONNET if number % 3 else HAIKU
                proxy.ask(anthropic_wire.request(asked, model=model, stream=number % 2 == 0))
    for _ in range(3 if only is None else 0):
        proxy.ask(
            anthropic_wire.request(
                "What's the weather in Lisbon and in Oslo over the next three days?",
                model=SONNET,
                stream=True,
                tools=TOOLS,
                system="You are a travel assistant. Answer briefly and use the tools you have.",
            )
        )


# A terminal's screen as a picture


def picture(terminal: Terminal, title: str) -> str:
    """The screen as SVG."""
    screen = terminal.screen
    lines = []
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        line = Text()
        for style, run in groupby(cells, key=_style):
            line.append("".join(cell.data for cell in run), style)
        lines.append(line)
    while lines and _is_blank(screen.buffer[len(lines) - 1].values()):
        lines.pop()
    console = Console(
        record=True,
        width=screen.columns,
        height=len(lines),
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    for line in lines:
        line.no_wrap = True
        console.print(line, end="\n", overflow="ignore", crop=True, soft_wrap=True)
    svg = console.export_svg(title=title, theme=DARK, unique_id="screen")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    fonts = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    svg = re.sub(r"font-family: (?:Fira Code, monospace|arial)", f"font-family: {fonts}", svg)
    svg = svg.replace("<!-- Generated with Rich https://www.textualize.io -->\n", "")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _is_blank(cells: Iterable[Any]) -> bool:
    return all(cell.data == " " and cell.bg == "default" for cell in cells)


def _style(cell: Any) -> Style:
    front, back = _colour(cell.fg), _colour(cell.bg)
    return Style(
        color=front, bgcolor=back, bold=cell.bold, italic=cell.italics, reverse=cell.reverse
    )


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    bright = name.startswith("bright")
    return f"color({_ANSI.index(name.removeprefix('bright')) + 8 * bright})"


# The runs


@contextmanager
def terminal(proxy: Proxy, *arguments: str, lines: int = LINES, **settings: str) -> Iterator[Any]:
    """`llm-cache` with these arguments, in the proxy's home."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(proxy.home.parent),
        "LLM_CACHE_HOME": str(proxy.home),
        "CACHE_PORT": str(proxy.port),
        **settings,
    }
    command = [sys.executable, "-m", "llm_cache", *arguments]
    with Terminal(command, environment, columns=COLUMNS, lines=lines) as running:
        yield running


def run(folder: Path) -> None:
    """Make every picture."""
    folder.mkdir(parents=True, exist_ok=True)

    def keep(name: str, shown: Terminal, title: str) -> None:
        (folder / f"{name}.svg").write_text(picture(shown, title), "utf-8")
        print(f"{folder / name}.svg")

    with tempfile.TemporaryDirectory() as place, Upstream(answer) as upstream:
        home = Path(place) / "home"
        settings = {
            f"CACHE_UPSTREAM_{name}": upstream.url for name in ("ANTHROPIC", "OPENAI", "GEMINI")
        }
        with running_proxy(home, settings) as proxy:
            with terminal(proxy, "monitor", lines=24) as monitor:
                monitor.wait("Ctrl-C")
                sender = threading.Thread(target=ask_everything, args=(proxy, 8))
                sender.start()
                monitor.wait("#0020")
                sender.join()
                keep("monitor", monitor, "llm-cache monitor")
            ask_everything(proxy)
            with terminal(proxy, "stats", lines=40) as stats:
                stats.ended()
                keep("stats", stats, "llm-cache stats")
            with terminal(proxy, "explore") as explore:
                explore.wait("proxy up", "Lisbon", " 3 anthropic")
                explore.type("down", "down")
                explore.rest()
                keep("explore", explore, "llm-cache explore")
                explore.type("home", "enter")
                explore.wait("toolu_01Lisbon", "type: message")
                explore.rest()
                keep("explore-entry", explore, "llm-cache explore")


if __name__ == "__main__":
    run(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
