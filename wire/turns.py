"""Which messages the suffix tier may drop: the one rule, for every provider's own message form.

The tier must never answer where the dropped part could change the meaning of what is kept: not
with tools in the talk, not across an instruction, and not when what is kept answers a question.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Final

from llm_cache.wire.provider import Json

_QUESTION_MARKS: Final = ("?", "\uff1f", "\u061f")  # also the full-width and the Arabic one


def last_turns(
    talk: object,
    turns: int,
    *,
    speakers: Container[object],
    asker: str,
    text: Callable[[Json], str],
    uses_tools: Callable[[Json], bool],
) -> list[Any] | None:
    """The last `turns` messages of `talk`, or None when the tier must not be used for it.

    `speakers` are the roles of a talk's turns, `asker` the model's own; `text` gives a message's
    words and `uses_tools` tells whether it calls a tool or holds a tool's result.
    """
    if not isinstance(talk, list) or not talk or turns < 1:
        return None
    if not all(isinstance(message, dict) for message in talk):
        return None
    if any(uses_tools(message) for message in talk):
        return None
    cut = len(talk) - turns
    if cut <= 0:
        return talk
    if any(message.get("role") not in speakers for message in talk[:cut]):
        return None  # an instruction that isn't part of the talk
    if any(
        message.get("role") == asker and _asks(text(message)) for message in talk[cut - 1 : cut + 1]
    ):
        return None  # what is kept answers something that is cut
    return talk[cut:]


def _asks(text: str) -> bool:
    """True when the last line puts a question."""
    lines = text.rstrip().splitlines()
    return bool(lines) and any(mark in lines[-1] for mark in _QUESTION_MARKS)
