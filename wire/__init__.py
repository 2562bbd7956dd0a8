"""What llm-cache knows of LLM APIs: keys, completeness, usage, prices, errors.

Bytes go in, facts come out; nothing here does I/O, and nothing here imports the other rooms
except `llm_cache.errors`. Others import the module that owns what they need, one of those in
`__all__`: whoever wants a key or a header field must not load every provider.
"""

__all__ = [
    "answers",
    "api_keys",
    "aws",
    "billing",
    "credentials",
    "framing",
    "keys",
    "normalize",
    "pattern_cost",
    "presets",
    "prices",
    "provider",
    "readable",
    "recognize",
    "registry",
    "request_fields",
]
