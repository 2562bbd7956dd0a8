"""The ASGI application: guard, route, answer; and refusals in a form the client understands.

Every request passes `_http` once. Nothing is read of its body before the guard let it in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from llm_cache.exchange import (
    ClientGone,
    Exchange,
    FlightFailed,
    Head,
    Headers,
    Journal,
    Refusal,
    Refused,
    Route,
    Router,
    merged_headers,
    read_control,
)
from llm_cache.server import replies
from llm_cache.server.bodies import ClientBody, Receive, Send, Side
from llm_cache.server.guard import Guard, method_refusal, path_problem, split_target
from llm_cache.server.hypercorn.fastlane import FastLane
from llm_cache.server.own import OwnEndpoints
from llm_cache.wire.credentials import split_query
from llm_cache.wire.provider import Provider
from llm_cache.wire.registry import ALL_CREDENTIALS

_CORS_RESULT = (b"access-control-allow-origin", b"access-control-expose-headers")
_EXPOSED = b"x-cache, x-cache-key, age, request-id"

HINT_SEC = 60.0
"""How often the log says at most that a client's base URL is wrong."""


class App:
    """What Hypercorn calls. `active` are the tasks of requests under way."""

    def __init__(
        self,
        guard: Guard,
        router: Router,
        exchange: Exchange,
        own: OwnEndpoints,
        journal: Journal,
        lane: FastLane,
        *,
        has_real_key: bool,
        client_timeout_sec: float,
        keep_alive_sec: float = 0,
    ) -> None:
        self._keep_alive_sec = keep_alive_sec
        self._client_timeout_sec = client_timeout_sec
        self._guard = guard
        self._router = router
        self._exchange = exchange
        self._own = own
        self._journal = journal
        self._lane = lane
        # With a real key here, the client's own key is of no use and may carry our token.
        self._token_places = ALL_CREDENTIALS if has_real_key else frozenset()
        self._hinted = -HINT_SEC
        self.active: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            task = asyncio.current_task()
            assert task is not None
            self.active.add(task)
            try:
                await self._http(scope, receive, send)
            except (ClientGone, FlightFailed):
                # An answer that began and isn't ended makes Hypercorn cut the connection.
                pass
            except Exception as error:
                self._journal.internal_error(error)
                raise
            finally:
                self.active.discard(task)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:  # a WebSocket: nothing here speaks it; closing before accepting answers 403
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        headers: Headers = scope["headers"]
        fields = merged_headers(headers)
        origin = fields.get(b"origin")
        if origin is not None and self._guard.origin_allowed(origin):
            send = _with_cors(send, origin)
        route: Route | None = None
        side: Side = scope.get("state", {}).get("side") or Side()
        try:
            refusal = self._guard.check(scope, fields, scope["scheme"])
            if refusal is not None:
                raise Refused(refusal)
            method: str = scope["method"]
            if origin is not None and method == "OPTIONS":
                await _preflight(fields, send)
                return
            target: bytes = scope["raw_path"]
            if scope["query_string"]:
                target += b"?" + scope["query_string"]
            route = self._router.known(method, target, fields)
            if route is None:
                if refusal := method_refusal(method, fields):
                    raise Refused(refusal)
                path = self._checked_path(scope)
                if self._own.handles(method, path, fields):
                    await self._answer_own(scope, path, fields, receive, send)
                    return
                if path is not scope["raw_path"]:
                    target = path + target[len(scope["raw_path"]) :]
                route = self._router.route(method, target, fields)
            if self._guard.needs_token and not self._token_ok(route, fields):
                raise Refused(_UNAUTHORIZED)
            if route is None:
                raise Refused(self._unknown_path(method, scope["raw_path"]))
            head = Head(route, headers, fields, read_control(fields))
            body = ClientBody(receive, fields, self._client_timeout_sec, side)
            await replies.answer(
                self._exchange, head, body, side, send, keep_alive_sec=self._keep_alive_sec
            )
            if side.head is not None:
                self._lane.remember(side.place, side.head, head)
        except Refused as refused:
            shape = self._router.error_shape(scope["method"], scope["raw_path"], fields, route)
            await self._refuse(refused.refusal, shape, side, send)

    def _unknown_path(self, method: str, path: bytes) -> Refusal:
        """Why nothing is there; in the log as well for the one mistake that clients' base URLs
        invite: some add `/v1` to theirs by themselves, some don't."""
        if method != "POST" or path.rpartition(b"/")[2] != b"messages":
            return Refusal(404, "not_found", "no known API has this path; see docs/PROVIDERS.md")
        said = (
            "POST /messages is no path of the Anthropic API, /v1/messages is: the base URL of this "
            "client has to end with /v1; see docs/CLIENTS.md"
        )
        now = time.monotonic()
        if now - self._hinted >= HINT_SEC:
            self._hinted = now
            self._journal.info(said)
        return Refusal(404, "not_found", said)

    def _checked_path(self, scope: dict[str, Any]) -> bytes:
        raw: bytes = scope["raw_path"]
        authority, path = split_target(raw)
        if authority is not None:
            # RFC 9112 3.2.2: the target's authority stands in place of the Host header.
            stand_in = {b"host": authority}
            if refusal := self._guard.check(scope, stand_in, scope["scheme"]):
                raise Refused(refusal)
        problem = path_problem(path, scope["query_string"])
        if problem is not None:
            raise Refused(Refusal(400, "invalid_request", problem))
        return raw if authority is None else path

    async def _answer_own(
        self,
        scope: dict[str, Any],
        path: bytes,
        fields: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        if path != b"/health" and not self._guard.token_ok(fields, self._token_places):
            raise Refused(_UNAUTHORIZED)
        await self._own.answer(scope["method"], path, scope["query_string"], fields, receive, send)

    def _token_ok(self, route: Route | None, fields: Mapping[bytes, bytes]) -> bool:
        # Where the proxy's own credentials go upstream, the client's may be our token.
        if route is None or (route.real_key is None and not route.provider.signed):
            return self._guard.token_ok(fields)
        in_query = split_query(route.target, route.provider.key_parameters)[1]
        return self._guard.token_ok(
            fields, route.provider.credential_headers, (value for _, value in in_query)
        )

    async def _refuse(self, refusal: Refusal, shape: Provider, side: Side, send: Send) -> None:
        self._journal.debug(f"refused: {refusal.status} {refusal.kind}: {refusal.message}")
        body = shape.error_body(refusal.status, refusal.kind, refusal.message)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-cache", b"ERROR"),
            (b"date", self._exchange.date(time.time())),
            (b"connection", b"close"),
        ]
        if refusal.upgrade:  # RFC 9110, 15.5.22 and 7.8
            headers[-1] = (b"connection", b"upgrade, close")
            headers.append((b"upgrade", refusal.upgrade.encode()))
        if refusal.allow:  # RFC 9110, 15.5.6
            headers.append((b"allow", ", ".join(refusal.allow).encode()))
        side.reason = HTTPStatus(refusal.status).phrase.encode()
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_UNAUTHORIZED = Refusal(
    401, "authentication_error", "this proxy needs its token: send it as x-cache-auth"
)


def _with_cors(send: Send, origin: bytes) -> Send:
    """Lets a page of an allowed origin read the answer (WHATWG Fetch, CORS protocol)."""

    async def send_with_cors(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [h for h in message["headers"] if h[0] not in _CORS_RESULT]
            message["headers"] = [
                *kept,
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"origin"),
            ]
        await send(message)

    return send_with_cors


async def _preflight(fields: Mapping[bytes, bytes], send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        (b"access-control-max-age", b"600"),
    ]
    asked = fields.get(b"access-control-request-headers")
    if asked is not None:
        headers.append((b"access-control-allow-headers", asked))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
