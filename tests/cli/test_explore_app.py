"""explore from the inside: how columns, lines and rows are cut, and what a key does to the rest,
with textual's own pilot over a real store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from support.large_store import fill
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import Static

from llm_cache.cli.explore_app import Explorer
from llm_cache.cli.explore_rows import Columns, ago, amount, bytes_in_short
from llm_cache.cli.explore_table import EntryTable
from llm_cache.cli.explore_text import lines_of, safe
from llm_cache.cli.explore_view import EntryView, Pane, wrapped
from llm_cache.cli.output import cut, json_text
from llm_cache.exchange.browse import ORDERS, order_named, row_of
from llm_cache.settings import load_settings
from llm_cache.store import Limits, Store, open_store
from llm_cache.wire.readable.reading import Part

# What is written where


@given(st.floats(0, 3e9))
def test_a_time_takes_four_characters(seconds: float) -> None:
    assert 2 <= len(ago(seconds)) <= 4


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        *((-5, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h")),
        *(
            (86400, "1d"),
            (13 * 86400, "13d"),
            (14 * 86400, "2w"),
            (364 * 86400, "52w"),
            (365 * 86400, "1y"),
        ),
    ],
)
def test_times_are_told_in_the_unit_that_fits(seconds: float, written: str) -> None:
    assert ago(seconds) == written


@given(st.integers(0, 10**14))
def test_an_amount_takes_five_characters(number: int) -> None:
    assert len(amount(number)) <= 5
    assert len(bytes_in_short(number)) <= 5


@given(st.text(max_size=30), st.integers(0, 20))
def test_a_cell_has_exactly_its_width(text: str, width: int) -> None:
    shown = cut(safe(text), width)
    assert cell_len(shown) == width


@given(st.integers(40, 300), st.text(max_size=50), st.text(max_size=50))
def test_a_row_fits_its_terminal(width: int, model: str, words: str) -> None:
    from llm_cache.store import Entry

    meta = json_text({"model": model, "prompt": words, "provider": "p" * 20}).encode()
    entry = Entry(1, meta, "", 10**9, 0, None, 0.0, 0.0, 10**6, None)
    line = Columns.of_width(width).line(row_of("ab" * 32, entry), 1e9)
    assert cell_len(line) <= max(width, 50)
    assert cell_len(Columns.of_width(width).head(ORDERS[0])) <= max(width, 56)


@given(st.text(alphabet=st.sampled_from("ab 金\u0301"), max_size=60), st.integers(2, 12))
def test_wrapping_loses_nothing_but_spaces_at_a_break(text: str, width: int) -> None:
    lines = list(wrapped(text, width))
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(st.text())
def test_no_text_has_anything_a_terminal_obeys(text: str) -> None:
    assert safe(text).isprintable()
    [*lines] = lines_of([Part("user", text, text)])
    assert all(line.text.isprintable() for line in lines)


def test_a_body_of_megabytes_is_cut_with_a_word_about_it() -> None:
    lines = list(lines_of([Part("user", "", "word\n" * 1000)], limit=100))
    assert len(lines) < 30
    assert "not shown" in lines[-1].text


# The app


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """Fifty entries; the first was used last."""
    fill(home / "store", 50)
    one = open_store("local", home / "store", Limits())
    yield one
    one.close()


def explorer(store: Store) -> Explorer:
    return Explorer(load_settings(), store, "", ORDERS[0])


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Let the app work until something holds."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it doesn't come"
        await pilot.pause(0.01)


def table(app: Explorer) -> EntryTable:
    return app.screen_stack[0].query_one(EntryTable)


def words(app: Explorer, which: str = "say") -> str:
    return str(app.screen_stack[0].query_one(f"#{which}", Static).content)


async def ready(app: Explorer, pilot: Pilot[None], count: int = 50) -> None:
    await until(pilot, lambda: f" {count} entries" in words(app, "title"))
    await until(pilot, lambda: "reading" not in words(app, "title"))


@pytest.mark.parametrize("key", ["down", "x", "slash", "enter", "question_mark"])
async def test_any_other_key_makes_an_invalidation_final(store: Store, key: str) -> None:
    app = explorer(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("d")
        await until(pilot, lambda: "brings it back" in words(app))
        await pilot.press(key)
        await until(pilot, lambda: "brings it back" not in words(app))
        await pilot.press("escape", "u")
        await pilot.pause()
    assert store.totals().entries == 49


async def test_undo_brings_back_every_key_body_age_and_hit(store: Store) -> None:
    [(key, before)] = store.find("00000004", 1)
    app = explorer(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("down", "down", "down", "d")
        await until(pilot, lambda: "brings it back" in words(app))
        assert store.find("00000004", 1) == []
        await pilot.press("u")
        await until(pilot, lambda: "is back" in words(app))
        assert table(app).current is not None
        assert table(app).current.key.hex() == key  # type: ignore[union-attr]
    [(_, after)] = store.find("00000004", 1)
    assert (after.created, after.hits, after.meta) == (before.created, 4, before.meta)
    assert store.answer_body(after) == b'{"answer": 1}'
    assert store.request_body(after) == b'{"ask": 1}'


@pytest.mark.parametrize("name", [order.name for order in ORDERS])
async def test_every_order_sorts_and_keeps_the_cursor_on_its_entry(store: Store, name: str) -> None:
    app = explorer(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press(*["down"] * 7)
        chosen = table(app).current
        while table(app).order.name != name:
            await pilot.press("s")
        await pilot.press("S")
        await pilot.press("S")
        order = order_named(name)
        assert order is not None
        values = [order.of(row) for row in table(app).rows]
        assert values == sorted(values, reverse=order.down)
        assert table(app).current == chosen


async def test_a_use_that_is_written_late_shows_though_newer_ones_are_known(
    store: Store, home: Path
) -> None:
    app = explorer(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("end")
        chosen = table(app).current
        assert chosen is not None
        other = sqlite3.connect(home / "store" / "index.sqlite")
        newest = table(app).rows[0]
        with other:
            other.execute(
                "UPDATE entries SET accessed = ?, hits = 90 WHERE id = ?",
                (newest.accessed - 0.5, newest.id + 5),
            )
        other.close()
        await until(pilot, lambda: table(app).rows[1].hits == 90)
        assert [row.id for row in table(app).rows[:2]] == [newest.id, newest.id + 5]
        assert table(app).current == chosen


async def test_a_store_that_fails_is_a_word_and_no_end(store: Store, home: Path) -> None:
    app = explorer(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        busy = sqlite3.connect(home / "store" / "index.sqlite", isolation_level=None)
        busy.execute("PRAGMA writable_schema = ON")
        busy.execute("DELETE FROM sqlite_master WHERE name = 'keys'")
        busy.close()
        await pilot.press("d")
        await until(pilot, lambda: "no such table" in words(app) or "malformed" in words(app))
        await pilot.press("down")
        assert table(app).cursor == 1


async def test_a_filter_narrows_and_leaves_no_stale_rows(store: Store) -> None:
    app = explorer(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("end", "slash", *"haiku")
        await until(pilot, lambda: len(table(app).rows) == 12)
        assert table(app).cursor == 11
        await pilot.press("z")
        await until(pilot, lambda: table(app).rows == [])
        await pilot.press("enter")  # nothing is there to be viewed
        await pilot.press("enter", "d", "c")
        await pilot.press("slash", "escape")
        await until(pilot, lambda: len(table(app).rows) == 50)


async def test_a_fault_inside_is_raised_by_show_and_draws_no_traceback(store: Store) -> None:
    app = explorer(store)

    class Fault(Exception):
        pass

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await ready(app, pilot)
            app.call_later(_raise, Fault)
            await pilot.pause()

    with pytest.raises(Fault):
        await run()
    assert not app._exit_renderables


def _raise(kind: type[Exception]) -> None:
    raise kind


async def test_nothing_of_the_store_is_read_as_markup(home: Path) -> None:
    """Brackets in a model's name or a prompt are brackets."""
    store = open_store("local", home / "store", Limits())
    meta = json_text({"model": "[red]m[/red]", "prompt": "[b]hi[/", "provider": "[x]"}).encode()
    store.put([b"k" * 32], meta, b"[/nope] [bold]")
    app = explorer(store)
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: " 1 entry" in words(app, "title"))
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await until(pilot, lambda: "[red]m[/red]" in _facts(app))
    store.close()


