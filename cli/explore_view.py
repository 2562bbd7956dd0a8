"""One entry in `explore`: its request and its answer side by side."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, Final

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.geometry import Size
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input, Static

from llm_cache.cli.explore_box import FilterBox
from llm_cache.cli.explore_rows import ago, amount, bytes_in_short
from llm_cache.cli.explore_text import Line, answer_lines, request_lines, safe
from llm_cache.cli.output import dollars
from llm_cache.errors import StoreError
from llm_cache.exchange.browse import FORMS, Form, Row, Stored, meta_of, stored

if TYPE_CHECKING:
    from llm_cache.store import Store

_JSON_NAME: Final = re.compile(r'\s*"(?:[^"\\]|\\.)*"(?=:)')
_DATA_KINDS: Final = ("call", "facts", "other", "result")


class Pane(ScrollView, can_focus=True):
    """Lines of text, wrapped to the width; only those on the screen are drawn."""

    DEFAULT_CSS = """
    Pane { width: 1fr; height: 1fr; scrollbar-size-vertical: 1; }
    Pane { overflow-x: hidden; overflow-y: auto; }
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("pane--heading", "pane--name", "pane--thinking", "pane--facts", "pane--call"),
        *("pane--user", "pane--error", "pane--system"),
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_lines(-1)", show=False),
        Binding("down,j", "scroll_lines(1)", show=False),
        Binding("pageup,ctrl+b", "scroll_pages(-1)", show=False),
        Binding("pagedown,ctrl+f,space", "scroll_pages(1)", show=False),
        Binding("home,g", "scroll_ends(False)", show=False),
        Binding("end,G", "scroll_ends(True)", show=False),
    ]

    def __init__(self, title: str, identity: str) -> None:
        super().__init__(id=identity)
        self.border_title = title
        self._lines: list[Line] = []
        self._wrapped: list[Line] = []
        self._sources: list[int] = []  # for each wrapped line, the line that it is a piece of
        self._words = ""
        self._marks: dict[int, list[tuple[int, int]]] = {}
        self.matches: list[int] = []
        """The wrapped lines with a match, from the top."""
        self.found: int | None = None
        """The one of them that was gone to last."""

    def show(self, lines: list[Line]) -> None:
        """Show these lines from the first on."""
        self._lines = lines
        self._wrap()
        self.scroll_to(y=0, animate=False, force=True)

    def search(self, words: str) -> None:
        """Mark every match of `words`, whatever its case, and go to the first from the top of the
        screen on."""
        self._words = words
        self._mark()
        ahead = [at for at in self.matches if at >= self.scroll_offset.y]
        self._go_to(ahead[0] if ahead else self.matches[0] if self.matches else None)

    def next_match(self, by: int) -> None:
        """Go to the next (1) or the previous (-1) line with a match, round the ends."""
        if not self.matches:
            return
        at = -1 if self.found is None else self.found
        if by > 0:
            beyond = [other for other in self.matches if other > at]
            self._go_to(beyond[0] if beyond else self.matches[0])
        else:
            before = [other for other in self.matches if other < at]
            self._go_to(before[-1] if before else self.matches[-1])

    def _go_to(self, at: int | None) -> None:
        self.found = at
        if at is not None:
            height = self.scrollable_content_region.height
            if not self.scroll_offset.y <= at < self.scroll_offset.y + height:
                self.scroll_to(y=max(0, at - height // 3), animate=False, force=True)
        self.refresh()

    def _wrap(self) -> None:
        # The scroll bar comes once the lines are counted and takes a column then, with no resize
        # that tells of it.
        region = self.region.shrink(self.styles.gutter)
        self._divide(region.width)
        if len(self._wrapped) > region.height:
            self._divide(region.width - self.styles.scrollbar_size_vertical)
        self.virtual_size = Size(region.width, len(self._wrapped))
        self.found = None
        self._mark()
        self.refresh()

    def _divide(self, width: int) -> None:
        self._wrapped, self._sources = [], []
        for source, line in enumerate(self._lines):
            for piece in wrapped(line.text, max(1, width)):
                self._wrapped.append(Line(line.kind, piece, line.heading))
                self._sources.append(source)

    def _mark(self) -> None:
        """Find the matches in the lines as they were before they were wrapped: one may go on in the
        next line of the screen."""
        self._marks = {}
        if self._words:
            pattern = re.compile(re.escape(self._words), re.IGNORECASE)
            spans = [[one.span() for one in pattern.finditer(line.text)] for line in self._lines]
            source, end = -1, 0
            for at, line in enumerate(self._wrapped):
                if self._sources[at] != source:
                    source, end = self._sources[at], 0
                start = self._lines[source].text.index(line.text, end)
                end = start + len(line.text)
                for left, right in spans[source]:
                    if left < end and right > start:
                        cut = (max(left, start) - start, min(right, end) - start)
                        self._marks.setdefault(at, []).append(cut)
        self.matches = sorted(self._marks)

    def on_resize(self, event: events.Resize) -> None:
        """Wrap to the new width."""
        self._wrap()

    def action_scroll_lines(self, by: int) -> None:
        """Scroll by lines."""
        self.scroll_to(y=self.scroll_offset.y + by, animate=False)

    def action_scroll_pages(self, by: int) -> None:
        """Scroll by a screenful, less one line."""
        step = max(1, self.scrollable_content_region.height - 1)
        self.scroll_to(y=self.scroll_offset.y + by * step, animate=False)

    def action_scroll_ends(self, last: bool) -> None:
        """Scroll to the first or the last line."""
        self.scroll_to(y=len(self._wrapped) if last else 0, animate=False)

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        width = self.scrollable_content_region.width
        at = self.scroll_offset.y + y
        plain = self.rich_style
        if at >= len(self._wrapped):
            return Strip.blank(width, plain)
        line = self._wrapped[at]
        segments = self._segments(line, plain)
        if at in self._marks:
            mark = Style(reverse=True, bold=True, underline=at == self.found)
            segments = _marked(segments, self._marks[at], mark)
        return Strip(segments).adjust_cell_length(width, plain)

    def _segments(self, line: Line, plain: Style) -> list[Segment]:
        if line.heading:
            style = self.get_component_rich_style("pane--heading")
            return [Segment(line.text, style + self._style_of(line.kind, plain))]
        if line.kind in _DATA_KINDS and (name := _JSON_NAME.match(line.text)):
            colour = self.get_component_rich_style("pane--name")
            return [Segment(name[0], colour), Segment(line.text[name.end() :], plain)]
        if line.kind in ("thinking", "facts", "error"):
            return [Segment(line.text, self._style_of(line.kind, plain))]
        return [Segment(line.text, plain)]

    def _style_of(self, kind: str, plain: Style) -> Style:
        name = {"result": "call", "tools": "facts", "assistant": "heading"}.get(kind, kind)
        known = f"pane--{name}"
        return self.get_component_rich_style(known) if known in self.COMPONENT_CLASSES else plain


def _marked(segments: list[Segment], spans: list[tuple[int, int]], mark: Style) -> list[Segment]:
    """The segments with `mark` laid over these spans of their characters."""
    inside = {at for left, right in spans for at in range(left, right)}
    done: list[Segment] = []
    at = 0
    for segment in segments:
        style = segment.style or Style()
        for character in segment.text:
            done.append(Segment(character, style + mark if at in inside else style))
            at += 1
    return list(Segment.simplify(done))


class EntryView(Screen[None]):
    """The request and the answer of one entry; the app moves it to the next and the previous."""

    DEFAULT_CSS = """
    EntryView #facts { height: 2; padding: 0 1; }
    EntryView #keys { height: 1; padding: 0 1; }
    EntryView #search { height: 1; border: none; padding: 0 1; display: none; }
    EntryView Pane { padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "back", show=False),
        Binding("slash", "search", show=False),
        Binding("m", "match(1)", show=False),
        Binding("M", "match(-1)", show=False),
        Binding("tab,left,right,shift+tab", "other_pane", show=False),
        Binding("v", "next_form", show=False),
        Binding("z", "zoom", show=False),
        Binding("n", "step(1)", show=False),
        Binding("p", "step(-1)", show=False),
    ]

    def __init__(self, store: Store, row: Row, step: Callable[[int], Row | None]) -> None:
        super().__init__()
        self.row = row
        self.form: Form = "readable"
        self._store = store
        self._step = step
        self._active = "answer"  # the pane with the keys; its focus comes a moment later
        self._one: Stored | None = None

    def compose(self) -> ComposeResult:
        """Facts, the two panes, and the keys."""
        yield Static(id="facts", markup=False)
        with Horizontal():
            yield Pane("request", "request")
            yield Pane("answer", "answer")
        yield FilterBox(placeholder="words to search for", id="search", compact=True)
        yield Static(
            "Esc back  Tab pane  / find  v form  z zoom  n p next  d delete  c copy  ? help",
            id="keys",
            markup=False,
        )

    def on_mount(self) -> None:
        """Read the entry."""
        self.query_one("#answer", Pane).focus()
        self._load()

    @work(thread=True, exclusive=True)
    def _load(self) -> None:
        row, form = self.row, self.form
        try:
            found = self._store.find(row.key.hex(), 1)
            one = stored(self._store, *found[0]) if found else None
        except StoreError as error:
            self.app.call_from_thread(self._show_failure, row, str(error))
            return
        if one is None:
            self.app.call_from_thread(self._show_failure, row, "this entry isn't there any more")
            return
        asked, told = request_lines(one, form), answer_lines(one, form)
        self.app.call_from_thread(self._show, row, one, asked, told)

    def _show(self, row: Row, one: Stored, asked: list[Line], told: list[Line]) -> None:
        if row is not self.row or not self.is_attached:
            return
        self._stored = one
        self.query_one("#facts", Static).update(_facts(one))
        self.query_one("#request", Pane).show(asked)
        self.query_one("#answer", Pane).show(told)
        self._retitle()

    def _show_failure(self, row: Row, why: str) -> None:
        if row is not self.row or not self.is_attached:
            return
        self.query_one("#facts", Static).update(row.key.hex())
        self.query_one("#request", Pane).show([])
        self.query_one("#answer", Pane).show([Line("error", safe(why))])

    def _retitle(self) -> None:
        one = self._stored
        sizes = (one.request, one.answer) if one else (None, None)
        for name, body in zip(("request", "answer"), sizes, strict=True):
            size = f" {bytes_in_short(len(body))}" if body is not None else ""
            self.query_one(f"#{name}", Pane).border_title = f"{name}{size} · {self.form}"

    def action_other_pane(self) -> None:
        """Give the keys to the other pane."""
        before = self.query_one(f"#{self._active}", Pane)
        self._active = "request" if self._active == "answer" else "answer"
        pane = self.query_one(f"#{self._active}", Pane)
        if not pane.display:
            pane.display, before.display = True, False
        pane.focus()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """A click gives the keys to a pane as well."""
        if isinstance(event.widget, Pane):
            self._active = event.widget.id or self._active

    # -- search

    def action_search(self) -> None:
        """Begin to type what is searched for."""
        box = self.query_one("#search", FilterBox)
        box.display = True
        box.focus()

    def action_match(self, by: int) -> None:
        """Go to the next or the previous match in the pane with the keys."""
        self._pane.next_match(by)

    def action_back(self) -> None:
        """End the search; without one, go back to the list."""
        box = self.query_one("#search", FilterBox)
        if box.display:
            self._end_search(keep=False)
        else:
            self.app.pop_screen()

    def _end_search(self, keep: bool) -> None:
        box = self.query_one("#search", FilterBox)
        if not keep:
            box.value = ""
        box.display = keep and bool(box.value)
        self._pane.focus()

    @property
    def _pane(self) -> Pane:
        return self.query_one(f"#{self._active}", Pane)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search as it is typed, in both panes. The list's filter hears nothing of it."""
        event.stop()
        for pane in self.query(Pane):
            pane.search(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Give the keys back to the pane; the matches stay marked."""
        event.stop()
        self._end_search(keep=True)

    def on_filter_box_left(self, event: FilterBox.Left) -> None:
        """Go on in the pane."""
        event.stop()
        self._end_search(keep=event.keep)

    def action_next_form(self) -> None:
        """Readable, pretty, raw, and readable again."""
        self.form = FORMS[(FORMS.index(self.form) + 1) % len(FORMS)]
        self._load()

    def action_zoom(self) -> None:
        """Give the whole width to the pane with the keys, or divide it again."""
        panes = list(self.query(Pane))
        zoomed = not all(pane.display for pane in panes)
        for pane in panes:
            pane.display = zoomed or pane.id == self._active

    def action_step(self, by: int) -> None:
        """Show the next or the previous entry of the list."""
        row = self._step(by)
        if row is not None:
            self.row = row
            self._load()


def _facts(one: Stored) -> str:
    entry, meta, now = one.entry, meta_of(one.entry), time.time()
    usage = meta.get("usage") or {}
    nano = meta.get("nano_usd")
    told = [
        f"{meta.get('provider', '?')} {meta.get('endpoint', '')}",
        f"{amount(usage.get('input_tokens', 0))} in, {amount(usage.get('output_tokens', 0))} out",
        dollars(None if nano is None else nano / 1e9, 5),
        f"{ago(now - entry.created)} old",
        f"{amount(entry.hits)} hit{'' if entry.hits == 1 else 's'}",
        str(meta.get("model") or "-"),  # last: it is what a narrow terminal may cut
    ]
    return f"{one.key}\n{safe(' · '.join(told))}"


def wrapped(text: str, width: int) -> Iterable[str]:
    """`text` in lines of at most `width` cells, broken at spaces where there are some."""
    if len(text) <= width and (text.isascii() or cell_len(text) <= width):
        return (text,)
    measure: Callable[[str], int] = len if text.isascii() else cell_len
    lines: list[str] = []
    line, used = "", 0
    for word in re.findall(r" +|[^ ]+", text):
        size = measure(word)
        if used + size <= width:
            line, used = line + word, used + size
            continue
        if word.isspace():  # the break takes the place of the spaces
            lines.append(line)
            line, used = "", 0
            continue
        if line.strip() and size <= width:
            lines.append(line)
            line, used = "", 0
        pieces = _chopped(line + word, width)
        lines += pieces[:-1]
        line, used = pieces[-1], measure(pieces[-1])
    return (*lines, line) if line or not lines else lines


def _chopped(word: str, width: int) -> list[str]:
    if word.isascii():
        return [word[at : at + width] for at in range(0, len(word), width)]
    return chop_cells(word, width)
