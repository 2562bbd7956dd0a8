"""Request keys: SHA-256 over everything that decides an answer.

Always true here: two different contexts or bodies never give the bytes that are hashed the same
form (every part carries its length), the tiers' keys can't meet (each begins with its own label),
and credentials enter as a digest only. The label holds the version of this format: whoever
changes what is hashed raises it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

_FORMAT: Final = b"llm-cache key 1 "
_EXACT: Final = _FORMAT + b"exact\n"


@dataclass(frozen=True, slots=True)
class KeyContext:
    """All that decides an answer apart from the body.

    `target` is the raw path and query without a provider prefix. `headers` are those that can
    change an answer, lower-case names, sorted by name; lines of one name stay in order
    (RFC 9110, 5.3). `credential` is a `credential_digest`, or b"".
    """

    method: bytes
    target: bytes
    base_url: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    namespace: bytes
    sample: bytes
    credential: bytes

    def prefix(self) -> bytes:
        """The context as bytes, every part framed by its length. Worth keeping per context."""
        parts = [self.method, self.target, self.base_url]
        parts += [self.namespace, self.sample, self.credential]
        for name, value in self.headers:
            parts += [name, value]
        return len(parts).to_bytes(8, "big") + _framed(parts)


def exact_key(prefix: bytes, body: bytes) -> bytes:
    """The key (32 bytes) of the raw `body` in the context that `prefix` describes."""
    digest = sha256(_EXACT + prefix)
    digest.update(body)
    return digest.digest()


def tier_key(tier: str, prefix: bytes, body: bytes) -> bytes:
    """The key (32 bytes) of another tier, over the form of the body that the tier compares.

    `tier` is a label without a line feed, other than `exact`.
    """
    digest = sha256(_FORMAT + tier.encode("ascii") + b"\n" + prefix)
    digest.update(body)
    return digest.digest()


def credential_digest(values: Iterable[bytes]) -> bytes:
    """A digest (32 bytes) of the client's credentials, in the order given; b"" for none."""
    parts = list(values)
    if not parts:
        return b""
    return sha256(b"llm-cache credential 2\n" + _framed(parts)).digest()


def _framed(parts: list[bytes]) -> bytes:
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)])
