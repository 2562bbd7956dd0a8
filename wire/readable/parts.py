"""What a message says, as parts that can be shown: its words, thinking, tool calls, results, media.

Content comes as a string, a block or a list of blocks, in the forms of all providers; which one it
is shows in the block itself. What no form fits is shown as the JSON it is, so nothing is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from llm_cache.wire.answers import member, objects
from llm_cache.wire.folding import parsed_or_text
from llm_cache.wire.provider import Json

Kind = Literal[
    "system",
    "user",
    "assistant",
    "thinking",
    "call",
    "result",
    "tools",
    "facts",
    "error",
    "other",
]


@dataclass(frozen=True, slots=True)
class Part:
    """Something to show under a heading. `text` is as the provider or client wrote it: whoever
    prints it takes out what a terminal would obey."""

    kind: Kind
    title: str
    text: str


_TEXT: Final = (None, "text", "input_text", "output_text", "summary_text", "reasoning_text")
_CALLS: Final = ("tool_use", "server_tool_use", "mcp_tool_use")
_RESULTS: Final = ("tool_result", "mcp_tool_result", "function_call_output")
_MEDIA: Final = (
    *("image", "image_url", "input_image", "document", "file", "input_file"),
    *("input_audio", "audio", "audio_url", "video", "video_url", "container_upload"),
)
_INLINE: Final = ("inlineData", "inline_data", "fileData", "file_data")
_THOUGHTS: Final = ("reasoning_content", "reasoning", "thinking", "tool_plan")
_MESSAGE_FIELDS: Final = {
    *("role", "content", "refusal", "tool_calls", "function_call", "images", "audio"),
    *("id", "type", "name", "status"),
    *_THOUGHTS,
}


def message_parts(message: Json, role: str | None = None) -> list[Part]:
    """The parts of one message: what `role` (default: its own) says, thinks, calls."""
    who = role or _text(message.get("role")) or "message"
    if who in ("tool", "function"):
        name = _text(message.get("tool_call_id") or message.get("name") or message.get("tool_name"))
        return [_result(name, message.get("content"))]
    parts: list[Part] = []
    for field in _THOUGHTS:
        if message.get(field):
            parts += _thinking(_words(message[field]))
    parts += content_parts(message.get("content"), who)
    if isinstance(message.get("refusal"), str):
        parts.append(_said(who, f"[refusal] {message['refusal']}"))
    for call in [*objects(message.get("tool_calls")), *objects([message.get("function_call")])]:
        parts.append(_function_call(call))
    if images := message.get("images"):
        parts.append(_said(who, "\n".join(_medium("image", item) for item in _list(images))))
    if audio := member(message, "audio"):
        words = _text(audio.get("transcript"))
        parts.append(_said(who, "\n".join(filter(None, (_medium("audio", audio), words)))))
    extra = {
        name: value
        for name, value in message.items()
        if name not in _MESSAGE_FIELDS and value not in (None, "", [], {})
    }
    if extra:
        parts.append(Part("other", f"{who}: more", dumped(extra)))
    return _merged(parts) or [_said(who, "")]


def content_parts(content: object, who: str) -> list[Part]:
    """The parts of a message's content."""
    if content is None:
        return []
    if isinstance(content, str):
        return [_said(who, content)] if content else []
    if isinstance(content, dict):
        return block_parts(content, who)
    parts: list[Part] = []
    for item in _list(content):
        parts += content_parts(item, who)
    return _merged(parts)


