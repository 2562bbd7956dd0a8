"""Requests in the form of chat messages: OpenAI's, which Cohere, Ollama and many more speak too.

A message has a `role` and a `content` that is a string or a list of parts; instructions are
messages with the role `system` or `developer`; tools show as `tool_calls` of the assistant and as
messages of the role `tool`. Fields that this file doesn't name are never touched.
Source: https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any, Final

from llm_cache.wire.answers import objects
from llm_cache.wire.provider import Json
from llm_cache.wire.turns import last_turns

INSTRUCTION_ROLES: Final = ("system", "developer")
_TOOL_ROLES: Final = ("tool", "function")
_TOOL_FIELDS: Final = ("tool_calls", "function_call", "tool_call_id", "tool_plan")
_TEXT_FIELDS: Final = ("text", "refusal")


def map_messages(doc: Json, system: Callable[[str], str], message: Callable[[str], str]) -> None:
    """Replace, in place, every text in `doc["messages"]`."""
    for turn in objects(doc.get("messages")):
        map_texts(turn, "content", system if turn.get("role") in INSTRUCTION_ROLES else message)


def map_texts(holder: Json, member: str, change: Callable[[str], str]) -> None:
    """Replace the text in `holder[member]`: a string, or a list of strings and content parts."""
    value = holder.get(member)
    if isinstance(value, str):
        holder[member] = change(value)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            if isinstance(part, str):
                value[index] = change(part)
            elif isinstance(part, dict):
                _map_part(part, change)


def _map_part(part: Json, change: Callable[[str], str]) -> None:
    for field in _TEXT_FIELDS:
        if isinstance(part.get(field), str):
            part[field] = change(part[field])
    document = part.get("document")  # Cohere's tool results
    if isinstance(document, dict):
        data = document.get("data")
        map_texts(document, "data", change)
        if isinstance(data, dict):
            for name in data:
                map_texts(data, name, change)


def keep_last_messages(doc: Json, turns: int) -> bool:
    """Cut `doc["messages"]`, in place, to the instructions at its head and the last `turns` of the
    talk. False: the suffix tier must not be used."""
    kept = keep_last_of(doc.get("messages"), turns, uses_tools)
    if kept is not None:
        doc["messages"] = kept
    return kept is not None


def keep_last_of(
    messages: object, turns: int, holds_tool: Callable[[Json], bool]
) -> list[Any] | None:
    """The instructions at the head of `messages` and the last `turns` of the talk, or None when
    the suffix tier must not be used for it."""
    if not isinstance(messages, list) or not all(isinstance(item, dict) for item in messages):
        return None
    head = list(takewhile(lambda turn: turn.get("role") in INSTRUCTION_ROLES, messages))
    kept = last_turns(
        messages[len(head) :],
        turns,
        speakers=("user", "assistant"),
        asker="assistant",
        text=words,
        uses_tools=holds_tool,
    )
    return None if kept is None else head + kept


def uses_tools(message: Json) -> bool:
    """True when a message calls a tool or holds a tool's result."""
    return message.get("role") in _TOOL_ROLES or any(message.get(name) for name in _TOOL_FIELDS)


def words(message: Json) -> str:
    """What a message says."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [part.get(field) for part in objects(content) for field in _TEXT_FIELDS]
    return "\n".join(text for text in texts if isinstance(text, str))


def is_repeatable(sampling: Mapping[str, Any], seed: str = "seed") -> bool:
    """True with temperature 0 and a seed: the same request is meant to get the same answer."""
    temperature = sampling.get("temperature")
    return (
        isinstance(temperature, int | float)
        and not isinstance(temperature, bool)
        and temperature == 0
        and isinstance(sampling.get(seed), int)
        and not isinstance(sampling.get(seed), bool)
    )
