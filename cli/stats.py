"""`stats`: what the cache did, in this run and ever, with the proxy up or down."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_cache.cli.open_store import opened_store
from llm_cache.cli.output import console, dollars, duration, note, printable, say_json
from llm_cache.cli.settings_now import settings_beside_it
from llm_cache.host import process
from llm_cache.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print the figures as /stats gives them.")]


def stats(json: Json = False) -> None:
    """Show hits, and tokens and money saved.

    This run, all time, and by model. Works with the proxy down too, from the ledger.

    Example: llm-cache stats --json
    """
    settings = settings_beside_it()
    running = process.find(settings)
    if running is not None and running.address is not None:
        figures = process.ask(settings, running.address, "GET", "/stats")
    else:
        figures = from_ledger(settings)
    if json:
        say_json(figures)
        return
    if running is None:
        note("the proxy is down; figures are from the ledger")
    elif running.address is None:
        note(f"the proxy (pid {running.pid}) doesn't answer; figures are from the ledger")
    _show(figures)


def from_ledger(settings: Settings) -> dict[str, Any]:
    """The figures of `/stats` without a proxy: there is no session then."""
    from llm_cache.exchange import figures, read_ledger

    tallies: dict[str, dict[str, int | float]] = {}
    sizes = {"entries": 0, "bytes": 0}
    with opened_store(settings) as store:
        if store is not None:
            tallies = read_ledger(store.ledger)
            totals = store.totals()
            sizes = {"entries": totals.entries, "bytes": totals.bytes}
    return {
        **figures.summary(tallies),
        "uptime_s": None,
        "cache": None,
        **sizes,
        "session": None,
        "by_provider": figures.by_provider(tallies),
        "by_model": figures.by_model(tallies),
    }


# Tables

_OVERVIEW_BAR = 12
_MODEL_BAR = 6
_MODEL_FIGURES = 54  # columns that the figures of a model take
_NARROWEST_MODEL = 12
_ROWS = (  # of both columns: label, figure, how it is written
    ("calls", "calls", "number"),
    ("  hits", "hits", "number"),
    ("  of these coalesced", "coalesced", "number"),
    ("  misses", "misses", "number"),
    ("  errors", "errors", "trouble"),
    ("tokens saved", "tokens_saved", "gain"),
    ("tokens spent", "tokens_spent", "number"),
    ("money saved", "usd_saved", "gained money"),
    ("money spent", "usd_spent", "money"),
    ("of all costs saved", "savings_pct", "percent"),
)
_RARE_ROWS = (  # shown when there is something to tell
    ("  bypassed", "bypassed", "number"),
    ("passed through, not counted", "passed", "number"),
    ("calls of unknown price", "unpriced_calls", "trouble"),
    ("provider's cache: tokens read", "prompt_cache_read_tokens", "number"),
    ("provider's cache: tokens written", "prompt_cache_write_tokens", "number"),
)


def _show(figures: dict[str, Any]) -> None:
    screen = console()
    session = figures["session"]
    columns = [("all time", figures)]
    if session is not None:
        facts = [f"up {duration(figures['uptime_s'])}", f"cache {figures['cache']}"]
        if figures.get("address"):
            facts.append(printable(str(figures["address"])))
        screen.print(" · ".join(facts), style="bold")
        screen.print()
        columns.insert(0, ("this run", session))
    screen.print(_overview(columns))
    if figures["by_model"]:
        screen.print()
        screen.print(_models(figures["by_model"], screen.width))
    screen.print()
    screen.print(f"{figures['entries']:,} entries, {_size(figures['bytes'])} on disk", style="dim")
    if failures := figures.get("store_failures"):
        screen.print(f"the store failed {failures:,} times this run; the log says why", style="red")


def _overview(columns: list[tuple[str, dict[str, Any]]]) -> Table:
    table = _table("", *(name for name, _ in columns))
    every = [figures for _, figures in columns]
    rates = [_rate(one["hit_rate_pct"], _OVERVIEW_BAR) for one in every]
    table.add_row(_text("hit rate", "bold"), *rates)
    for label, name, kind in (*_ROWS, *_RARE_ROWS):
        values = [one.get(name) or 0 for one in every]
        if any(values) or (label, name, kind) in _ROWS:
            table.add_row(label, *(_figure(value, kind) for value in values))
    return table


def _models(rows: list[dict[str, Any]], width: int) -> Table:
    table = _table("model", "calls", "hit rate", "tok saved", "saved", "spent")
    table.columns[0].max_width = max(_NARROWEST_MODEL, width - _MODEL_FIGURES)
    sold_by = Counter(row["model"] for row in rows)
    for row in rows:
        # One model of two providers has two rows, and so has what named no model.
        owner = f" ({row['provider']})" if sold_by[row["model"]] > 1 else ""
        table.add_row(
            printable(f"{row['model'] or '(none)'}{owner}"),
            _figure(row["calls"], "number"),
            _rate(row["hit_rate_pct"], _MODEL_BAR),
            _figure(row["tokens_saved"], "gain"),
            _figure(row["usd_saved"], "gained money"),
            _figure(row["usd_spent"], "money"),
        )
    return table


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="bold",
    )
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _figure(value: float, kind: str) -> Text:
    """A figure in its colour: what was gained stands out, what is zero recedes."""
    if "money" in kind:
        written = dollars(value, 2 if value >= 1000 else 4)
    else:
        written = f"{value:.1f} %" if kind == "percent" else f"{value:,.0f}"
    style = {"trouble": "red", "gain": "green", "gained money": "bold green"}.get(kind, "")
    return _text(written, style if value else "dim")


def _rate(percent: float, width: int) -> Text:
    """A bar and a figure: `██████░░░░░░  50.0 %`."""
    from rich.text import Text

    filled = min(width, max(0, int(width * percent / 100 + 0.5)))
    return Text.assemble(
        ("█" * filled, "green"), ("░" * (width - filled), "bright_black"), f" {percent:5.1f} %"
    )


def _text(words: str, style: str) -> Text:
    from rich.text import Text

    return Text(words, style)


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
