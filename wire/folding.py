"""What the foldings of streamed answers share: a folding takes the events of a stream and makes the
document that the API would have sent unstreamed. Each lives with its provider.

What holds: whatever is taken, nothing raises; texts that come in many parts cost no more than in
few. A folding that also serves `as_plain` keeps what it couldn't place in `unplaced`: what people
read may leave that out, what a client gets may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from llm_cache.wire.answers import member, objects
from llm_cache.wire.provider import Json


class Growing:
    """A text that comes in parts: joined once, by `settled`."""

    __slots__ = ("parts",)

    def __init__(self, first: str) -> None:
        self.parts = [first]


def append(holder: Json, name: str, text: object) -> bool:
    """Add a part to the text in `holder[name]`; False when there is something else."""
    held = holder.get(name)
    if not isinstance(text, str):
        return False
    fits = held is None or isinstance(held, str | Growing)
    if not isinstance(held, Growing):
        held = holder[name] = Growing(held if isinstance(held, str) else "")
    held.parts.append(text)
    return fits


def settled(value: Any) -> Any:
    """`value` with every text joined."""
    if isinstance(value, Growing):
        return "".join(value.parts)
    if isinstance(value, dict):
        return {name: settled(item) for name, item in value.items()}
    return [settled(item) for item in value] if isinstance(value, list) else value


def merge(message: Json, delta: Json) -> bool:
    """Add to a message what a delta says, in any of the APIs whose deltas look like the message:
    texts grow, lists get longer, objects are merged. False when something found no place."""
    fits = True
    for name, value in delta.items():
        if name == "tool_calls":
            fits &= _merge_calls(message, value)
        elif name in ("role", "id", "type"):
            fits &= not value or message.get(name) in (None, value)
            message[name] = value or message.get(name)
        elif isinstance(value, str):
            fits &= append(message, name, value)
        elif isinstance(value, dict):
            inner = message.setdefault(name, {})
            fits &= isinstance(inner, dict) and merge(inner, value)
        elif isinstance(value, list):
            held = message.setdefault(name, [])
            fits &= isinstance(held, list)
            if isinstance(held, list):
                held.extend(value)
        elif value is not None:
            fits &= name not in message
            message[name] = value
    return fits


def _merge_calls(message: Json, value: object) -> bool:
    calls = message.setdefault("tool_calls", {})
    if value is None or not isinstance(calls, dict):
        return value is None
    parts = objects(value)
    fits = isinstance(value, list) and len(parts) == len(value)
    for at, part in enumerate(parts):
        index = part.get("index", at)
        where = block_place(index)
        fits &= where == index and (where in calls or where == len(calls))
        if where in calls:  # its name came whole with its first part
            fits &= not member(part, "function").get("name")
        call = calls.setdefault(where, {})
        fits &= merge(call, {key: part[key] for key in part if key != "index"})
    return fits


def last_said(docs: Iterable[Json], told: Json) -> Json:
    """`told`, and of every other field what was said last."""
    last: Json = {}
    for doc in docs:
        last |= {name: value for name, value in doc.items() if value is not None}
    return last | told


def joined(texts: Iterable[object]) -> str:
    """One text of its parts; what is none is left out."""
    return "".join(text for text in texts if isinstance(text, str))


def block_place(index: object) -> object:
    """Something to find a block by; what can't be one is taken for the first."""
    return index if isinstance(index, int | str) else 0


WRITTEN = "\0written"
"""Where a call's input is collected while it comes as text; no API has a field of this name."""


def close_input(block: Json, field: str) -> None:
    """What was streamed as text becomes the input it spells, or stays text when it spells none."""
    written = block.pop(WRITTEN, None)
    if isinstance(written, Growing) and (text := "".join(written.parts)):
        block[field] = parsed_or_text(text)


def parsed_or_text(text: str) -> Any:
    """The JSON value of `text`, or `text`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
