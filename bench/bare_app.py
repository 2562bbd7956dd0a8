"""The least an ASGI app can do: read the request, send an answer of the size the query names.

Served by Hypercorn with uvloop it shows what Hypercorn itself costs; see bench/hits.py.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.anthropic_wire import message_of_size

_ANSWERS: dict[bytes, bytes] = {}


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """`POST /v1/messages?size=N`: N bytes of JSON."""
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    query = scope["query_string"]
    answer = _ANSWERS.get(query)
    if answer is None:
        answer = _ANSWERS[query] = message_of_size(int(query.removeprefix(b"size=") or 1400))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
