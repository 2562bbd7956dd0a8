"""The screens of `explore`: the list of entries, the help, and what every key does.

What always holds: the store is read and written in threads of its own, so a busy store never holds
up a key; what was invalidated last can be brought back until the next key is pressed; nothing that
was stored reaches the terminal but through `printable` and `safe`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, ClassVar, Final

from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from llm_cache.cli.explore_box import FilterBox
from llm_cache.cli.explore_rows import bytes_in_short
from llm_cache.cli.explore_table import EntryTable
from llm_cache.cli.explore_view import EntryView
from llm_cache.errors import LlmCacheError, StoreError
from llm_cache.exchange.browse import ORDERS, Order, Row, filtered, row_of
from llm_cache.host import process
from llm_cache.settings import Settings

if TYPE_CHECKING:
    from llm_cache.store import Entry, Store

FIRST_BATCH: Final = 200
BATCH: Final = 4000
LOOK_SEC: Final = 2.0
"""How often the list is brought up to date, in seconds."""
LATE_SEC: Final = 30.0
"""How long a use may take to be written by the proxy, in seconds; it is commonly one."""
NEWS: Final = 5000
"""Rows looked at to find what is new."""

KEYS: Final = "↑↓ move  Enter view  / filter  s sort  d invalidate  c copy  ? help  q quit"
FILTER_KEYS: Final = "type words   ↓ or Enter to the list   Esc ends the filter"
HELP: Final = """\
In the list
  ↑ ↓ PgUp PgDn Home End  move
  Enter                   view the request and the answer
  /                       filter: all words must be in provider,
                          model, prompt, answer or key; Esc ends it
  s  S                    sort by the next column; turn round
  d                       invalidate: the next request is a miss
  u                       bring it back (until any other key)
  c                       copy the key
  r                       read the list again
In an entry
  Tab ← →                 the other pane
  v                       readable, pretty JSON, raw
  z                       one pane on the whole width
  /                       search the text; m M the next, the
                          previous match; Esc ends it
  n  p                    the next, the previous entry
  Esc                     back to the list
