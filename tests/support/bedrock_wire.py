"""Answers of Amazon Bedrock as bytes: JSON, and event streams framed as AWS frames them.

A stream is a list of messages, one per event, so that a test can put a gate or a fault between any
two; boto3 and Anthropic's Bedrock client accept each of them. `signed_by` checks a request's
signature as AWS would, with botocore's own arithmetic.
Source of the shapes: https://docs.aws.amazon.com/bedrock/latest/APIReference.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias
from zlib import crc32

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support.upstream import Request

Json: TypeAlias = dict[str, Any]

NOVA = "us.amazon.nova-micro-v1:0"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
STREAM_HEADERS = (("content-type", "application/vnd.amazon.eventstream"),)
RESPONSE_HEADERS = (("x-amzn-requestid", "5eddd97c-3fa7-434c-98f1-c26d401b96f3"),)
"""End-to-end headers as an answer of the real API has them; ready for `Reply.headers`."""
METRICS = "amazon-bedrock-invocationMetrics"


def dump(document: object) -> bytes:
    """JSON without spaces, as Bedrock writes it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


# Event streams


def framed(headers: Json, payload: bytes) -> bytes:
    """One message with string headers."""
    block = b"".join(
        bytes((len(name),))
        + name.encode()
        + b"\x07"
        + len(value.encode()).to_bytes(2)
        + value.encode()
        for name, value in headers.items()
    )
    prelude = (16 + len(block) + len(payload)).to_bytes(4) + len(block).to_bytes(4)
    start = prelude + crc32(prelude).to_bytes(4) + block + payload
    return start + crc32(start).to_bytes(4)


def event(name: str, **document: Any) -> bytes:
    """One event, with the padding that Bedrock adds."""
    headers = {
        ":event-type": name,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return framed(headers, dump({**document, "p": "abcdefghij"}))


def exception(name: str = "throttlingException", text: str = "Too many tokens.") -> bytes:
    """An exception in the middle of a stream."""
    headers = {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return framed(headers, dump({"message": text}))


def chunk(document: Json) -> bytes:
    """A piece of an `invoke` stream."""
    return event("chunk", bytes=b64encode(dump(document)).decode())


def metrics(asked: int = 5, answered: int = 7) -> Json:
    """What the last piece of an `invoke` stream brings besides its own."""
    counts = {"inputTokenCount": asked, "outputTokenCount": answered}
    return {METRICS: {**counts, "invocationLatency": 417, "firstByteLatency": 113}}


def chunks_of(events: Iterable[bytes]) -> list[bytes]:
    """The `invoke` stream of Claude for these server-sent events (see `anthropic_wire`)."""
    documents = [json.loads(one.partition(b"data: ")[2]) for one in events]
    return [chunk(one | (metrics() if one["type"] == "message_stop" else {})) for one in documents]


# Converse


def request(prompt: str = "Say hello.", **fields: Any) -> bytes:
    """The body of a `converse`; `fields` are added as they are."""
    messages = [{"role": "user", "content": [{"text": prompt}]}]
    return dump({"messages": messages, "inferenceConfig": {"maxTokens": 100}, **fields})


def tokens(asked: int = 5, answered: int = 7, read: int = 0, written: int = 0) -> Json:
    """A `TokenUsage`."""
    counts = {"inputTokens": asked, "outputTokens": answered, "totalTokens": asked + answered}
    cached = {"cacheReadInputTokens": read, "cacheWriteInputTokens": written}
    return counts | (cached if read or written else {})


def tool_use(name: str, arguments: Json) -> Json:
    """A block that uses a tool."""
    return {"toolUse": {"toolUseId": "tooluse_fiDf7dcHRcLMA5", "name": name, "input": arguments}}


def conversed(blocks: Sequence[Json] | str = "Hello!", usage: Json | None = None) -> bytes:
    """The body of a `converse` answer."""
    blocks = [{"text": blocks}] if isinstance(blocks, str) else blocks
    return dump(
        {
            "metrics": {"latencyMs": 417},
            "output": {"message": {"content": list(blocks), "role": "assistant"}},
            "stopReason": _stop_reason(blocks),
            "usage": usage or tokens(),
        }
    )


def conversation(
    blocks: Sequence[Json] | str = "Hello, how are you?", usage: Json | None = None
) -> list[bytes]:
    """A complete `converse-stream`, one message per event."""
    blocks = [{"text": blocks}] if isinstance(blocks, str) else blocks
    events = [event("messageStart", role="assistant")]
    for at, block in enumerate(blocks):
        if "toolUse" in block:
            use = block["toolUse"]
            start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
            events.append(event("contentBlockStart", contentBlockIndex=at, start=start))
            written = json.dumps(use["input"])
            deltas: list[Json] = [{"toolUse": {"input": piece}} for piece in _cut(written)]
        else:
            deltas = [{"text": piece} for piece in _cut(block["text"])]
        events += [event("contentBlockDelta", contentBlockIndex=at, delta=one) for one in deltas]
        events.append(event("contentBlockStop", contentBlockIndex=at))
    events.append(event("messageStop", stopReason=_stop_reason(blocks)))
    return [*events, event("metadata", metrics={"latencyMs": 417}, usage=usage or tokens())]


def _cut(text: str) -> list[str]:
    return [text[i : i + 6] for i in range(0, len(text), 6)]


def _stop_reason(blocks: Sequence[Json]) -> str:
    return "tool_use" if "toolUse" in blocks[-1] else "end_turn"


# Signatures


def signed_by(request: Request, credentials: Credentials, url: str) -> str:
    """The scope `date/region/service/aws4_request` that `request`, sent to `url`, is signed for.
    Raises AssertionError unless it is signed by `credentials` for exactly what arrived there."""
    stated = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})",
        request.header("authorization") or "",
    )
    assert stated is not None, request.head
    key, scope, names, signature = stated.groups()
    assert key == credentials.access_key
    required = {"host", "x-amz-date", *(n for n, _ in request.headers if n == "content-type")}
    assert required <= set(names.split(";"))
    assert f"http://{request.header('host')}" == url
    arrived = AWSRequest(
        method=request.method,
        url=url + request.target,
        headers={name: request.header(name) for name in names.split(";")},
        data=request.body,
    )
    arrived.context["timestamp"] = request.header("x-amz-date")
    _, region, service, _ = scope.split("/")
    auth = SigV4Auth(credentials, service, region)
    expected = auth.signature(
        auth.string_to_sign(arrived, auth.canonical_request(arrived)), arrived
    )
    assert signature == expected, f"signed {names} otherwise"
    return scope