def block_parts(block: Json, who: str) -> list[Part]:
    """The parts of one content block, Responses item or Gemini part."""
    kind = block.get("type")
    if isinstance(text := block.get("text"), str) and kind in _TEXT:
        thought = block.get("thought") is True
        if thought or kind == "reasoning_text":
            return _thinking(text)
        return [_said(who, text)] if text else []
    match kind:
        case "thinking" | "reasoning":
            told = [block.get(name) for name in ("thinking", "summary", "content", "text")]
            words = "\n".join(text for text in map(_words, told) if text)
            hidden = block.get("encrypted_content") or block.get("signature")
            return _thinking(words or ("[not readable]" if hidden else ""))
        case "redacted_thinking":
            return _thinking("[not readable]")
        case "refusal":
            return [_said(who, f"[refusal] {_text(block.get('refusal'))}")]
        case "message":
            return message_parts(block)
        case kind if kind in _CALLS:
            return [_call(block.get("name"), block.get("id"), block.get("input"))]
        case "function_call" | "custom_tool_call":
            given = block.get("arguments", block.get("input"))
            return [_call(block.get("name"), block.get("call_id"), given)]
        case kind if kind in _RESULTS or str(kind).endswith(("_tool_result", "_call_output")):
            name = block.get("tool_use_id") or block.get("call_id")
            told_result = block.get("content", block.get("output"))
            failed = " (error)" if block.get("is_error") else ""
            return [_result(_text(name) + failed, told_result)]
        case kind if kind in _MEDIA:
            return [_said(who, _medium(str(kind), block))]
    return _by_member(block, who) or [
        Part("other", f"{who}: {_text(kind) or 'part'}", dumped(block))
    ]


def _by_member(block: Json, who: str) -> list[Part]:
    """Blocks whose kind is the name of their one member: Bedrock's and Gemini's."""
    for name in ("toolUse", "functionCall", "function_call"):
        if call := member(block, name):
            identity = call.get("toolUseId") or call.get("id")
            return [_call(call.get("name"), identity, call.get("input", call.get("args")))]
    for name in ("toolResult", "functionResponse", "function_response"):
        if told := member(block, name):
            identity = _text(told.get("toolUseId") or told.get("name") or told.get("id"))
            failed = " (error)" if told.get("status") == "error" else ""
            return [_result(identity + failed, told.get("content", told.get("response")))]
    if reasoning := member(block, "reasoningContent"):
        told = member(reasoning, "reasoningText") or reasoning
        return _thinking(_text(told.get("text")) or "[not readable]")
    for name in (*_INLINE, "image", "document", "video", "audio"):
        if medium := member(block, name):
            return [_said(who, _medium(name, medium))]
    if code := member(block, "executableCode") or member(block, "executable_code"):
        return [
            Part("call", f"runs {_text(code.get('language')).lower()}", _text(code.get("code")))
        ]
    if ran := member(block, "codeExecutionResult") or member(block, "code_execution_result"):
        return [Part("result", _text(ran.get("outcome")), _text(ran.get("output")))]
    if isinstance(block.get("json"), dict | list):
        return [_said(who, dumped(block["json"]))]
    if "cachePoint" in block or set(block) <= {"thoughtSignature", "text", "thought"}:
        return [_said(who, "")]
    return []


# Parts


def _said(who: str, text: str) -> Part:
    known: dict[str, Kind] = {
        **{"system": "system", "developer": "system", "user": "user"},
        **{"assistant": "assistant", "model": "assistant", "CHATBOT": "assistant"},
    }
    return Part(known.get(who, "other"), who, text)


def _thinking(text: str) -> list[Part]:
    return [Part("thinking", "thinking", text)] if text else []


def _call(name: object, identity: object, given: object) -> Part:
    title = f"calls {_text(name) or '?'}" + (f"  ({identity})" if identity else "")
    value = parsed_or_text(given) if isinstance(given, str) else given
    return Part("call", title, value if isinstance(value, str) else dumped(value))


def _function_call(call: Json) -> Part:
    """A call in the form of chat completions, Ollama or Cohere."""
    told = member(call, "function") or member(call, "custom") or call
    given = told.get("arguments", told.get("parameters", told.get("input")))
    return _call(told.get("name"), call.get("id"), given)


def _result(name: str, told: object) -> Part:
    value = parsed_or_text(told) if isinstance(told, str) else told
    if isinstance(value, str) or _is_content(value):
        text = "\n".join(part.text for part in content_parts(value, "result"))
    else:
        text = dumped(value)
    return Part("result", f"result of {name}" if name else "result", text)