?  this help    q  quit"""


@dataclass(frozen=True, slots=True)
class Removed:
    """All that brings an invalidated entry back as it was."""

    row: Row
    keys: list[bytes]
    entry: Entry
    body: bytes
    request: bytes | None


class Help(ModalScreen[None]):
    """Which key does what; any key closes it."""

    DEFAULT_CSS = """
    Help { align: center middle; }
    Help > Vertical { width: 74; height: auto; max-height: 100%; padding: 0 1; }
    Help > Vertical { border: round $primary; background: $surface; }
    """

    def compose(self) -> ComposeResult:
        """The text, in a frame."""
        with Vertical() as frame:
            frame.border_title = "keys"
            yield Static(HELP, markup=False)


class Explorer(App[None]):
    """The explorer of one store."""

    TITLE = "llm-cache"
    ENABLE_COMMAND_PALETTE = False

    CSS = """
    Screen { background: $background; }
    Help { background: $background 60%; }
    #title { height: 1; padding: 0 1; background: $primary-muted; color: $text; text-style: bold; }
    #say { height: 1; padding: 0 1; color: $text-warning; }
    #keys { height: 1; padding: 0 1; color: $text-muted; }
    #filter { height: 1; border: none; padding: 0 1; display: none; background: $surface; }
    .table--head { text-style: bold; color: $text-primary; }
    .table--cursor { text-style: bold; background: $primary 35%; color: $text; }
    .plain .table--cursor, .plain #title { text-style: bold reverse; }
    .table--dim { color: $text-muted; }
    .table--model { color: $text-secondary; }
    Pane { border: round $panel; border-title-color: $text-muted; }
    Pane:focus { border: round $primary; border-title-color: $text; border-title-style: bold; }
    .pane--heading { text-style: bold; color: $text-primary; }
    .pane--user { color: $text-success; }
    .pane--call { color: $text-warning; }
    .pane--system { color: $text-secondary; }
    .pane--thinking { text-style: italic; color: $text-muted; }
    .pane--facts { color: $text-muted; }
    .pane--name { color: $text-secondary; }
    .pane--error { text-style: bold; color: $text-error; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("question_mark", "help", show=False),
        Binding("slash", "filter", show=False),
        Binding("escape", "end_filter", show=False),
        Binding("s", "sort", show=False),
        Binding("S", "turn_round", show=False),
        Binding("d", "invalidate", show=False),
        Binding("u", "undo", show=False),
        Binding("c", "copy_key", show=False),
        Binding("r", "reload", show=False),
    ]

    def __init__(self, settings: Settings, store: Store, wanted: str, order: Order) -> None:
        plain = bool(os.environ.get("NO_COLOR"))
        super().__init__(ansi_color=True if plain else None)
        self.theme = "ansi-dark" if plain else "tokyo-night"
        self.set_class(plain, "plain")
        self._settings = settings
        self._store = store
        self._rows: list[Row] = []  # all, in the store's order: last used first
        self._wanted = wanted
        self._table = EntryTable(order)
        self._removed: Removed | None = None
        self._loading = False
        self._stored_bytes = 0
        self._stored_entries = 0
        self._proxy = ""
        self._reload_after = 0.0

    def show(self) -> None:
        """Run until the user quits. Raises what made it end otherwise."""
        self.run()
        if self._exception is not None:
            raise self._exception

    def _fatal_error(self) -> None:
        """End without textual's traceback: `show` raises, and the program says it in one line."""
        self._close_messages_no_wait()

    # -- the screen

    def compose(self) -> ComposeResult:
        """Title, table, and the lines at the bottom."""
        yield Static(id="title", markup=False)
        yield self._table
        yield Static(id="say", markup=False)
        yield FilterBox(self._wanted, placeholder="words to look for", id="filter", compact=True)
        yield Static(KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """Begin to read."""
        self._table.focus()
        self.query_one("#filter", Input).display = bool(self._wanted)
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(ValueError, RuntimeError):  # not in the main thread
                asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self._load()
        self._look()
        self.set_interval(LOOK_SEC, self._look)
        self.set_interval(1.0, self._table.refresh)  # ages go on

    def _retitle(self) -> None:
        shown, total = len(self._table.rows), len(self._rows)
        number = f"{shown:,} of {total:,}" if self._wanted else f"{total:,}"
        facts = [
            f"llm-cache explore  {number} {'entry' if total == 1 else 'entries'}",
            bytes_in_short(self._stored_bytes),
            f"by {self._table.order.name} {'▼' if self._table.down else '▲'}",
        ]
        if self._loading:
            facts.append("reading …")
        self.query_one("#title", Static).update(" · ".join(filter(None, (*facts, self._proxy))))

    def _say(self, text: str = "") -> None:
        self.query_one("#say", Static).update(text)

    # -- reading

    @work(thread=True, exclusive=True, group="load")
    def _load(self) -> None:
        """Read every row, page by page; the first ones are on the screen at once."""
        began = time.monotonic()
        self.call_from_thread(self._begin_load)
        rows: list[Row] = []
        size = FIRST_BATCH
        try:
            for key, entry in self._store.entries():
                rows.append(row_of(key, entry))
                if len(rows) >= size:
                    self.call_from_thread(self._add_rows, rows)
                    rows, size = [], BATCH
        except StoreError as error:
            self.call_from_thread(self._say, str(error))
        self.call_from_thread(self._end_load, rows, time.monotonic() - began)

    def _begin_load(self) -> None:
        self._loading = True
        self._incoming: list[Row] = []
        self._retitle()

    def _add_rows(self, rows: list[Row]) -> None:
        self._incoming += rows
        if len(self._incoming) > len(self._rows):
            self._rows = list(self._incoming)
            if self._in_stores_order:
                self._table.show(filtered(self._rows, self._wanted), self._place_of_current())
            self._retitle()

    def _end_load(self, rows: list[Row], seconds: float) -> None:
        self._loading = False
        self._rows = self._incoming + rows
        self._reload_after = time.monotonic() + 10 * seconds
        self._rearrange()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        """Bring the list up to date: what was used or added since, and what has gone."""
        try:
            running = process.find(self._settings)
        except LlmCacheError:
            running = None
        place = f" on {running.address.url}" if running and running.address else ""
        proxy = f"proxy up{place}" if running else "proxy down"
        try:
            totals = self._store.totals()
            fresh = [] if self._loading else self._news()
        except StoreError as error:
            self.call_from_thread(self._say, str(error))
            return
        self.call_from_thread(self._take_news, proxy, totals.entries, totals.bytes, fresh)

    def _news(self) -> list[Row]:
        """The rows that are new or have changed. The proxy writes uses in batches, so one may come
        behind rows that are known already."""
        since = self._rows[0].accessed - LATE_SEC if self._rows else float("-inf")
        known = {row.id: row for row in takewhile(lambda row: row.accessed >= since, self._rows)}
        fresh: list[Row] = []
        for key, entry in islice(self._store.entries(), NEWS):
            if entry.accessed < since:
                break
            row = known.get(entry.id)
            if row is None or (row.accessed, row.hits) != (entry.accessed, entry.hits):
                fresh.append(row_of(key, entry))
        return fresh

    def _take_news(self, proxy: str, entries: int, size: int, fresh: list[Row]) -> None:
        self._proxy, self._stored_bytes = proxy, size
        before, self._stored_entries = self._stored_entries, entries
        if self._loading:
            self._retitle()
            return
        known = {row.id for row in self._rows} if fresh else set()
        added = sum(row.id not in known for row in fresh)
        if entries < before + added and time.monotonic() > self._reload_after:
            self._load()
        elif fresh:
            newer = {row.id for row in fresh}
            self._rows = fresh + [row for row in self._rows if row.id not in newer]
            self._rows.sort(key=ORDERS[0].of, reverse=True)
            self._rearrange()
        else:
            self._retitle()

    # -- order and filter

    @property
    def _in_stores_order(self) -> bool:
        return self._table.order is ORDERS[0] and self._table.down

    def _rearrange(self) -> None:
        """Filter and sort again; the cursor stays on its row."""
        rows = filtered(self._rows, self._wanted)
        if not self._in_stores_order:
            rows.sort(key=self._table.order.of, reverse=self._table.down)
        current = self._table.current
        self._table.show(rows, _place(rows, current) if current else None)
        self._retitle()

    def _place_of_current(self) -> int | None:
        return None if self._table.current is None else self._table.cursor

    def action_filter(self) -> None:
        """Begin to type a filter."""
        box = self.query_one("#filter", Input)
        box.display = True
        box.focus()

    def action_end_filter(self) -> None:
        """Show everything again."""
        box = self.query_one("#filter", Input)
        box.value = ""
        box.display = False
        self._table.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as it is typed."""
        if event.value.lower().split() != self._wanted.lower().split():
            self._wanted = event.value
            self._rearrange()
        self._wanted = event.value

    def on_input_submitted(self) -> None:
        """Keep the filter and go back to the list."""
        self._table.focus()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Tell which keys there are now."""
        if self.screen is self.screen_stack[0]:
            typing = isinstance(event.widget, FilterBox)
            self.query_one("#keys", Static).update(FILTER_KEYS if typing else KEYS)

    def on_filter_box_left(self, event: FilterBox.Left) -> None:
        """Go on in the list."""
        if event.keep:
            self._table.focus()
        else:
            self.action_end_filter()

    def action_sort(self) -> None:
        """Sort by the next column."""
        table = self._table
        table.order = ORDERS[(ORDERS.index(table.order) + 1) % len(ORDERS)]
        table.down = table.order.down
        self._rearrange()

    def action_turn_round(self) -> None:
        """Sort the other way round."""
        self._table.down = not self._table.down
        self._rearrange()

    def action_reload(self) -> None:
        """Read everything again."""
        self._load()

    # -- what is done with an entry

    @property
    def _chosen(self) -> Row | None:
        """The row of the entry that is shown, or under the cursor."""
        return self.screen.row if isinstance(self.screen, EntryView) else self._table.current

    def on_entry_table_opened(self, event: EntryTable.Opened) -> None:
        """Show the request and the answer."""
        self.push_screen(EntryView(self._store, event.row, self._step))

    def _step(self, by: int) -> Row | None:
        before = self._table.cursor
        self._table.place(before + by)
        return self._table.current if self._table.cursor != before else None

    async def on_event(self, event: events.Event) -> None:
        """Any key closes the help, and any but `u` makes an invalidation final."""
        if isinstance(event, events.Key):
            if event.key != "u" and self._removed is not None:
                self._removed = None
                self._say()
            if isinstance(self.screen, Help):
                await self.pop_screen()
                if event.key not in ("q", "ctrl+c"):
                    return
        await super().on_event(event)

    async def action_invalidate(self) -> None:
        """Remove the entry; the proxy's next request for it is a miss."""
        row = self._chosen
        if row is None:
            return
        if isinstance(self.screen, EntryView):
            self.pop_screen()
            self._table.focus()  # where `u` is a key
        try:
            removed = await asyncio.to_thread(_remove, self._store, row)
        except StoreError as error:
            self._say(str(error))
            return
        at = self._table.cursor
        self._rows = [other for other in self._rows if other.id != row.id]
        self._table.show([other for other in self._table.rows if other.id != row.id])
        self._table.place(at)
        self._stored_entries -= 1
        self._retitle()
        key = row.key.hex()[:16]
        if removed is None:
            self._say(f"{key}… was gone already")
        else:
            self._removed = removed
            self._say(f"invalidated {key}…   u brings it back, any other key is final")

    async def action_undo(self) -> None:
        """Bring back what was invalidated last."""
        removed, self._removed = self._removed, None
        if removed is None:
            return
        try:
            row = await asyncio.to_thread(_bring_back, self._store, removed)
        except StoreError as error:
            self._say(f"it can't be brought back: {error}")
            return
        self._rows.insert(0, row)
        self._stored_entries += 1
        self._rearrange()
        with suppress(ValueError):
            self._table.place(self._table.rows.index(row))
        self._say(f"{row.key.hex()[:16]}… is back")

    def action_copy_key(self) -> None:
        """Put the whole key into the clipboard."""
        row = self._chosen
        if row is None:
            return
        key = row.key.hex()
        self.copy_to_clipboard(key)  # asks the terminal (OSC 52); not every one does it
        _copy_with_program(key)
        if isinstance(self.screen, EntryView):
            self.notify(f"copied {key[:16]}…", timeout=2)
        else:
            self._say(f"copied {key}")

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())


