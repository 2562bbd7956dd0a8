"""The table of `explore`: any number of rows, of which only the lines on the screen are drawn.

What a key press costs doesn't grow with the number of rows.
"""

from __future__ import annotations

import time
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from llm_cache.cli.explore_rows import Columns
from llm_cache.exchange.browse import Order, Row

_HEAD_LINES: Final = 1


class EntryTable(ScrollView, can_focus=True):
    """Rows with a cursor. `show` gives it rows; it posts `Opened` for Enter or a second click."""

    DEFAULT_CSS = """
    EntryTable { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--head",
        "table--cursor",
        "table--dim",
        "table--model",
        "table--gone",
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup,ctrl+b", "page(-1)", show=False),
        Binding("pagedown,ctrl+f,space", "page(1)", show=False),
        Binding("home,g", "ends(False)", show=False),
        Binding("end,G", "ends(True)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """A row was chosen."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    def __init__(self, order: Order) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.cursor = 0
        self.order = order
        self.down = order.down
        self._columns = Columns.of_width(80)

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if self.rows else None

    def show(self, rows: list[Row], cursor: int | None = None) -> None:
        """Show these rows, the cursor on the `cursor`-th at the line of the screen where it is.

        Without `cursor` the place in the list stays.
        """
        line = self.cursor - self.scroll_offset.y
        self.rows = rows
        self.virtual_size = Size(self.size.width, len(rows) + _HEAD_LINES)
        self.cursor = max(0, min(len(rows) - 1, self.cursor if cursor is None else cursor))
        if cursor is not None:
            self.scroll_to(y=max(0, self.cursor - line), animate=False, force=True)
        self._keep_in_sight()
        self.refresh()

    def place(self, cursor: int) -> None:
        """Put the cursor on the `cursor`-th row."""
        left = self.cursor
        self.cursor = max(0, min(len(self.rows) - 1, cursor))
        self._keep_in_sight()
        for row in (left, self.cursor):  # scrolling draws everything anyway
            self.refresh_line(row + _HEAD_LINES)

    def _keep_in_sight(self) -> None:
        top, height = self.scroll_offset.y, self._lines
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    @property
    def _lines(self) -> int:
        """Rows that fit on the screen."""
        return max(1, self.size.height - _HEAD_LINES)

    # -- keys and mouse

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.place(self.cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by a screenful."""
        self.place(self.cursor + by * self._lines)

    def action_ends(self, last: bool) -> None:
        """Move the cursor to the first or the last row."""
        self.place(len(self.rows) - 1 if last else 0)

    def action_open(self) -> None:
        """View the row under the cursor."""
        if self.current is not None:
            self.post_message(self.Opened(self.current))

    def on_click(self, event: events.Click) -> None:
        """The first click moves the cursor, one on the cursor views the row."""
        clicked = self.scroll_offset.y + event.y - _HEAD_LINES
        if event.y < _HEAD_LINES or clicked >= len(self.rows):
            return
        if clicked == self.cursor and event.chain > 1:
            self.action_open()
        else:
            self.place(clicked)

    def on_resize(self, event: events.Resize) -> None:
        """Divide the new width among the columns."""
        self._columns = Columns.of_width(event.size.width)
        self.virtual_size = Size(event.size.width, len(self.rows) + _HEAD_LINES)
        self._keep_in_sight()

    # -- drawing

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen: the heading, or the row that is there now."""
        width = self.size.width
        plain = self.rich_style
        if y < _HEAD_LINES:
            head = self._columns.head(self.order, self.down)
            style = self.get_component_rich_style("table--head")
            return Strip([Segment(head, style)]).adjust_cell_length(width, style)
        at = self.scroll_offset.y + y - _HEAD_LINES
        if at >= len(self.rows):
            return Strip.blank(width, plain)
        row = self.rows[at]
        line = self._columns.line(row, time.time())
        if at == self.cursor:
            style = self.get_component_rich_style("table--cursor")
            return Strip([Segment(line, style)]).adjust_cell_length(width, style)
        segments = self._coloured(line, plain, row.hits)
        return Strip(segments).adjust_cell_length(width, plain)

    def _coloured(self, line: str, plain: Style, hits: int) -> list[Segment]:
        """Times and sizes recede, models stand out. What is before the words is cut by cells, of
        which each is one character unless the model's name has wide ones."""
        dim = self.get_component_rich_style("table--dim")
        model = self.get_component_rich_style("table--model")
        cells = (
            (11, dim),
            (6, plain if hits else dim),
            (10, dim),
            (self._columns.model + 1, model),
        )
        segments, at = [], 0
        for width, style in (*cells, (14, dim)):
            segments.append(Segment(line[at : at + width], style))
            at += width
        return [*segments, Segment(line[at:], plain)]