def _is_content(value: object) -> bool:
    """True for blocks of content, False for a tool's own JSON."""
    blocks = [value] if isinstance(value, dict) else _list(value)
    names = ("type", "text", "json", "image", "document")
    return bool(blocks) and all(
        isinstance(block, dict) and any(name in block for name in names) for block in blocks
    )


def _merged(parts: Iterable[Part]) -> list[Part]:
    """Words of one speaker that follow one another are one part."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        alike = last is not None and (last.kind, last.title) == (part.kind, part.title)
        if last is not None and alike and part.kind not in ("call", "result"):
            merged[-1] = replace(last, text="\n".join(filter(None, (last.text, part.text))))
        else:
            merged.append(part)
    return merged


# JSON and media for people

_SHOWN_NUMBERS: Final = 4
_LONG_LIST: Final = 24
_LINE_CHARS: Final = 72
_DEEPEST: Final = 4  # spaces of indentation
_BASE64: Final = re.compile(r"(?:data:[\w/+.;=-]*,)?[A-Za-z0-9+/_-]{256,}={0,2}")


def dumped(value: object) -> str:
    """JSON to read: indented, long lists of numbers and encoded data shortened."""
    return json.dumps(_shortened(value), ensure_ascii=False, indent=2)


def listed(facts: Json, indent: str = "") -> str:
    """The fields of an object, each on a line: `max_tokens: 1024`; an inner one's below it."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict) and value and len(indent) < _DEEPEST:
            lines += [f"{indent}{name}:", listed(value, indent + "  ")]
            continue
        text = (
            value if isinstance(value, str) else json.dumps(_shortened(value), ensure_ascii=False)
        )
        if len(text) > _LINE_CHARS and not isinstance(value, str):
            text = dumped(value).replace("\n", f"\n{indent}")
        lines.append(f"{indent}{name}: {text}")
    return "\n".join(lines)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        numbers = all(isinstance(item, int | float) for item in value)
        if numbers and len(value) > _LONG_LIST:
            first = ", ".join(str(item) for item in value[:_SHOWN_NUMBERS])
            return f"[{first}, … {len(value):,} numbers]"
        return [_shortened(item) for item in value]
    if isinstance(value, str) and len(value) >= 256 and _BASE64.fullmatch(value):
        return f"[{len(value):,} characters of encoded data]"
    return value


def _medium(kind: str, told: object) -> str:
    """A line in the place of an image, a document or a sound: what it is and how large."""
    name = kind.removeprefix("input_").removesuffix("_url")
    name = "data" if name in _INLINE else name
    found = list(_strings(told))
    types = [text for text in found if re.fullmatch(r"[a-z]+/[\w.+-]{1,60}", text)]
    data = max((text for text in found if _BASE64.fullmatch(text)), key=len, default="")
    links = [text for text in found if re.match(r"(?:https?|gs|s3)://", text)]
    if data.startswith("data:"):
        types = [data[5:].partition(";")[0], *types]
    facts = types[:1]
    if data:
        facts.append(f"{len(data.partition(',')[2] or data) * 3 // 4:,} bytes")
    facts += links[:1]
    identity = told.get("file_id") if isinstance(told, dict) else None
    words = [text for text in _texts_of(told) if text]
    head = f"[{name}{': ' if facts or identity else ''}{', '.join(facts or [_text(identity)])}]"
    return "\n".join([head, *words])


def _texts_of(told: object) -> list[str]:
    """The plain text of a document that is sent as such."""
    if not isinstance(told, dict):
        return []
    source = member(told, "source")
    return [
        _text(told.get("title")),
        _text(source.get("data")) if source.get("type") == "text" else "",
    ]


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _words(value: object) -> str:
    """The texts in a string or a list of blocks, line by line."""
    if isinstance(value, str):
        return value
    return "\n".join(_text(item.get("text")) for item in objects(value))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
