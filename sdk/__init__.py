"""llm-cache: a local-first caching reverse proxy for LLM APIs, and the pieces it is made of."""

__version__ = "0.1.0"
