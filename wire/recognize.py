"""An answer's facts from its body alone, or with what is known of where it came from.

For looking at one body outside of the proxy, where no content type and often no path came along:
the framing is told by the first bytes, and whose answer it is by trying. What is tried first is
what is told most surely by its own structure; the first that reads the body as a whole answer with
its usage is believed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from llm_cache.wire.provider import Answer
from llm_cache.wire.registry import ANY_COMPATIBLE, PROVIDERS, by_name

_NO_MODEL: Final = "-"  # where a path names the model, which nobody said
_KINDS: Final = (
    ("anthropic", "/v1/messages"),
    ("openai", "/v1/chat/completions"),
    ("openai", "/v1/responses"),
    ("openai", "/v1/embeddings"),
    ("gemini", f"/v1beta/models/{_NO_MODEL}:generateContent"),
    ("gemini", f"/v1beta/models/{_NO_MODEL}:streamGenerateContent"),
    ("gemini", f"/v1beta/models/{_NO_MODEL}:batchEmbedContents"),
    ("gemini", f"/v1beta/models/{_NO_MODEL}:embedContent"),
    ("gemini", "/v1beta/openai/chat/completions"),
    ("gemini", "/v1beta/openai/embeddings"),
    ("vertex", f"/v1/publishers/google/models/{_NO_MODEL}:predict"),
    ("vertex", f"/v1/publishers/google/models/{_NO_MODEL}:generateContent"),
    ("vertex", f"/v1/publishers/google/models/{_NO_MODEL}:streamGenerateContent"),
    ("vertex", f"/v1/publishers/anthropic/models/{_NO_MODEL}:rawPredict"),
    ("vertex", f"/v1/publishers/any/models/{_NO_MODEL}:rawPredict"),
    ("mantle", "/anthropic/v1/messages"),
    ("cohere", "/v2/chat"),
    ("cohere", "/v2/embed"),
    ("ollama", "/api/chat"),
    ("ollama", "/api/embed"),
    ("bedrock", "/openai/v1/chat/completions"),
    ("bedrock", f"/model/{_NO_MODEL}/converse"),
    ("bedrock", f"/model/{_NO_MODEL}/converse-stream"),
    ("bedrock", f"/model/{_NO_MODEL}/invoke-with-response-stream"),
    ("bedrock", f"/model/{_NO_MODEL}/invoke"),  # last: it takes any JSON for an answer
)


def recognized(body: bytes, provider: str | None = None, path: str | None = None) -> Answer | None:
    """The facts of `body`; `provider` and `path` (with or without its query) are where it came
    from, as far as known. None: answers from there aren't known."""
    target = None if path is None else path.partition("?")[0]
    if provider is not None:
        # Each speaks some of these; what it doesn't have has no endpoint.
        kinds = [(provider, target)] if target else [(provider, one) for _, one in _KINDS]
    elif target is not None:
        claimed = [one.name for one in PROVIDERS if one.claims("POST", target, {})]
        kinds = [(name, target) for name in (*claimed[:1], ANY_COMPATIBLE.name)]
    else:
        kinds = list(_KINDS)
    found: list[Answer] = []
    for name, one in kinds:
        if (answer := _read(name, one, body)) is not None:
            found.append(answer)
            if answer.complete and answer.usage is not None:
                return answer
    return next((answer for answer in found if answer.usage), found[0] if found else None)


def _read(provider: str, path: str, body: bytes) -> Answer | None:
    known = by_name(provider)
    endpoint = None if known is None else known.endpoint("POST", path)
    if known is None or endpoint is None:
        return None
    answer = Answer(complete=False)
    for kind in _framings(body):
        watcher = known.watch(endpoint, 200, kind)
        watcher.feed(body)
        answer = watcher.close()
        if answer.complete:
            break
    return replace(answer, model=None) if answer.model == _NO_MODEL else answer


def _framings(body: bytes) -> tuple[str, ...]:
    """The content types that a body with these bytes can have, the likeliest last."""
    if body[:1] == b"\0":  # the length of a first message below 16 MiB
        return ("application/vnd.amazon.eventstream",)
    if body.lstrip()[:1] in (b"{", b"["):
        return ("application/x-ndjson", "application/json")
    return ("text/event-stream",)
