"""Puts a streamed answer together: pieces in, the document that the API would have sent unstreamed.

Which form it is shows in the pieces themselves, so that gateways and Bedrock's chunks need nothing
of their own; how a form is folded is its provider's. Only for people to read: nothing here decides
whether an answer is complete, and what a folding couldn't place is left out. Bytes of any kind give
a document or None, and never an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_cache.wire.folding import joined, last_said, settled
from llm_cache.wire.provider import Json
from llm_cache.wire.providers import bedrock_answers, cohere, gemini, ollama
from llm_cache.wire.providers.anthropic_forms import MessageFolding
from llm_cache.wire.providers.openai_forms import ChatFolding
from llm_cache.wire.readable.frames import Piece

_TEXTS: Final = ("generation", "outputText", "text")  # Llama, Titan, Cohere behind Bedrock


def assembled(pieces: Sequence[Piece]) -> Json | None:
    """The answer that the pieces are a stream of, or None when their form isn't known."""
    answer = _answer(pieces)
    return None if answer is None else settled(answer)


def _answer(pieces: Sequence[Piece]) -> Json | None:
    named = [(piece.name, piece.doc) for piece in pieces if piece.doc is not None]
    docs = [doc for _, doc in named]
    kinds = {str(doc.get("type")) for doc in docs}
    if "message_start" in kinds:
        return _put_together(MessageFolding(), docs)
    if any(kind.startswith("response.") for kind in kinds):
        newest = [doc["response"] for doc in docs if isinstance(doc.get("response"), dict)]
        return newest[-1] if newest else None
    if any("choices" in doc for doc in docs):
        return _put_together(ChatFolding(), docs)
    if any("candidates" in doc or "promptFeedback" in doc for doc in docs):
        return gemini.folded(docs)
    if "message-start" in kinds:
        return cohere.folded(docs)
    steps = [step for name, doc in named for step in bedrock_answers.converse_steps(name, doc)]
    if steps:
        return bedrock_answers.folded(steps)
    if any("done" in doc and ("message" in doc or "response" in doc) for doc in docs):
        return ollama.folded(docs)
    for field in _TEXTS:
        if any(isinstance(doc.get(field), str) for doc in docs):
            return last_said(docs, {field: joined(doc.get(field) for doc in docs)})
    return None


def _put_together(folding: MessageFolding | ChatFolding, docs: Sequence[Json]) -> Json:
    for doc in docs:
        folding.take(doc)
    return {name: value for name, value in folding.document().items() if value is not None}
