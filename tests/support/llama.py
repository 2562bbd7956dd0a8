"""A fake llama-server, which does what the real one does before it evaluates anything: it makes one
text of the request and looks how much of the last one it can reuse; and the talks it is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from support import anthropic_wire as wire
from support.replies import Reply, json_reply, sse_reply
from support.upstream import Request

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
