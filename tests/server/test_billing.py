"""A local model server gets prompts whose beginnings are equal from turn to turn (SPEC 4a).

The fake llama-server here does what the real one does before it evaluates anything: it makes one
text of the request and looks how much of the last one it can reuse.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.proxy import Proxy, anthropic_headers
from support.replies import Reply, json_reply, sse_reply
from support.upstream import Request, Upstream

BILLING = "x-anthropic-billing-header:"
FORMS = (
    "{name} cc_version=2.1.{n}.a{n:02x}; cc_entrypoint=sdk-cli; cch=e{n:04x};",
    "{name} cc_version=2.1.63.{n:03x}; cc_entrypoint=cli; cch=00000;",
    "{name} cc_version=3.{n}; cc_entrypoint=sdk-ts; cc_workload=cron; cch={n:05x}",
    "{name} cch={n:x};",
    "{name}cc_version={n}",
)
AGENT = "You are an agent that helps with code. " * 400


@dataclass
class LlamaServer:
    """What the slot of the model held last, and how much of it each next prompt could reuse."""

    last: str = ""
    reused: list[float] = field(default_factory=list)

    def answer(self, request: Request) -> Reply:
        document = json.loads(request.body)
        prompt = rendered(document)
        if self.last:
            self.reused.append(shared_prefix(self.last, prompt) / len(self.last))
        self.last = prompt
        assert request.header("content-length") == str(len(request.body))
        if document.get("stream"):
            return sse_reply(wire.stream("Done."))
        return json_reply(wire.message("Done."))


def shared_prefix(one: str, two: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = zip(one, two, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))


def rendered(document: dict[str, Any]) -> str:
    """A request as a chat template writes it."""
    system = document["system"]
    if not isinstance(system, str):
        system = "\n".join(block["text"] for block in system)
    turns = [f"<|{one['role']}|>\n{one['content']}\n" for one in document["messages"]]
    return f"<|system|>\n{system}\n{''.join(turns)}"


def turn_bodies(form: str, *, as_blocks: bool, turns: int, stream: bool = False) -> list[bytes]:
    """The requests of one talk, each with a billing line of its own and two messages more."""
    bodies = []
    messages: list[dict[str, str]] = [{"role": "user", "content": f"Find the fault. {form}"}]
    for number in range(turns):
        line = form.format(name=BILLING, n=number)
        system: Any = f"{line}\n{AGENT}"
        if as_blocks:
            system = [wire.text_block(line), wire.text_block(AGENT)]
        bodies.append(
            wire.dump(
                {
                    "model": "local",
                    "messages": list(messages),
                    "system": system,
                    "max_tokens": 100,
                    "stream": stream,
                }
            )
        )
        messages += [
            {"role": "assistant", "content": f"I looked into file {number}."},
            {"role": "user", "content": f"{BILLING} cch={number}; is in my text, go on."},
        ]
    return bodies


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
