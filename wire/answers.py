"""What the providers' answers have in common: JSON bodies, event streams, and a line of text.

A provider says what an event or a document means; here is what always holds. Whatever is fed,
nothing raises: bytes that can't be read make the answer incomplete, with a reason. A stream is
complete when its provider said it ended and nothing but comments followed.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from llm_cache.wire.framing.sse import Event, EventParser
from llm_cache.wire.provider import Answer, Json, Usage

SNIPPET_CHARS: Final = 80
_SNIPPET_RAW_CHARS: Final = 4096  # read at most this much to find them


class Refused:
    """Watches nothing: this status or content type is never a complete answer."""

    done = False
    failed = False  # its body says no more than its head did

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def feed(self, data: bytes) -> None:
        pass

    def close(self) -> Answer:
        return Answer(complete=False, reason=self._reason)


def refused_type(content_type: str) -> Refused:
    """Refuses an answer for its content type."""
    return Refused(f"content type {one_line(content_type) or 'missing'}")


def media_type(content_type: str) -> str:
    """`text/event-stream` of `Text/Event-Stream; charset=utf-8` (RFC 9110, 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()


class JsonWatcher:
    """Keeps a JSON body and has it judged at its end. The server bounds how much is fed."""

    done = False  # more could follow, and a JSON text has no last byte of its own
    failed = False

    def __init__(self, judge: Callable[[Json], Answer]) -> None:
        self._judge = judge
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)

    def close(self) -> Answer:
        body = b"".join(self._pieces)
        self._pieces.clear()
        try:
            doc = parsed(body)
        except ValueError:
            return Answer(complete=False, reason="not JSON, or cut short")
        if not isinstance(doc, dict):
            return Answer(complete=False, reason="not a JSON object")
        return self._judge(doc)


DONE: Final = b"[DONE]"
"""What many servers send as the last event's data, some of them in everybody's format."""


def is_foreign(event: Event, doc: object, *own: str) -> bool:
    """True for an event that a host adds to a format under a name of its own (Vertex's
    `vertex_event`): it decides nothing. `own`: how names and types of the format's events begin.
    `doc` is what the event holds; one that tells of an error is nobody's to skip.
    """
    kind = doc.get("type") if isinstance(doc, dict) else None
    told = kind if isinstance(kind, str) else event.name.decode("utf-8", "replace")
    if told in ("", "message", "error") or told.startswith(own):
        return False
    return not (isinstance(doc, dict) and doc.get("error"))


class EventWatcher(ABC):
    """Follows a stream of server-sent events. A provider's subclass reads each one in `_take` and
    sets `_reason` when the answer can't be complete any more, `_stopped` at its last event."""

    last: str
    """The event that ends a stream, for the log: `message_stop`."""

    def __init__(self) -> None:
        self._parser = EventParser()
        self._reason = ""
        self._started = False
        self._stopped = False

    @property
    def done(self) -> bool:
        return self._stopped and not self._reason and not self._parser.unfinished

    @property
    def failed(self) -> bool:
        return bool(self._reason)

    def feed(self, data: bytes) -> None:
        if self._reason:
            return
        for event in self._parser.feed(data):
            self._take(event)
            if self._reason:
                return
        if self._parser.stray:
            self._reason = self._after_last if self._stopped else "not an event stream"
        elif self._parser.overflowed:
            self._reason = "an event is too large"

    def close(self) -> Answer:
        if not self._reason and self._stopped and self._parser.unfinished:
            self._reason = self._after_last
        if not self._reason and not self._stopped:
            self._reason = self._unended()
        return Answer(
            complete=not self._reason,
            reason=self._reason,
            model=self._answer_model(),
            usage=self._answer_usage(),
            snippet=self._snippet_line(),
        )

    @property
    def _after_last(self) -> str:
        return f"data after {self.last}"

    def _unended(self) -> str:
        """Why the stream isn't complete when it ended here."""
        return f"no {self.last}"

    @abstractmethod
    def _take(self, event: Event) -> None:
        """Read one event."""

    @abstractmethod
    def _answer_model(self) -> str | None:
        """The model the answer names."""

    @abstractmethod
    def _answer_usage(self) -> Usage | None:
        """What it used, as far as it said."""

    @abstractmethod
    def _snippet_line(self) -> str:
        """Its first characters."""


