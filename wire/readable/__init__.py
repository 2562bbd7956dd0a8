"""Requests and answers made readable for people."""

from llm_cache.wire.readable.parts import Kind, Part
from llm_cache.wire.readable.reading import answer, pretty, prompt, raw, request

__all__ = ["Kind", "Part", "answer", "pretty", "prompt", "raw", "request"]
