"""`stats`: what the cache did, in this run and ever, with the proxy up or down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_cache.cli.output import console, dollars, duration, note, printable, say_json
from llm_cache.server import process
from llm_cache.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print the figures as /stats gives them.")]


def stats(json: Json = False) -> None:
    """Show hits, and tokens and money saved.

    This run, all time, and by model. Works with the proxy down too, from the ledger.

    Example: llm-cache stats --json
    """
    settings = load_settings()
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
    from llm_cache.server import stats as figures

    tallies: dict[str, dict[str, int | float]] = {}
    sizes = {"entries": 0, "bytes": 0}
    if settings.store_dir.is_dir():  # looking at figures makes no store
        from llm_cache.store import Limits, Store

        limits = Limits(
            ttl_sec=settings.ttl_sec,
            max_entries=settings.max_entries,
            max_bytes=settings.max_bytes,
            stale_sec=settings.stale_if_error_sec,
            max_memory_bytes=0,
        )
        store = Store.open(settings.store_dir, limits)
        try:
            tallies = store.ledger.read()
            totals = store.totals()
            sizes = {"entries": totals.entries, "bytes": totals.bytes}
        finally:
            store.close()
    return {
        **figures.summary(tallies),
        "uptime_s": None,
        "cache": None,
        **sizes,
        "session": None,
        "by_provider": figures.by_provider(tallies),
        "by_model": figures.by_model(tallies),
    }


def _show(figures: dict[str, Any]) -> None:
    screen = console()
    session = figures["session"]
    columns = [("all time", figures)]
    if session is not None:
        screen.print(f"up {duration(figures['uptime_s'])}, cache {figures['cache']}")
        columns.insert(0, ("this run", session))
    screen.print(_overview(columns))
    if figures["by_model"]:
        screen.print()
        screen.print(_models(figures["by_model"]))
    screen.print(f"\n{figures['entries']:,} entries, {_size(figures['bytes'])} on disk")


def _overview(columns: list[tuple[str, dict[str, Any]]]) -> Table:
    table = _table("", *(name for name, _ in columns))

    def row(label: str, *cells: str) -> None:
        table.add_row(label, *cells)

    every = [figures for _, figures in columns]
    row("hit rate", *(_rate(one["hit_rate_pct"]) for one in every))
    for label in ("calls", "hits", "coalesced", "misses", "errors"):
        row(label, *(f"{one[label]:,}" for one in every))
    row("tokens saved", *(f"{one['tokens_saved']:,}" for one in every))
    row("tokens spent", *(f"{one['tokens_spent']:,}" for one in every))
    row("money saved", *(dollars(one["usd_saved"]) for one in every))
    row("money spent", *(dollars(one["usd_spent"]) for one in every))
    row("of all costs saved", *(f"{one['savings_pct']:.1f} %" for one in every))
    if any(one.get("unpriced_calls") for one in every):
        row("calls of unknown price", *(f"{one['unpriced_calls']:,}" for one in every))
    return table


def _models(rows: list[dict[str, Any]]) -> Table:
    table = _table("model", "calls", "hit rate", "saved tok", "saved $", "spent $")
    for row in rows:
        table.add_row(
            printable(row["model"] or "(none)"),
            f"{row['calls']:,}",
            _rate(row["hit_rate_pct"], width=8),
            f"{row['tokens_saved']:,}",
            dollars(row["usd_saved"]),
            dollars(row["usd_spent"]),
        )
    return table


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rate(percent: float, width: int = 12) -> str:
    """A bar and a figure: `██████░░░░░░  50.0 %`."""
    filled = min(width, max(0, round(width * percent / 100)))
    return f"{'█' * filled}{'░' * (width - filled)} {percent:5.1f} %"


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