def _place(rows: list[Row], row: Row) -> int | None:
    return next((at for at, other in enumerate(rows) if other.id == row.id), None)


def _remove(store: Store, row: Row) -> Removed | None:
    """Delete an entry; what brings it back, or None when there was nothing to delete."""
    found = store.find(row.key.hex(), 1)
    if not found:
        return None
    [(_, entry)] = found
    keys, body, request = store.keys_of(entry), store.answer_body(entry), store.request_body(entry)
    if not store.delete(row.key) or body is None or not keys:
        return None
    return Removed(row, keys, entry, body, request)


def _bring_back(store: Store, removed: Removed) -> Row:
    entry = store.put(
        removed.keys,
        removed.entry.meta,
        removed.body,
        request=removed.request,
        ttl=removed.entry.ttl,
        created=removed.entry.created,
        hits=removed.entry.hits,
    )
    return row_of(removed.row.key.hex(), entry)


def _copy_with_program(text: str) -> None:
    """Copy with the desktop's own program, where there is one: for terminals that don't."""
    commands = [["pbcopy"]] if sys.platform == "darwin" else []
    if os.environ.get("WAYLAND_DISPLAY"):
        commands.append(["wl-copy"])
    if os.environ.get("DISPLAY"):
        commands.append(["xclip", "-selection", "clipboard"])
    for command in commands:
        if shutil.which(command[0]):
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    command,
                    input=text.encode(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=1,
                    check=False,
                )
            return
