"""What `server/hypercorn` relies on of Hypercorn's insides is there in the installed version.

Hypercorn has no setting for most of what we change, so names that it doesn't promise are overridden
and replaced. A newer Hypercorn fails here first: read server/hypercorn again beside its
`protocol/h11.py`, `protocol/http_stream.py`, `asyncio/tcp_server.py` and `asyncio/run.py`, then
change what is written here and the range in pyproject.toml.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import textwrap
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import CodeType
from typing import Any, cast

import hypercorn.asyncio
import hypercorn.asyncio.run
import hypercorn.protocol
import pytest
from hypercorn import events
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config, Sockets
from hypercorn.protocol import events as stream_events
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ConnectionState

from llm_cache.server.hypercorn import connection, sockets

ROOT = Path(__file__).resolve().parents[3]
READ_AGAINST = (0, 18)

CHANGED = f"Hypercorn {version('hypercorn')} isn't what server/hypercorn was written for: "


def parameters(function: Callable[..., object]) -> str:
    return ", ".join(inspect.signature(function).parameters)


def names_used(code: CodeType) -> set[str]:
    """Every global and attribute that a function names, inner functions included."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= names_used(constant)
    return found


def attributes_of(source: object, holder: str) -> set[str]:
    """What a class takes from its attribute `holder`: the X of every `self.holder.X`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cast(Any, source))))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == f"self.{holder}"
    }


def test_the_installed_version_is_in_the_range_that_was_read() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    major, minor = READ_AGAINST
    assert f"hypercorn>={major}.{minor},<{major}.{minor + 1}" in project["dependencies"]
    installed = tuple(int(part) for part in version("hypercorn").split(".")[:2])
    assert installed == READ_AGAINST, CHANGED + "see the head of this file"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # Overridden.
        (H11Protocol.handle, "self, event"),
        (H11Protocol._handle_events, "self"),
        (H11Protocol._create_stream, "self, request"),
        (H11Protocol.stream_send, "self, event"),
        (H11Protocol._maybe_recycle, "self"),
        (TCPServer.run, "self"),
        (TCPServer._read_data, "self"),
        (TCPServer.protocol_send, "self, event"),
        (TCPServer._close, "self"),
        (Config.create_sockets, "self"),
        # Called.
        (
            H11Protocol,
            "app, config, context, task_group, connection_state, ssl, client, server, send",
        ),
        (H11Protocol._send_h11_event, "self, event"),
        (H11Protocol._send_error_response, "self, status_code"),
        (H11Protocol._close_stream, "self"),
        (TCPServer, "app, loop, config, context, state, reader, writer"),
        (TCPServer._initiate_server_close, "self"),
        (
            HTTPStream,
            "app, config, context, task_group, ssl, client, server, send, stream_id",
        ),
        (HTTPStream.handle, "self, event"),
        (WorkerContext.mark_request, "self"),
        (TaskGroup.spawn, "self, func, args"),
        (Config.response_headers, "self, protocol"),
        (Sockets, "secure_sockets, insecure_sockets, quic_sockets"),
        (hypercorn.asyncio.serve, "app, config, shutdown_trigger, mode"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_what_is_overridden_or_called_takes_what_it_did(
    function: Callable[..., object], expected: str
) -> None:
    assert parameters(function) == expected, CHANGED + f"{function} takes other arguments"


@pytest.mark.parametrize(
    ("ours", "theirs", "overridden"),
    [
        (
            connection.Http1Protocol,
            H11Protocol,
            {"handle", "_handle_events", "_create_stream", "stream_send", "_maybe_recycle"},
        ),
        (connection.Connection, TCPServer, {"run", "_read_data", "protocol_send", "_close"}),
        (sockets._OwnSockets, Config, {"create_sockets"}),
    ],
    ids=["H11Protocol", "TCPServer", "Config"],
)
def test_what_is_overridden_is_still_there(
    ours: type[object], theirs: type[object], overridden: set[str]
) -> None:
    always = {"__init__", "__module__", "__doc__", "__annotations__"}
    both = {name for name in vars(ours) if name in vars(theirs)} - always
    assert both == overridden, CHANGED + f"{theirs.__qualname__} has other methods"


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (hypercorn.asyncio.run.worker_serve, "TCPServer"),
        (hypercorn.protocol.ProtocolWrapper.__init__, "H11Protocol"),
        (hypercorn.asyncio.serve, "worker_serve"),
    ],
    ids=lambda value: getattr(value, "__qualname__", value),
)
def test_what_is_replaced_is_looked_up_where_it_is_replaced(
    user: Callable[..., object], name: str
) -> None:
    code = cast(Any, user).__code__
    assert name in names_used(code), CHANGED + f"{user} doesn't look up {name} any more"
    assert hasattr(inspect.getmodule(user), name)


async def test_a_connections_sides_have_what_is_used_of_them() -> None:
    async def nothing(*_: object) -> None: ...

    context, config = WorkerContext(None), Config()
    state = cast(Any, ConnectionState)(cast(Any, {}))
    protocol = H11Protocol(
        *cast(Any, (nothing, config, context, None, state, False, None, None, nothing))
    )
    used = "app can_read client config connection context keep_alive_requests send server ssl"
    for name in f"{used} stream task_group".split():
        assert hasattr(protocol, name), CHANGED + f"H11Protocol has no {name}"
    for name in ("set", "clear", "wait"):
        assert inspect.iscoroutinefunction(getattr(protocol.can_read, name)), CHANGED + name
    assert not context.terminated.is_set()

    loop = asyncio.get_running_loop()
    server = TCPServer(*cast(Any, (nothing, loop, config, context, {}, None, None)))
    for name in ("config", "context", "idle_task", "loop", "reader", "writer"):
        assert hasattr(server, name), CHANGED + f"TCPServer has no {name}"


def test_a_connection_runs_as_it_did() -> None:
    """`Connection` stands in for three things: the idle task, the read loop, what is sent."""
    assert attributes_of(TCPServer, "idle_task") == {"restart", "stop"}, CHANGED + "the idle task"
    run = names_used(TCPServer.run.__code__)
    assert {"protocol", "ProtocolWrapper", "protocol_send", "_read_data", "_close"} <= run, CHANGED
    assert "idle" in names_used(TCPServer.protocol_send.__code__), CHANGED + "Updated.idle"
    wrapper = names_used(hypercorn.protocol.ProtocolWrapper.__init__.__code__)
    assert "protocol" in wrapper, CHANGED + "the wrapper's protocol"
    assert MAX_RECV == 1 << 16, CHANGED + "how much is read at once"
    assert STREAM_ID == 1, CHANGED + "the id of the one stream"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (events.RawData, ["data", "address"]),
        (events.Closed, []),
        (events.Updated, ["idle"]),
        (
            stream_events.Request,
            ["stream_id", "headers", "http_version", "method", "raw_path", "state"],
        ),
        (stream_events.Response, ["stream_id", "headers", "status_code"]),
        (stream_events.Body, ["stream_id", "data"]),
        (stream_events.EndBody, ["stream_id"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_events_have_the_fields_that_are_read_and_given(event: Any, fields: list[str]) -> None:
    assert [one.name for one in dataclasses.fields(event)] == fields, CHANGED + str(event)


def test_what_a_connection_tells_a_request_reaches_the_app() -> None:
    """`Side` travels in the request's `state`, which ASGI's scope has a shallow copy of."""
    source = inspect.getsource(HTTPStream.handle)
    assert '"state": event.state.copy()' in source, CHANGED + "the scope's state"


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            node.attr
            for node in ast.walk(ast.parse(inspect.getsource(sockets.configured)))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "config"
        }
        | {"ssl_enabled"}
    ),
)
def test_every_setting_that_is_made_is_one_of_hypercorns(name: str) -> None:
    assert hasattr(Config, name), CHANGED + f"Config has no {name}"
