"""Amazon Bedrock: models of many makers behind AWS's own paths, and what decides their answers.

The model is in the path: an id, often with a region's prefix, or an ARN, its `:` and `/` encoded or
not. Requests are signed for their host, so the proxy signs them anew; an API key
(`Authorization: Bearer`) is a credential like any other and passes through. Claude's requests to
`invoke` are in Anthropic's own form. How answers are read is in `wire.bedrock_answers`.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import unquote

from llm_cache.wire.answers import JsonWatcher, Refused, media_type, member, objects, refused_type
from llm_cache.wire.aws import is_region
from llm_cache.wire.provider import (
    Answer,
    ClientVariables,
    Endpoint,
    Json,
    KeyForm,
    Usage,
    Watcher,
)
from llm_cache.wire.providers import anthropic, openai
from llm_cache.wire.providers.bedrock_answers import (
    Conversation,
    Invocation,
    conversed,
    counted,
    invoked,
)
from llm_cache.wire.providers.guests import Guest, Host
from llm_cache.wire.turns import last_turns

INVOKE: Final = "invoke"
INVOKE_STREAM: Final = "invoke_stream"
CONVERSE: Final = "converse"
CONVERSE_STREAM: Final = "converse_stream"
COUNT_TOKENS: Final = "count_tokens"

_OPERATIONS: Final = {
    "invoke": INVOKE,
    "invoke-with-response-stream": INVOKE_STREAM,
    "converse": CONVERSE,
    "converse-stream": CONVERSE_STREAM,
    "count-tokens": COUNT_TOKENS,
}
_PATH: Final = re.compile(rf"/model/([^?#]+)/({'|'.join(_OPERATIONS)})")
_ROOTS: Final = ("/model/", "/async-invoke", "/guardrail/")
_NAMING_RESOURCES: Final = ("foundation-model", "inference-profile")
_EVENT_STREAM: Final = "application/vnd.amazon.eventstream"

_ANTHROPIC: Final = anthropic.Anthropic()
_OPENAI: Final = openai.OpenAI()
_CLAUDE: Final = Guest(_ANTHROPIC, anthropic.MESSAGES)

_JUDGES: Final[Mapping[str, Callable[[Json, str | None], Answer]]] = {
    CONVERSE: conversed,
    INVOKE: invoked,
    COUNT_TOKENS: counted,
}


_SIGNATURE_HEADERS: Final = frozenset(
    {b"x-amz-date", b"x-amz-security-token", b"x-amz-content-sha256"}
)
"""What an AWS signature has besides `authorization` (Signature Version 4)."""


class Aws(Host):
    """What Bedrock's APIs have in common: signatures, regions, errors."""

    signed = True
    own_domains = ("amazonaws.com", "amazonaws.com.cn", "api.aws")
    key_form = KeyForm(("ABSK", "bedrock-api-key-"))

    def home(self, path: str, environ: Mapping[str, str]) -> str:
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""
        return self.base_url.replace("us-east-1", region) if is_region(region) else self.base_url

    def auth_header(self, key: str) -> tuple[bytes, bytes]:
        return b"authorization", b"Bearer " + key.encode()

    def is_signature(self, name: bytes, value: bytes) -> bool:
        if name == b"authorization":
            return value.lstrip()[:4].upper() == b"AWS4"
        return name in _SIGNATURE_HEADERS

    def error_body(self, status: int, kind: str, message: str) -> bytes:
        """An error of AWS's restJson1 protocol; boto3 takes the `__type` for its code."""
        return json.dumps({"message": message, "__type": kind}, separators=(",", ":")).encode()


