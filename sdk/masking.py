"""Keys and tokens in text that goes out: how one is shown, and how none slips through.

What holds: `masked` and `without_keys` leave at most a key's maker (its known prefix) and its last
four characters. They know keys by the forms that makers give out, and by the names in front of
them; a key of no form with no name in front can't be known. This module imports nothing.
"""

from __future__ import annotations

import re

_LEAST = 16
"""How many characters after its prefix a key has at least, so that four of them tell nothing."""

# Longest first: `sk-ant-` is one of `sk-`.
_PREFIXES = (
    *("sk-ant-", "sk-or-", "sk-proj-", "sk-", "gsk_", "csk-", "xai-", "fw_", "hf_", "pplx-"),
    *("AIza", "AQ.", "ABSK", "bedrock-api-key-", "AKIA", "ASIA", "ya29."),
)
_PREFIX = re.compile("|".join(map(re.escape, _PREFIXES)))
_BODY = r"[A-Za-z0-9_.+/=-]"
# No letter before it (`risk-…` is a word), but a digit may be there, where a line break was lost.
_KEY = re.compile(rf"(?:sk-ant-|(?<![A-Za-z])(?:{_PREFIX.pattern}){_BODY}{{8}}){_BODY}*")
_NAMED = re.compile(
    r"((?:API_KEY|API_KEY_REAL|ACCESS_KEY|TOKEN|SECRET|PASSWORD)=|[Bb]earer )([^\s…]+)"
)


def masked(key: str) -> str:
    """A key for the eye of its owner: `sk-ant-…a1b2`; of a short one, `…`."""
    found = _PREFIX.match(key)
    prefix = found[0] if found else ""
    end = key[-4:] if len(key) - len(prefix) >= _LEAST else ""
    return f"{prefix}…{end}"


def without_keys(text: str) -> str:
    """`text` with all that looks like a key, or is called one, masked."""
    text = _NAMED.sub(lambda found: found[1] + masked(found[2]), text)
    return _KEY.sub(lambda found: masked(found[0]), text)
