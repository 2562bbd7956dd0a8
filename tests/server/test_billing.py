"""A local model server gets prompts whose beginnings are equal from turn to turn (SPEC 4a)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.llama import FORMS, LlamaServer, turn_bodies
from support.proxy import Proxy, anthropic_headers
from support.upstream import Upstream


@pytest.fixture
def llama(upstream: Upstream) -> LlamaServer:
    server = LlamaServer()
    upstream.default = server.answer
    return server


def test_a_chunked_request_is_rewritten_with_the_right_length(
    llama: LlamaServer, upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    for body in turn_bodies(FORMS[1], as_blocks=False, turns=3):
        with one.connect() as connection:
            fields = [*anthropic_headers(), ("transfer-encoding", "chunked")]
            head = "".join(f"{name}: {text}\r\n" for name, text in fields)
            connection.send(
                f"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1:{one.port}\r\n{head}\r\n".encode()
            )
            for piece in pieces(body, 997):
                connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.send(b"0\r\n\r\n")
            assert connection.response("POST").read_all()
    assert min(llama.reused) >= 0.99
    assert all(call.request.header("transfer-encoding") is None for call in upstream.calls)


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def test_verbose_logs_how_large_bodies_are_and_what_was_changed(
    llama: LlamaServer, upstream: Upstream, home: Path
) -> None:
    settings = {"CACHE_UPSTREAM_ANTHROPIC": upstream.url}
    with Proxy(home, settings, arguments=["--verbose"]) as one:
        body = wire.request("hello", system="no such line")
        assert one.ask(body).status == 200
        (changed,) = turn_bodies(FORMS[0], as_blocks=True, turns=1)
        assert one.ask(changed).status == 200
        one.wait_logged(f"body of {len(body)} bytes\n")
        one.wait_logged(f"body of {len(changed)} bytes, 1 billing header values fixed: ")
    assert "You are an agent" not in one.log()
