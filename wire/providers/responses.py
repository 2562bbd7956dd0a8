"""OpenAI's Responses API: the texts of its requests, and when its answers are whole.

A streamed answer is complete with `response.completed`, a JSON answer when it is a `response`
without an error whose status is `completed`: not `incomplete` (a length limit or a filter: the API
itself calls it so), `failed`, `cancelled`, or `queued` or `in_progress`, which is all that a
background request gets at first.

State kept by the provider. A request that names a `previous_response_id` is answered from it: the
id is in the key, what it stands for never changes, and a follow-up to a replayed answer works as
long as the provider keeps that answer (30 days; a default entry of ours lives 7). A `conversation`
does change, with each request that names it, and the answer is added to it; so an answer that
belongs to one is never stored. Nor is one of a code interpreter whose `container` is named: its
files are what earlier requests left there.
Source: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming;
https://platform.openai.com/docs/guides/conversation-state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from llm_cache.wire.answers import (
    DONE,
    EventWatcher,
    Snippet,
    error_reason,
    is_foreign,
    member,
    objects,
    one_line,
    parsed,
    text_or_none,
)
from llm_cache.wire.framing.sse import Event
from llm_cache.wire.provider import Answer, Json, Usage
from llm_cache.wire.providers.chat import INSTRUCTION_ROLES, keep_last_of, map_texts
from llm_cache.wire.providers.choices import token_usage

_MESSAGE: Final = (None, "message")  # a message may leave its type out
_UNFINISHED: Final = ("queued", "in_progress", "incomplete", "failed", "cancelled")
_ENDED_BADLY: Final = ("response.failed", "response.incomplete", "response.cancelled")


# Requests


def map_response_texts(
    doc: Json, system: Callable[[str], str], message: Callable[[str], str]
) -> None:
    """Replace, in place, the texts of `instructions` and `input`, results of tools included."""
    map_texts(doc, "instructions", system)
    if isinstance(doc.get("input"), str):
        map_texts(doc, "input", message)
    for item in objects(doc.get("input")):
        map_texts(item, "content", system if item.get("role") in INSTRUCTION_ROLES else message)
        map_texts(item, "output", message)


def keep_last_input(doc: Json, turns: int) -> bool:
    """Cut `input`, in place, to its last `turns`. False: the suffix tier must not be used."""
    if doc.get("previous_response_id") or doc.get("conversation") or doc.get("prompt"):
        return False  # the talk is elsewhere
    if isinstance(doc.get("input"), str):
        return turns >= 1
    kept: list[Any] | None = keep_last_of(
        doc.get("input"), turns, lambda item: item.get("type") not in _MESSAGE
    )
    if kept is not None:
        doc["input"] = kept
    return kept is not None


# Answers


def response_answer(doc: Json) -> Answer:
    """The facts of a `response`."""
    reason = _unfit(doc)
    if not reason and doc.get("status") != "completed":
        reason = f"status {one_line(str(doc.get('status')))}"
    return Answer(
        complete=not reason,
        reason=reason,
        model=text_or_none(doc.get("model")),
        usage=_usage(doc),
        snippet=_snippet(doc),
    )


class ResponseWatcher(EventWatcher):
    """Follows a stream of events up to its `response.completed`."""

    last = "response.completed"

    def __init__(self) -> None:
        super().__init__()
        self._response: Json = {}  # the newest
        self._closed = False

    def _take(self, event: Event) -> None:
        if event.data.strip() == DONE and self._stopped and not self._closed:
            self._closed = True  # some servers end this stream as they end a chat's
            return
        try:
            doc = parsed(event.data)
        except ValueError:
            doc = None
        kind = doc.get("type") if isinstance(doc, dict) else None
        if event.name == b"error" or kind == "error":
            error = {} if not isinstance(doc, dict) else doc.get("error") or {**doc, "type": None}
            self._reason = error_reason("error event", error)
        elif is_foreign(event, doc, "response."):
            pass
        elif self._stopped:
            self._reason = self._after_last
        elif not isinstance(doc, dict) or not isinstance(kind, str):
            self._reason = "an event is not JSON"
        else:
            self._response = member(doc, "response") or self._response
            if kind in _ENDED_BADLY:
                self._reason = _unfit(member(doc, "response")) or kind
            elif kind == "response.completed":
                self._reason = _unfit(member(doc, "response"))
                self._stopped = True

    def _answer_model(self) -> str | None:
        return text_or_none(self._response.get("model"))

    def _answer_usage(self) -> Usage | None:
        return _usage(self._response)

    def _snippet_line(self) -> str:
        return _snippet(self._response)


def _unfit(doc: Json) -> str:
    """Why a response is not to be stored, or ""."""
    if doc.get("error"):
        return error_reason("error", doc["error"])
    if doc.get("object") != "response":
        return "not a response"
    if (status := doc.get("status")) in _UNFINISHED:
        details = member(doc, "incomplete_details").get("reason")
        return f"status {status}" + (f": {details}" if isinstance(details, str) else "")
    return leans_on(doc)


def leans_on(doc: Json) -> str:
    """What a request, or the answer that repeats its settings, leans on that changes elsewhere."""
    if doc.get("conversation"):
        return "part of a conversation that goes on"
    if any(isinstance(tool.get("container"), str) for tool in objects(doc.get("tools"))):
        return "in a container that goes on"
    return ""


def _usage(doc: Json) -> Usage | None:
    """The tokens, and the calls of tools that the provider runs at a price each: "search actions
    incur a tool call cost", opening a page doesn't."""
    usage = token_usage(doc.get("usage"), doc.get("service_tier"))
    if usage is None:
        return None
    items = objects(doc.get("output"))
    searches = [item for item in items if item.get("type") == "web_search_call"]
    return replace(
        usage,
        web_searches=usage.web_searches
        or sum(member(item, "action").get("type") in (None, "search") for item in searches),
        storage_searches=sum(item.get("type") == "file_search_call" for item in items),
    )


def _snippet(doc: Json) -> str:
    snippet = Snippet()
    for item in objects(doc.get("output")):
        if item.get("type") == "message":
            for part in objects(item.get("content")):
                snippet.add_text(" ")
                snippet.add_text(part.get("text"))
                snippet.add_text(part.get("refusal"))
        elif item.get("type") == "reasoning":
            for thought in objects(item.get("summary")) + objects(item.get("content")):
                snippet.add_thinking(thought.get("text"))
        else:
            snippet.add_tool(item.get("name") or item.get("type"))
    return snippet.line()
