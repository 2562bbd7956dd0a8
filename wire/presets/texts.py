"""The texts of a request that an agent writes into, found by the shape of the API it speaks.

What holds: a text is never both a person's and a tool's, and a tool's result has the name of the
tool that was called, where the request still holds the call. Whatever has another shape than the
API's is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_cache.wire.answers import objects
from llm_cache.wire.provider import Json


@dataclass(frozen=True, slots=True)
class Text:
    """One text: `holder[key]`, a string. `place` is `system`, `user` or `result`; `tool` is whose
    result it is, None where nothing says so."""

    holder: Any
    key: Any
    place: str
    tool: str | None = None

    @property
    def value(self) -> str:
        return str(self.holder[self.key])


def has_shape(shape: str, doc: Json) -> bool:
    """Whether `doc` looks like a request of this API: `messages` (Anthropic's), `responses`
    (OpenAI's) or `contents` (Gemini's)."""
    return _SHAPES[shape][0] in doc


def texts_of(shape: str, doc: Json) -> list[Text]:
    """The texts of `doc`, which has this shape."""
    return list(_SHAPES[shape][1](doc))


def _messages(doc: Json) -> Iterator[Text]:
    yield from _texts(doc, "system", "system")
    called: dict[Any, str] = {}
    for message in objects(doc.get("messages")):
        role = message.get("role")
        if role == "assistant":
            called |= _names(objects(message.get("content")), "id")
            continue
        yield from _texts(message, "content", "system" if role == "system" else "user")
        for block in objects(message.get("content")):
            if block.get("type") == "tool_result":
                yield from _texts(block, "content", "result", called.get(_id(block, "tool_use_id")))


def _responses(doc: Json) -> Iterator[Text]:
    yield from _texts(doc, "instructions", "system")
    if isinstance(doc.get("input"), str):
        yield Text(doc, "input", "user")
    called: dict[Any, str] = {}
    for item in objects(doc.get("input")):
        kind = item.get("type")
        if isinstance(kind, str) and kind.endswith("_output"):
            yield from _texts(item, "output", "result", called.get(_id(item, "call_id")))
        elif item.get("role") == "user":
            yield from _texts(item, "content", "user")
        elif item.get("role") in ("developer", "system"):
            yield from _texts(item, "content", "system")
        else:
            called |= _names([item], "call_id")


def _contents(doc: Json) -> Iterator[Text]:
    for member in ("systemInstruction", "system_instruction"):
        system = doc.get(member)
        if isinstance(system, dict):
            yield from _texts(system, "parts", "system")
    for content in objects(doc.get("contents")):
        if content.get("role") not in ("user", "function", None):
            continue
        yield from _texts(content, "parts", "user")
        for part in objects(content.get("parts")):
            result = part.get("functionResponse", part.get("function_response"))
            if isinstance(result, dict) and isinstance(told := result.get("response"), dict):
                name = result.get("name")
                for member, value in told.items():
                    if isinstance(value, str):
                        yield Text(told, member, "result", name if isinstance(name, str) else None)


_SHAPES: Final[Mapping[str, tuple[str, Callable[[Json], Iterator[Text]]]]] = {
    "messages": ("messages", _messages),
    "responses": ("input", _responses),
    "contents": ("contents", _contents),
}


def _texts(holder: Json, member: str, place: str, tool: str | None = None) -> Iterator[Text]:
    """The text of a member: a string, or a list of blocks with a `text` each."""
    value = holder.get(member)
    if isinstance(value, str):
        yield Text(holder, member, place, tool)
    for block in objects(value):
        if isinstance(block.get("text"), str):
            yield Text(block, "text", place, tool)


def _names(calls: list[Json], member: str) -> dict[Any, str]:
    """The tool of each call, by the call's id."""
    return {
        _id(call, member): call["name"]
        for call in calls
        if isinstance(call.get("name"), str) and isinstance(call.get(member), str)
    }


def _id(holder: Json, member: str) -> str | None:
    value = holder.get(member)
    return value if isinstance(value, str) else None
