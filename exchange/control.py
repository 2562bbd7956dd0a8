"""What one request asks of the cache, read from its head.

`Control` gathers the headers by which a client says what may be done with the cache, in our
spelling and in those of the systems people come from (SPEC 5.9).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llm_cache.exchange.heads import Refusal, Refused

MODES = ("cache", "fresh", "bypass", "replay")


@dataclass(frozen=True, slots=True)
class Control:
    """How one request uses the cache. `ttl` in seconds: None = the store's limit, `inf` = none.
    `sample` may be `AUTO`: which sample it is, is counted within `run`."""

    mode: str | None = None
    ttl: float | None = None
    namespace: bytes = b""
    sample: bytes = b""
    run: bytes = b""


AUTO = b"auto"

_NOTHING_ASKED = Control()
_CONTROL_HEADERS = frozenset(
    (
        b"x-cache-mode",
        b"x-cache-ttl",
        b"x-cache-namespace",
        b"x-cache-sample",
        b"x-cache-run",
        b"x-cache-bypass",
        b"x-stasis-mode",
        b"cache-control",
    )
)


def read_control(fields: Mapping[bytes, bytes]) -> Control:
    """What the request's headers ask of the cache. Raises `Refused` (400) on a wrong value.

    Our own header wins over another system's, and both over plain `cache-control`.
    """
    if _CONTROL_HEADERS.isdisjoint(fields):
        return _NOTHING_ASKED
    mode = _mode_named(fields, b"x-cache-mode") or _mode_named(fields, b"x-stasis-mode")
    if mode is None and fields.get(b"x-cache-bypass", b"").lower() in (b"1", b"true"):
        mode = "bypass"
    if mode is None and b"cache-control" in fields:
        mode = _mode_of_directives(fields[b"cache-control"])
    ttl: float | None = None
    if b"x-cache-ttl" in fields:
        ttl = _seconds(fields[b"x-cache-ttl"])
    return Control(
        mode,
        ttl,
        fields.get(b"x-cache-namespace", b""),
        fields.get(b"x-cache-sample", b""),
        fields.get(b"x-cache-run", b""),
    )


def by_default(control: Control, namespace: bytes, sample: bytes) -> Control:
    """`control`, with `namespace` and `sample` for a request that names none."""
    if (control.namespace or not namespace) and (control.sample or not sample):
        return control
    return replace(
        control, namespace=control.namespace or namespace, sample=control.sample or sample
    )


def _mode_named(fields: Mapping[bytes, bytes], header: bytes) -> str | None:
    value = fields.get(header)
    if value is None:
        return None
    mode = value.decode("latin-1").strip().lower()
    if mode not in MODES:
        raise Refused(
            Refusal(
                400,
                "invalid_request",
                f"{header.decode()}: unknown mode {mode[:40]!r}; "
                "it is one of cache, fresh, bypass, replay",
            )
        )
    return mode


def _mode_of_directives(value: bytes) -> str | None:
    # RFC 9111 5.2.1: no-store forbids storing, no-cache forbids answering from the store,
    # only-if-cached forbids asking upstream.
    directives = {part.strip().lower() for part in value.split(b",")}
    if b"only-if-cached" in directives:
        return "replay"
    if b"no-store" in directives:
        return "bypass"
    if b"no-cache" in directives:
        return "fresh"
    return None


def _seconds(value: bytes) -> float:
    text = value.decode("latin-1").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise Refused(
            Refusal(
                400,
                "invalid_request",
                f"x-cache-ttl: {text[:40]!r} is not a whole number of seconds (0 = no limit)",
            )
        )
    return float(text) if int(text) else math.inf
