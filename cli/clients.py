"""What a client needs to find the proxy: lines to copy, with no secret in them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from llm_cache.settings import Settings

if TYPE_CHECKING:
    from llm_cache.wire.provider import ClientVariables

_REQUEST = (
    '{"model": "claude-haiku-4-5", "max_tokens": 64,',
    '"messages": [{"role": "user", "content": "Hello"}]}',
)


def client_lines(settings: Settings, url: str) -> list[str]:
    """What to export for Claude Code, the Anthropic and OpenAI SDKs, and a call by curl."""
    from llm_cache.wire.registry import PROVIDERS

    clients = {provider.name: provider.clients for provider in PROVIDERS}
    anthropic, openai = clients["anthropic"], clients["openai"]
    token = None if settings.auth_token is None else _token(settings)
    lines = ["Claude Code and the Anthropic SDKs:", _led(anthropic, url)]
    if "anthropic" in settings.real_keys:
        lines.append(_stand_in(anthropic, token))
    elif token is None:
        lines.append("  # your ANTHROPIC_API_KEY, or Claude Code's login, stays as it is")
    else:
        lines.append(f'  export ANTHROPIC_CUSTOM_HEADERS="x-cache-auth: {token}"')
    lines += ["The OpenAI SDKs:", _led(openai, url)]
    if "openai" in settings.real_keys:
        lines.append(_stand_in(openai, token))
    elif token is None:
        lines.append("  # your OPENAI_API_KEY stays as it is")
    else:
        lines.append(
            '  # and OpenAI(default_headers={"x-cache-auth": …}), CACHE_AUTH_TOKEN\'s value'
        )
    in_key = "anthropic" in settings.real_keys
    auth = "" if token is None or in_key else f' -H "x-cache-auth: {token}"'
    lines += [
        "curl:",
        f"  curl {url}/v1/messages -H 'content-type: application/json' \\",
        f"    -H 'anthropic-version: 2023-06-01' -H \"x-api-key: $ANTHROPIC_API_KEY\"{auth} \\",
        f"    -d '{_REQUEST[0]}",
        f"         {_REQUEST[1]}'",
    ]
    return lines


def _led(client: ClientVariables, url: str) -> str:
    variable, path = client.urls[0]
    return f"  export {variable}={url}{path}"


def _stand_in(client: ClientVariables, token: str | None) -> str:
    variable = client.keys[0]
    if token is None:
        return f"  export {variable}=anything    # the proxy puts the real key in its place"
    return f'  export {variable}="{token}"'


def _token(settings: Settings) -> str:
    """A shell's expression for the token, so that it is neither shown nor in the history."""
    if os.environ.get("CACHE_AUTH_TOKEN") == settings.auth_token:
        return "$CACHE_AUTH_TOKEN"
    if _stands_plainly(settings.env_file, f"CACHE_AUTH_TOKEN={settings.auth_token}"):
        return f"$(sed -n 's/^CACHE_AUTH_TOKEN=//p' {shlex.quote(str(settings.env_file))})"
    return "the value of CACHE_AUTH_TOKEN"


def _stands_plainly(path: Path, line: str) -> bool:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return line in lines and sum(one.startswith("CACHE_AUTH_TOKEN=") for one in lines) == 1
