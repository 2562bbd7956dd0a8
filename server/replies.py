"""An exchange's reply, written to the client by ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_cache.exchange import ClientGone, Exchange, Head, HeaderList, Reply
from llm_cache.server.bodies import ClientBody, Send, Side
from llm_cache.wire.answers import media_type

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which no reader of a stream takes for an event (HTML, 9.2.6)."""


async def answer(
    exchange: Exchange,
    head: Head,
    body: ClientBody,
    side: Side,
    send: Send,
    *,
    keep_alive_sec: float = 0,
) -> None:
    """Answer one request to a provider. Raises `Refused` before anything was sent; `ClientGone` and
    `FlightFailed` when the answer has to be cut. `keep_alive_sec`: how long an event stream may be
    silent before its client gets a comment, 0 for ever."""
    reply = await exchange.answer(head, body)
    try:
        if reply.whole is not None:
            await _send_whole(reply, reply.whole, side, send)
            return
        async with _cancelled_when_gone(body):
            await reply.begin()
            if reply.whole is not None:
                await _send_whole(reply, reply.whole, side, send)
                return
            await _send_head(reply, side, send)
            if keep_alive_sec and _takes_comments(reply.headers):
                pieces = _with_comments(reply, keep_alive_sec)
            else:
                pieces = _pieces(reply)
            async for data in pieces:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        body.give_up()
        reply.close()


async def _pieces(reply: Reply) -> AsyncIterator[bytes]:
    while data := await reply.next():
        yield data


async def _with_comments(reply: Reply, keep_alive_sec: float) -> AsyncIterator[bytes]:
    """The pieces of an event stream, and a comment wherever it is silent between two events."""
    between = True
    while True:
        coming = asyncio.ensure_future(reply.next())
        try:
            while not (await asyncio.wait({coming}, timeout=keep_alive_sec))[0]:
                if between:
                    yield KEEP_ALIVE
            data = await coming
        finally:
            coming.cancel()
        if not data:
            return
        between = data.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
        yield data


def _takes_comments(headers: HeaderList) -> bool:
    """True for an event stream that is as long as it will be, in no content coding."""
    fields = dict(headers)
    kind = fields.get(b"content-type", b"").decode("latin-1")
    plain = b"content-length" not in fields and b"content-encoding" not in fields
    return plain and media_type(kind) == "text/event-stream"


async def _send_head(reply: Reply, side: Side, send: Send) -> None:
    side.reason = reply.reason
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})


async def _send_whole(reply: Reply, body: bytes, side: Side, send: Send) -> None:
    await _send_head(reply, side, send)
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def _cancelled_when_gone(body: ClientBody) -> AsyncIterator[None]:
    """Leave the block as soon as the client closes its connection. Raises `ClientGone` then."""
    task = asyncio.current_task()
    assert task is not None
    inside = True
    left = False

    def leave(watch: asyncio.Future[None]) -> None:
        nonlocal left
        if inside and not watch.cancelled():
            left = True
            task.cancel()

    watch = asyncio.ensure_future(body.until_gone())
    watch.add_done_callback(leave)
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise  # the server is stopping
        task.uncancel()
        raise ClientGone from None
    finally:
        inside = False
        watch.cancel()
