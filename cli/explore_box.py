"""Where words are typed in `explore`: the list's filter and an entry's search."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.widgets import Input


class FilterBox(Input):
    """Where words are typed. What leads out of it is told as `Left`."""

    class Left(Message):
        """The user went back to what is looked through; `keep`: the words stay."""

        def __init__(self, keep: bool) -> None:
            super().__init__()
            self.keep = keep

    async def _on_key(self, event: events.Key) -> None:
        # Bindings are run later than letters are taken: a fast typist's backspace would take away
        # what was typed after it.
        if event.key == "backspace":
            self.action_delete_left()
        elif event.key in ("down", "up", "pagedown", "pageup", "escape"):
            self.post_message(self.Left(keep=event.key != "escape"))
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()
