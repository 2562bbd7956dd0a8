"""Requests and answers made readable for people: parts with headings, whoever's API it is.

Pure, and for looking only: nothing here decides what is stored or served. Whatever the bytes are,
there is something to show, and nothing raises. Text comes out as it is; whoever prints it takes out
what a terminal would obey.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from llm_cache.wire.answers import member, objects, parsed
from llm_cache.wire.provider import Endpoint, Json, Provider
from llm_cache.wire.readable.frames import Frames, Piece, frames
from llm_cache.wire.readable.parts import (
    Kind,
    Part,
    block_parts,
    content_parts,
    dumped,
    listed,
    message_parts,
)
from llm_cache.wire.readable.stream import assembled

__all__ = ["Kind", "Part", "answer", "pretty", "prompt", "raw", "request"]

_REMINDERS: Final = re.compile(r"<(system-reminder|command-[a-z]+)>.*?</\1>", re.DOTALL)
_SYSTEM: Final = ("system", "systemInstruction", "system_instruction", "instructions", "preamble")
_TALK: Final = ("messages", "contents", "chat_history", "input", "content", "prompt", "inputText")
_ALSO_TALK: Final = ("message", "texts", "query", "documents")
_FOREIGN_FORM: Final = (RecursionError, TypeError, ValueError, AttributeError, KeyError)
"""What JSON of a form that nobody expects, or nested too deeply, makes of reading it."""
_PROMPT_READ: Final = 4096  # characters looked at for the first words


def prompt(provider: Provider, endpoint: Endpoint, doc: Json, limit: int = 80) -> str:
    """The first words a person wrote in the parsed request `doc`, on one line; "" when none can be
    found."""
    try:
        provider.map_texts(endpoint, doc, lambda text: text, _stop_at_words(limit))
    except _Found as found:
        return found.words
    except _FOREIGN_FORM:
        return ""
    return ""


class _Found(Exception):
    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


def _stop_at_words(limit: int) -> Callable[[str], str]:
    def look(text: str) -> str:
        # What agents put before the person's own words isn't the prompt.
        words = " ".join(_REMINDERS.sub(" ", text[: _PROMPT_READ * 8])[:_PROMPT_READ].split())
        if words:
            raise _Found("".join(char if char.isprintable() else " " for char in words)[:limit])
        return text

    return look


def request(body: bytes) -> list[Part]:
    """The parts of a request body: settings, tools, instructions, and the talk."""
    return _safely(body, lambda: _request(body))


def answer(content_type: str, body: bytes) -> list[Part]:
    """The parts of an answer (content coding undone), a streamed one put together."""
    return _safely(body, lambda: _answer(frames(content_type, body)))


def pretty(content_type: str, body: bytes) -> list[Part]:
    """The body as it is, its JSON indented; of a stream, one part for each event."""
    return _safely(body, lambda: _pretty(frames(content_type, body)))


def raw(body: bytes) -> list[Part]:
    """The bytes as text; what isn't UTF-8 shows as U+FFFD."""
    return [Part("other", "", body.decode("utf-8", "replace"))]


def _safely(body: bytes, read: Callable[[], list[Part]]) -> list[Part]:
    try:
        return read()
    except _FOREIGN_FORM:
        return raw(body)


# Requests


def _request(body: bytes) -> list[Part]:
    try:
        doc = parsed(body)
    except ValueError:
        return raw(body)
    if not isinstance(doc, dict):
        return [Part("other", "", dumped(doc))]
    rest = dict(doc)
    parts: list[Part] = []
    for name in _SYSTEM:
        if name in rest:
            value = rest.pop(name)
            inner = value.get("parts", value) if isinstance(value, dict) else value
            parts += content_parts(inner, "system")
    tools = rest.pop("tools", None) or rest.pop("toolConfig", None)
    talk: list[Part] = []
    for name in (*_TALK, *_ALSO_TALK):
        if name in rest:
            talk += _turns(rest.pop(name))
    settings = [Part("facts", "request", listed(rest))] if rest else []
    return [*settings, *([_tools(tools)] if tools else []), *parts, *talk]