class Bedrock(Aws):
    """https://bedrock-runtime.{region}.amazonaws.com. The region is that of `AWS_REGION`, else
    us-east-1, unless `CACHE_UPSTREAM_BEDROCK` names a host."""

    name = "bedrock"
    title = "Amazon Bedrock"
    service = "bedrock"
    base_url = "https://bedrock-runtime.us-east-1.amazonaws.com"
    key_setting = "BEDROCK_API_KEY_REAL"
    credential_headers = _SIGNATURE_HEADERS | {b"authorization"}
    price_ids = ("aws",)
    clients = ClientVariables(
        urls=(
            ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "/bedrock"),
            ("ANTHROPIC_BEDROCK_BASE_URL", "/bedrock"),
        )
    )
    guests: Mapping[str, Guest] = {
        openai.CHAT.name: Guest(_OPENAI, openai.CHAT),
        openai.RESPONSES.name: Guest(_OPENAI, openai.RESPONSES),
    }

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        return path.startswith(_ROOTS)

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        if method != "POST":
            return None
        if (match := _PATH.fullmatch(path)) is not None:
            return Endpoint(_OPERATIONS[match[2]], _model(unquote(match[1])))
        guest = _OPENAI.endpoint(method, path) if path.startswith("/openai/v1/") else None
        return guest if guest is not None and guest.name in self.guests else None

    def is_key_header(self, name: bytes) -> bool:
        # Guardrails, latency and service tier; the form of the answer.
        return name.startswith(b"x-amzn-bedrock-") or name == b"accept"

    def guest(self, endpoint: Endpoint, doc: Json) -> Guest | None:
        if endpoint.name in (INVOKE, INVOKE_STREAM):
            return _CLAUDE if "anthropic_version" in doc else None
        return super().guest(endpoint, doc)

    def own_watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        if status != 200:
            return Refused(f"status {status}")
        judge = _JUDGES.get(endpoint.name)
        kind = media_type(content_type)
        if kind == "application/json" and judge is not None:
            return JsonWatcher(lambda doc: judge(doc, endpoint.model))
        if kind == _EVENT_STREAM and endpoint.name == CONVERSE_STREAM:
            return Conversation(endpoint.model)
        if kind == _EVENT_STREAM and endpoint.name == INVOKE_STREAM:
            return Invocation(endpoint.model)
        return refused_type(content_type)

    def own_map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        if endpoint.name == COUNT_TOKENS:
            doc = member(member(doc, "input"), "converse")
        _map_texts(doc, "system", system)
        for turn in objects(doc.get("messages")):
            _map_texts(turn, "content", system if turn.get("role") == "system" else message)
        for field in ("prompt", "inputText", "message", "texts"):
            _map_texts(doc, field, message)

    def own_keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        if endpoint.name == COUNT_TOKENS:
            return False  # a count is of all messages
        kept = last_turns(
            doc.get("messages"),
            turns,
            speakers=("user", "assistant"),
            asker="assistant",
            text=_words,
            uses_tools=_uses_tools,
        )
        if kept is not None:
            doc["messages"] = kept
        return kept is not None

    def own_is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        if endpoint.name == INVOKE and "embed" in (endpoint.model or ""):
            return True
        config = member(doc, "inferenceConfig") or doc
        more = member(doc, "additionalModelRequestFields") or doc
        return config.get("temperature") == 0 and isinstance(more.get("seed"), int)

    def header_usage(self, fields: Mapping[bytes, bytes]) -> Usage | None:
        if b"x-amzn-bedrock-input-token-count" not in fields:
            return None
        told = {
            name: int(value)
            for name, value in fields.items()
            if name.startswith(b"x-amzn-bedrock-") and value.isdigit()
        }
        return Usage(
            input_tokens=told.get(b"x-amzn-bedrock-input-token-count", 0),
            output_tokens=told.get(b"x-amzn-bedrock-output-token-count", 0),
            cache_read_tokens=told.get(b"x-amzn-bedrock-cache-read-input-token-count", 0),
            cache_write_tokens=told.get(b"x-amzn-bedrock-cache-write-input-token-count", 0),
        )


class Mantle(Aws):
    """https://bedrock-mantle.{region}.api.aws: OpenAI's and Anthropic's APIs, served by Bedrock.
    Reached by its name only, since its paths are theirs."""

    name = "mantle"
    title = "Amazon Bedrock (Mantle)"
    service = "bedrock-mantle"
    base_url = "https://bedrock-mantle.us-east-1.api.aws"
    key_setting = "MANTLE_API_KEY_REAL"
    credential_headers = Bedrock.credential_headers | {b"x-api-key"}
    price_ids = ("aws", "openai")
    guests: Mapping[str, Guest] = {
        endpoint.name: Guest(provider, endpoint)
        for provider, endpoint in (
            (_OPENAI, openai.CHAT),
            (_OPENAI, openai.RESPONSES),
            (_OPENAI, openai.INPUT_TOKENS),
            (_ANTHROPIC, anthropic.MESSAGES),
            (_ANTHROPIC, anthropic.COUNT_TOKENS),
        )
    }

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        return False

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        if path.startswith("/anthropic/"):
            return _ANTHROPIC.endpoint(method, path.removeprefix("/anthropic"))
        guest = _OPENAI.endpoint(method, path)
        return guest if guest is not None and guest.name in self.guests else None

    def is_key_header(self, name: bytes) -> bool:
        return _OPENAI.is_key_header(name) or _ANTHROPIC.is_key_header(name)


def _model(model_id: str) -> str:
    """What a model goes by: its id; of an ARN the id in it, or the resource when it names none
    (`application-inference-profile/abc`)."""
    if not model_id.startswith("arn:"):
        return model_id
    resource = model_id.split(":", 5)[-1]
    kind, _, name = resource.partition("/")
    return name if kind in _NAMING_RESOURCES else resource


# Requests


def _map_texts(holder: Json, field: str, change: Callable[[str], str]) -> None:
    """Change the text in `holder[field]`: a string, or a list of strings and content blocks."""
    value = holder.get(field)
    if isinstance(value, str):
        holder[field] = change(value)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            if isinstance(item, str):
                value[at] = change(item)
            elif isinstance(item, dict):
                _map_texts(item, "text", change)
                _map_texts(member(item, "toolResult"), "content", change)


def _words(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [block.get("text") for block in objects(content)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _uses_tools(message: Json) -> bool:
    if {"tool_calls", "tool_call_id"} & message.keys():
        return True
    return any(
        {"toolUse", "toolResult"} & block.keys() for block in objects(message.get("content"))
    )
