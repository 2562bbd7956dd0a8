"""Prices that hosts publish and the price data doesn't have.

US dollars per million (input, output, cached input) tokens, by the price data's name of the host
and the model's id there, in lower case. Each block names its page and when copies of the page said
so. Only what a host itself publishes for that model stands here: no estimate, nobody else's price,
and nothing for a host that bills by subscription or quota. Asked last: `prices.json` and the price
data come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# https://aws.amazon.com/bedrock/pricing/ (on demand, us-east-1), November 2026. A model costs the
# same whichever endpoint is asked; ids of gpt-oss without a version are bedrock-mantle's. Input of
# embedding models is text.
_AWS: Final = {
    "openai.gpt-oss-120b": (0.15, 0.60, 0.15),
    "openai.gpt-oss-20b": (0.07, 0.30, 0.07),
    "openai.gpt-oss-safeguard-120b": (0.15, 0.60, 0.15),
    "openai.gpt-oss-safeguard-20b": (0.07, 0.20, 0.07),
    "amazon.nova-2-multimodal-embeddings-v1:0": (0.135, 0.0, 0.135),
    "cohere.embed-english-v3": (0.10, 0.0, 0.10),
    "cohere.embed-multilingual-v3": (0.10, 0.0, 0.10),
    "cohere.embed-v4:0": (0.12, 0.0, 0.12),
    "us.cohere.embed-v4:0": (0.12, 0.0, 0.12),
    "eu.cohere.embed-v4:0": (0.12, 0.0, 0.12),
    "global.cohere.embed-v4:0": (0.12, 0.0, 0.12),
    "cohere.command-r-v1:0": (0.50, 1.50, 0.50),
    "cohere.command-r-plus-v1:0": (3.00, 15.00, 3.00),
    "deepseek.v3-v1:0": (0.58, 1.68, 0.58),
    "deepseek.v3.2": (0.62, 1.85, 0.62),
    "minimax.minimax-m2": (0.30, 1.20, 0.30),
    "moonshot.kimi-k2-thinking": (0.60, 2.50, 0.60),
    "moonshotai.kimi-k2.5": (0.60, 3.00, 0.60),
    "qwen.qwen3-235b-a22b-2507-v1:0": (0.22, 0.88, 0.22),
    "zai.glm-4.7": (0.60, 2.20, 0.60),
}

# https://cohere.com/pricing, November 2026: embedding models of text.
_COHERE: Final = {
    "embed-english-v3.0": (0.10, 0.0, 0.10),
    "embed-multilingual-v3.0": (0.10, 0.0, 0.10),
}

# https://mistral.ai/pricing, November 2026.
_MISTRAL: Final = {"devstral-medium-latest": (0.40, 2.00, 0.40)}

# https://www.crusoe.ai/cloud/pricing (serverless inference), 29 September 2026; Llama 3.3: 24 June.
_CRUSOE: Final = {
    "deepseek-ai/deepseek-v4-flash": (0.14, 0.28, 0.03),
    "deepseek-ai/deepseek-v4-pro": (1.74, 3.48, 0.15),
    "google/gemma-4-31b-it": (0.14, 0.40, 0.14),
    "meta-llama/llama-3.3-70b-instruct": (0.25, 0.75, 0.25),
    "moonshotai/kimi-k2.6": (0.70, 3.50, 0.35),
    "openai/gpt-oss-120b": (0.05, 0.20, 0.05),
    "zai/glm-5.3": (1.40, 4.40, 0.26),
    "zai/glm-5.3-flash": (0.15, 0.50, 0.03),
}

PUBLISHED: Final[Mapping[str, Mapping[str, tuple[float, float, float]]]] = {
    "aws": _AWS,
    "cohere": _COHERE,
    "crusoe": _CRUSOE,
    "mistral": _MISTRAL,
}

# OpenRouter adds nothing to the prices of who serves a model (https://openrouter.ai/docs/faq,
# November 2026). These makers' own models, weights closed, have one price; it is asked when
# OpenRouter's list no longer has the model.
PASSED_ON: Final[Mapping[str, Mapping[str, str]]] = {
    "openrouter": {
        "anthropic/": "anthropic",
        "google/gemini-": "google",
        "openai/gpt-4": "openai",
        "openai/gpt-5": "openai",
        "openai/o": "openai",
        "perplexity/sonar": "perplexity",
        "x-ai/grok-": "x-ai",
    }
}
"""By host: beginnings of its model ids, with the maker before the slash, and whose price it is."""
