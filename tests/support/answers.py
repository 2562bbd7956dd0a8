"""An answer as it is read when its bytes come one by one."""

from __future__ import annotations

from llm_cache.wire.provider import Answer
from llm_cache.wire.registry import by_name


def read(name: str, path: str, body: bytes, kind: str) -> tuple[bool, Answer]:
    """What the provider `name` says of an answer to a POST to `path`: whether it was done with its
    last byte, and its facts. `kind` is its content type."""
    provider = by_name(name)
    assert provider is not None
    endpoint = provider.endpoint("POST", path)
    assert endpoint is not None
    watcher = provider.watch(endpoint, 200, kind)
    for at in range(len(body)):
        watcher.feed(body[at : at + 1])
    return watcher.done, watcher.close()
