"""Answers with `choices`: OpenAI's chat completions and completions, and all that imitate them.

A streamed answer is complete when `[DONE]` came after every choice that was begun, and at least
one, had its `finish_reason`; when no error came in between; and when nothing followed. A JSON
answer is complete when it parses, has its choices, each with its `finish_reason`, and tells of no
error. A choice that was broken off (`error`, DeepSeek's `insufficient_system_resource`) isn't
complete; one that reached its length limit (`length`) is. A host that ends otherwise says so
(`ChatEnd`). An event with a name of the host's own and without choices decides nothing.
Source: https://platform.openai.com/docs/api-reference/chat/object and .../chat/streaming;
https://api-docs.deepseek.com/api/create-chat-completion; https://openrouter.ai/docs/api/reference/errors-and-debugging.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from llm_cache.wire.answers import (
    DONE,
    EventWatcher,
    Snippet,
    count,
    cumulated,
    error_reason,
    is_foreign,
    member,
    objects,
    parsed,
    text_or_none,
    tier,
)
from llm_cache.wire.framing.sse import Event
from llm_cache.wire.provider import Answer, Json, Usage

_BROKEN_OFF: Final = ("error", "insufficient_system_resource")


class ChatEnd(Enum):
    """What ends a host's chats."""

    DONE = "[DONE]"
    """As at OpenAI: `[DONE]`, after each choice has its `finish_reason`."""
    LAST_CHUNK = "finish_reason and usage"
    """The chunk with which every choice has its `finish_reason` and the usage is told; a `[DONE]`
    may follow, and chunks without choices."""
    DONE_ALONE = "[DONE] alone"
    """`[DONE]`; there is never a `finish_reason`, in plain answers neither."""


def choices_answer(doc: Json, end: ChatEnd = ChatEnd.DONE) -> Answer:
    """The facts of a `chat.completion` or `text_completion`."""
    if reason := told_error(doc):
        return Answer(complete=False, reason=reason)
    choices = doc.get("choices")
    if not isinstance(choices, list) or not choices:
        return Answer(complete=False, reason="no choices")
    snippet = Snippet()
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict) or not (
            isinstance(choice.get("message"), dict) or isinstance(choice.get("text"), str)
        ):
            return Answer(complete=False, reason="a choice is not a message")
        if reason := _broken_off(choice):
            return Answer(complete=False, reason=reason)
        if not choice.get("finish_reason") and end is not ChatEnd.DONE_ALONE:
            return Answer(complete=False, reason="no finish_reason")
        if place == 0:
            _add_message(snippet, member(choice, "message"))
            snippet.add_text(choice.get("text"))
    return Answer(
        complete=True,
        model=text_or_none(doc.get("model")),
        usage=token_usage(told_usage(doc), doc.get("service_tier")),
        snippet=snippet.line(),
    )


class ChoicesWatcher(EventWatcher):
    """Follows a stream of chunks up to its end, which is the host's."""

    def __init__(self, end: ChatEnd = ChatEnd.DONE) -> None:
        super().__init__()
        self.last = end.value
        self._end = end
        self._closed = False
        self._open: set[int] = set()  # choices that have begun and not finished
        self._finished: set[int] = set()
        self._shown: int | None = None  # the choice the snippet is of
        self._model: str | None = None
        self._usage: Json | None = None
        self._tier: object = None
        self._snippet = Snippet()

    def _take(self, event: Event) -> None:
        if event.data.strip() == DONE:
            self._take_done()
            return
        try:
            doc = parsed(event.data)
        except ValueError:
            doc = None
        chunk = isinstance(doc, dict) and "choices" in doc
        if event.name == b"error":
            error = doc.get("error", doc) if isinstance(doc, dict) else None
            self._reason = error_reason("error event", error)
        elif not chunk and is_foreign(event, doc):
            pass
        elif self._closed or (self._stopped and isinstance(doc, dict) and doc.get("choices")):
            self._reason = self._after_last
        elif not isinstance(doc, dict):
            self._reason = self._after_last if self._stopped else "an event is not JSON"
        else:
            self._reason = told_error(doc)
            self._take_chunk(doc)
            if self._end is ChatEnd.LAST_CHUNK and self._finished and not self._open:
                self._stopped = self._usage is not None

    def _take_done(self) -> None:
        if self._closed:
            self._reason = self._after_last
        elif not self._started or (self._open and self._end is not ChatEnd.DONE_ALONE):
            self._reason = "[DONE] without a finish_reason"
        self._stopped = self._closed = True

    def _take_chunk(self, doc: Json) -> None:
        self._model = self._model or text_or_none(doc.get("model")) or None
        groq = member(doc, "x_groq")  # Groq's place for what others put in the chunk itself
        if groq.get("error"):
            self._reason = error_reason("error event", groq["error"])
        # Where a server counts in every chunk, the last count is the answer's.
        if told := told_usage(doc):
            self._usage = cumulated(self._usage, told)
        self._tier = doc.get("service_tier") or self._tier
        for place, choice in enumerate(objects(doc.get("choices"))):
            index = choice.get("index", place)
            if not isinstance(index, int):
                self._reason = "a choice has no index"
                return
            self._reason = self._reason or _broken_off(choice)
            if not self._started:
                self._started = True
                self._shown = index
            if choice.get("finish_reason"):
                self._finished.add(index)
                self._open.discard(index)
            elif index not in self._finished:
                self._open.add(index)
            if index == self._shown:
                _add_message(self._snippet, member(choice, "delta"))
                self._snippet.add_text(choice.get("text"))

    def _answer_model(self) -> str | None:
        return self._model

    def _answer_usage(self) -> Usage | None:
        return token_usage(self._usage, self._tier)

    def _snippet_line(self) -> str:
        return self._snippet.line()