def _turns(value: object) -> list[Part]:
    parts: list[Part] = []
    for turn in value if isinstance(value, list) else [value]:
        if isinstance(turn, dict) and "parts" in turn:
            parts += content_parts(turn["parts"], str(turn.get("role") or "user"))
        elif isinstance(turn, dict) and ("role" in turn or "content" in turn):
            parts += message_parts(turn)
        elif isinstance(turn, dict):
            parts += block_parts(turn, "user")
        elif isinstance(turn, str):
            parts += content_parts(turn, "user")
        else:
            parts.append(Part("other", "input", dumped(turn)))
    return parts


def _tools(tools: object) -> Part:
    """Every tool with its description; what it takes is in the pretty view."""
    lines = []
    for tool in _tool_list(tools):
        told = member(tool, "function") or member(tool, "toolSpec") or tool
        name = told.get("name") or tool.get("type") or next(iter(tool), "?")
        first = str(told.get("description") or "").strip().partition("\n")[0]
        lines.append(f"{name}: {first}" if first else str(name))
    return Part("tools", f"tools ({len(lines)})", "\n".join(lines))


def _tool_list(tools: object) -> list[Json]:
    if isinstance(tools, dict):
        tools = tools.get("tools")
    found: list[Json] = []
    for tool in objects(tools):
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        found += objects(declared) if declared else [tool]
    return found


# Answers


def _answer(read: Frames) -> list[Part]:
    if not read.streamed:
        [piece] = read.pieces
        return _pretty(read) if piece.doc is None else _document(piece.doc)
    doc = assembled(read.pieces)
    return _pretty(read) if doc is None else _document(doc)


def _document(doc: Json) -> list[Part]:
    """A whole answer in any provider's form; the fields that say nothing come last, as facts."""
    rest = dict(doc)
    parts: list[Part] = []
    if doc.get("error"):
        parts.append(Part("error", "error", dumped(rest.pop("error"))))
    if isinstance(doc.get("choices"), list):
        parts += _choices(objects(rest.pop("choices")))
    elif isinstance(doc.get("candidates"), list):
        parts += _candidates(objects(rest.pop("candidates")))
    elif isinstance(doc.get("output"), list):
        parts += [
            part for item in objects(rest.pop("output")) for part in block_parts(item, "assistant")
        ]
        rest = {name: value for name, value in rest.items() if value not in (None, [], {})}
    elif message := member(member(doc, "output"), "message"):
        del rest["output"]
        parts += message_parts(message)
    elif isinstance(doc.get("message"), dict):
        parts += message_parts(rest.pop("message"), "assistant")
    elif isinstance(doc.get("content"), list) and doc.get("type") in ("message", None):
        parts += content_parts(rest.pop("content"), "assistant")
    elif texts := [name for name in _WORDS if isinstance(doc.get(name), str)]:
        parts += [p for name in texts for p in content_parts(rest.pop(name), "assistant")]
    return [*parts, Part("facts", "answer", listed(rest))] if rest or not parts else parts


_WORDS: Final = ("response", "completion", "generation", "outputText", "text")


def _choices(choices: list[Json]) -> list[Part]:
    parts: list[Part] = []
    for number, choice in enumerate(choices):
        if len(choices) > 1:
            parts.append(Part("facts", f"choice {number + 1} of {len(choices)}", ""))
        if isinstance(choice.get("message"), dict):
            parts += message_parts(choice["message"])
        parts += content_parts(choice.get("text"), "assistant")
        if reason := choice.get("finish_reason"):
            parts.append(Part("facts", f"finish_reason: {reason}", ""))
    return parts


def _candidates(candidates: list[Json]) -> list[Part]:
    parts: list[Part] = []
    for number, candidate in enumerate(candidates):
        if len(candidates) > 1:
            parts.append(Part("facts", f"candidate {number + 1} of {len(candidates)}", ""))
        parts += content_parts(member(candidate, "content").get("parts"), "model")
        rest = {
            name: value for name, value in candidate.items() if name not in ("content", "index")
        }
        if rest:
            parts.append(Part("facts", "candidate", listed(rest)))
    return parts


# The body as it is


def _pretty(read: Frames) -> list[Part]:
    if not read.streamed:
        [piece] = read.pieces
        return [Part("other", "", _indented(piece))]
    return [
        Part("other", piece.name or f"{number}", _indented(piece))
        for number, piece in enumerate(read.pieces, 1)
    ]


def _indented(piece: Piece) -> str:
    if piece.doc is not None:
        return json.dumps(piece.doc, ensure_ascii=False, indent=2)
    try:
        return json.dumps(parsed(piece.data), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return piece.data.decode("utf-8", "replace")
