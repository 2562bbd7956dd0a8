"""What every test of an official client does: ask twice, and find no difference.

    heard = Heard()
    client = OpenAI(base_url=..., http_client=httpx2.Client(event_hooks=heard.hooks))
    answer = same_twice(upstream, heard, lambda: client.chat.completions.create(...))

What always holds here: the upstream was asked once, the second answer was a hit, and neither what
the client made of it nor the response's headers tell the two apart, but for those of `TELLING`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from support.stage import TELLING
from support.upstream import Upstream

T = TypeVar("T")


class Heard:
    """The responses a client got: status and headers, in order."""

    def __init__(self) -> None:
        self.responses: list[tuple[int, list[tuple[str, str]]]] = []

    @property
    def hooks(self) -> dict[str, list[Callable[[Any], None]]]:
        """Event hooks for the HTTP client under the official one."""
        return {"response": [self._take]}

    @property
    def labels(self) -> list[str]:
        """The `x-cache` of each response."""
        return [dict(headers).get("x-cache", "") for _, headers in self.responses]

    def _take(self, response: Any) -> None:
        self.responses.append((response.status_code, list(response.headers.multi_items())))


def same_twice(upstream: Upstream, heard: Heard, ask: Callable[[], T]) -> T:
    """What `ask` returns, twice the same: first from the upstream, then from the cache."""
    calls, before = upstream.call_count, len(heard.responses)
    first = ask()
    second = ask()
    assert second == first
    assert heard.labels[before:] == ["MISS", "HIT"]
    assert upstream.call_count == calls + 1
    missed, hit = [
        (status, [(name, value) for name, value in headers if name not in TELLING])
        for status, headers in heard.responses[before:]
    ]
    assert hit == missed
    return first
