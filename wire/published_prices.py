"""Prices that hosts publish and the price data doesn't have.

US dollars per million (input, output, cached input) tokens, by the price data's name of the host
and the model's id there, in lower case. Each block names its page and when that was read. Only what
a host itself publishes for that model stands here: no estimate, nobody else's price, and nothing
for a host that bills by subscription or quota. Asked last: `prices.json` and the price data come
first.
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
}

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
    "crusoe": _CRUSOE,
}
