"""An exchange's reply, written to the client by ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_cache.exchange.asked import Head
from llm_cache.exchange.bodies import ClientGone
from llm_cache.exchange.exchange import Exchange
from llm_cache.exchange.reply import Reply
from llm_cache.server.bodies import ClientBody, Send, Side


async def answer(exchange: Exchange, head: Head, body: ClientBody, side: Side, send: Send) -> None:
    """Answer one request to a provider. Raises `Refused` before anything was sent; `ClientGone` and
    `FlightFailed` when the answer has to be cut."""
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
            while data := await reply.next():
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        body.give_up()
        reply.close()


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