def told_usage(doc: Json) -> Json:
    """The `usage` of an answer or a chunk, at whichever place its host puts it; {} for none."""
    first = next(iter(objects(doc.get("choices"))), {})  # Moonshot's place, in a stream
    return member(doc, "usage") or member(member(doc, "x_groq"), "usage") or member(first, "usage")


def told_error(doc: Json) -> str:
    """Why a document that came with a 200 is an error, or ""."""
    if doc.get("error"):
        return error_reason("error", doc["error"])
    return error_reason("error", doc) if doc.get("object") == "error" else ""


def _broken_off(choice: Json) -> str:
    if choice.get("error"):
        return error_reason("error in a choice", choice["error"])
    reason = choice.get("finish_reason")
    return f"finish_reason {reason}" if reason in _BROKEN_OFF else ""


def _add_message(snippet: Snippet, message: Json) -> None:
    """Take a message, or a streamed part of one."""
    content = message.get("content")
    snippet.add_text(content)
    for part in objects(content):  # Mistral's form
        snippet.add_text(part.get("text"))
        for thought in objects(part.get("thinking")):
            snippet.add_thinking(thought.get("text"))
    snippet.add_text(message.get("refusal"))
    snippet.add_text(member(message, "audio").get("transcript"))
    for field in ("reasoning_content", "reasoning", "thinking"):
        snippet.add_thinking(message.get(field))
    for call in objects(message.get("tool_calls")):
        snippet.add_tool(member(call, "function").get("name") or member(call, "custom").get("name"))
    snippet.add_tool(member(message, "function_call").get("name"))


def token_usage(usage: object, service_tier: object = None) -> Usage | None:
    """OpenAI's `usage`, by the names of its old and its new endpoints; None when there is none.
    `service_tier` is what the answer says beside it.

    Reasoning is part of the output tokens. Where a server counts it beside them (xAI: the total
    is the sum of all three) it is added.
    """
    if not isinstance(usage, dict) or not usage:
        return None
    asked = count(usage, "prompt_tokens") or count(usage, "input_tokens")
    answered = count(usage, "completion_tokens") or count(usage, "output_tokens")
    if not asked and not answered:
        asked = count(usage, "total_tokens")  # all that Voyage counts: an embedding has no output
    told = member(usage, "completion_tokens_details") or member(usage, "output_tokens_details")
    reasoning = count(told, "reasoning_tokens")
    if reasoning and count(usage, "total_tokens") == asked + answered + reasoning:
        answered += reasoning
    cited = count(usage, "citation_tokens")
    thought = 0
    if "citation_tokens" in usage or "num_search_queries" in usage:
        # Perplexity's sonar-deep-research: both are beside the completion, at rates of their own.
        thought = count(usage, "reasoning_tokens")
        answered += cited + thought
    cache = member(usage, "prompt_tokens_details") or member(usage, "input_tokens_details")
    cached = member(cache, "cached_tokens_details")
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        cache_read_tokens=min(
            asked, count(cache, "cached_tokens") or count(usage, "prompt_cache_hit_tokens")
        ),
        cache_write_tokens=count(cache, "cache_write_tokens"),
        input_includes_cache=True,
        input_audio_tokens=count(cache, "audio_tokens"),
        input_image_tokens=count(cache, "image_tokens"),
        output_audio_tokens=count(told, "audio_tokens"),
        output_image_tokens=count(told, "image_tokens"),
        cache_audio_read_tokens=count(cached, "audio_tokens"),
        cache_image_read_tokens=count(cached, "image_tokens"),
        reasoning_tokens=thought,
        citation_tokens=cited,
        web_searches=count(usage, "num_search_queries")
        or count(member(usage, "server_tool_use"), "web_search_requests"),  # OpenRouter's
        service_tier=tier(service_tier or usage.get("service_tier")),
    )