def _facts(app: Explorer) -> str:
    return str(app.screen.query_one("#facts", Static).content)


# In an entry


async def opened(app: Explorer, pilot: Pilot[None]) -> None:
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, EntryView) and "haiku" in _facts(app))


def keys_of(*places: type[Explorer] | type[EntryView] | type[Pane]) -> list[str]:
    """Every key that is bound there, but those that end the program."""
    bound = {
        key
        for place in places
        for binding in place.BINDINGS
        if isinstance(binding, Binding)
        for key in binding.key.split(",")
    }
    return sorted(bound - {"q", "ctrl+c"})


@pytest.mark.parametrize("key", keys_of(Explorer, EntryView, Pane))
async def test_undo_works_whatever_was_pressed_before(store: Store, key: str) -> None:
    app = explorer(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("down", "down", "down")
        await opened(app, pilot)
        await pilot.press(key)
        if key == "slash":
            await pilot.press("a", "enter")
        if key == "question_mark":
            await pilot.press("x")
        if key != "d":
            await pilot.press("d")
        await until(pilot, lambda: "brings it back" in words(app))
        await pilot.press("u")
        await until(pilot, lambda: "is back" in words(app))
    assert store.totals().entries == 50


@pytest.mark.parametrize("columns", [40, 80, 100])
async def test_no_letter_is_hidden_behind_the_scroll_bar(home: Path, columns: int) -> None:
    store = open_store("local", home / "store", Limits())
    text = "".join(f"{number:04}" for number in range(2000))
    meta = json_text({"model": "haiku", "provider": "p"}).encode()
    store.put([b"k" * 32], meta, text.encode())
    app = explorer(store)
    async with app.run_test(size=(columns, 24)) as pilot:
        await until(pilot, lambda: " 1 entry" in words(app, "title"))
        await opened(app, pilot)
        pane = app.screen.query_one("#answer", Pane)
        await until(pilot, lambda: pane.show_vertical_scrollbar)
        await pilot.pause()
        height = pane.scrollable_content_region.height
        shown = "".join(pane.render_line(y).text.rstrip() for y in range(height))
    store.close()
    assert shown
    assert text.startswith(shown)


async def test_a_search_in_an_entry_marks_and_finds_and_leaves_the_filter_alone(home: Path) -> None:
    store = open_store("local", home / "store", Limits())
    text = "\n".join(f"line {number}{' Needle' * (number in (5, 90))}" for number in range(200))
    meta = json_text({"model": "haiku", "provider": "p"}).encode()
    store.put([b"k" * 32], meta, text.encode())
    app = explorer(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: " 1 entry" in words(app, "title"))
        await opened(app, pilot)
        pane = app.screen.query_one("#answer", Pane)
        await pilot.press("slash", *"needle")
        await until(pilot, lambda: len(pane.matches) == 2)
        assert pane.found == pane.matches[0]
        await pilot.press("enter", "m")
        assert pane.found == pane.matches[1]
        found, top = pane.found, pane.scroll_offset.y
        marked = [
            one.text
            for one in pane.render_line(found - top)
            if one.style is not None and one.style.reverse
        ]
        assert marked == ["Needle"]
        await pilot.press("m")
        assert pane.found == pane.matches[0]
        await pilot.press("M")
        assert pane.found == pane.matches[1]
        await pilot.press("escape")
        assert pane.matches == []
        assert isinstance(app.screen, EntryView)
        assert len(table(app).rows) == 1
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
    store.close()