class Snippet:
    """The first characters of an answer: of its text, else the tool it calls, else its thinking."""

    def __init__(self) -> None:
        self._text = ""
        self._thinking = ""
        self._tool = ""
        self.wants_text = True
        self.wants_thinking = True

    def add_text(self, text: object) -> None:
        """Take the next part of the text; what isn't a string adds nothing."""
        if self.wants_text and isinstance(text, str):
            self._text += text[:_SNIPPET_RAW_CHARS]
            self.wants_text = not _fills(self._text)

    def add_thinking(self, text: object) -> None:
        """Take the next part of the thinking."""
        if self.wants_thinking and isinstance(text, str):
            self._thinking += text[:_SNIPPET_RAW_CHARS]
            self.wants_thinking = not _fills(self._thinking)

    def add_tool(self, name: object) -> None:
        """Take the name of a tool that is called."""
        if not self._tool and isinstance(name, str):
            self._tool = name

    def line(self) -> str:
        """At most 80 characters, one line; "" when the answer has nothing to show."""
        if text := one_line(self._text):
            return text
        if self._tool:
            return one_line(f"[tool] {self._tool}")
        return one_line(f"[thinking] {self._thinking}") if self._thinking else ""


def _fills(text: str) -> bool:
    """True when more text can't change the line made of it."""
    return len(text) >= _SNIPPET_RAW_CHARS or len(one_line(text)) == SNIPPET_CHARS


def one_line(text: str) -> str:
    """The first 80 characters with white space folded and control characters taken out."""
    visible = text[:_SNIPPET_RAW_CHARS]
    if not visible.isprintable():
        visible = "".join(char if char.isprintable() else " " for char in visible)
    return " ".join(visible.split())[:SNIPPET_CHARS]


def parsed(data: bytes) -> Any:
    """The JSON value of `data`. ValueError when it isn't one."""
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def objects(value: object) -> list[Json]:
    """The JSON objects of a list; none when it isn't a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def member(doc: Json, name: str) -> Json:
    """The object in `doc[name]`, or an empty one."""
    value = doc.get(name)
    return value if isinstance(value, dict) else {}


def text_or_none(value: object) -> str | None:
    """`value` when it is a string."""
    return value if isinstance(value, str) else None


_LARGEST_COUNT: Final = 1 << 40


def count(doc: Json, field: str) -> int:
    """The whole number above 0 in `doc[field]`, else 0: also for one that can't be a count."""
    value = doc.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_COUNT:
        return value
    return 0


def cumulated(so_far: Json | None, more: Json) -> Json:
    """The counts of a stream that tells them several times, each time from its beginning: the last
    one counts, but a 0 or a null that comes late takes nothing back."""
    whole = dict(so_far or {})
    for name, value in more.items():
        if isinstance(value, dict):
            held = whole.get(name)
            whole[name] = cumulated(held if isinstance(held, dict) else None, value)
        elif value or name not in whole:
            whole[name] = value
    return whole


_STANDARD_TIERS: Final = ("auto", "default", "on_demand", "standard", "standard_only")


def tier(value: object) -> str:
    """The name of a service tier in lower case, "" for the one that everybody gets."""
    told = one_line(value).lower() if isinstance(value, str) else ""
    return "" if told in _STANDARD_TIERS else told


def error_reason(label: str, error: object) -> str:
    """`label` with the `type` or `code` of an error object: for the log. Never its message, which
    may quote what the client sent."""
    for field in ("type", "code", "status"):
        told = error.get(field) if isinstance(error, dict) else None
        if isinstance(told, str | int) and not isinstance(told, bool) and told != "":
            return f"{label}: {one_line(str(told))}"
    return label
