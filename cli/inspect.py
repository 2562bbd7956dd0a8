"""Looking at one thing the way the proxy would: key, price, usage."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_cache.cli.output import note, printable, say, say_json
from llm_cache.errors import LlmCacheError, UsageError
from llm_cache.settings import Settings, load_settings

_ALWAYS_SHOWN = (
    *("input_tokens", "output_tokens"),
    *("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
)
"""What of a usage is shown when it is 0, too."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Text = Annotated[str, typer.Argument(help="The text itself, @FILE, or - for stdin.")]
TIERS = ("exact", "normalized", "suffix")


def key(
    body: Text,
    path: Annotated[str, typer.Option(help="Path and query of the request.")] = "/v1/messages",
    method: Annotated[str, typer.Option(help="Method of the request.")] = "POST",
    header: Annotated[
        list[str] | None, typer.Option(help="A header of the request, 'name: value'; repeatable.")
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with the API key that the client sends."),
    ] = None,
    namespace: Annotated[str, typer.Option(help="x-cache-namespace of the request.")] = "",
    sample: Annotated[str, typer.Option(help="x-cache-sample of the request.")] = "",
    tier: Annotated[str, typer.Option(help="exact, normalized or suffix.")] = "exact",
    json: Json = False,
) -> int:
    """Print the key of a request (x-cache-key).

    Clients' credentials are a part of it when they pass through; --api-key-env names them
    without showing them.

    Example: llm-cache key @request.json --api-key-env ANTHROPIC_API_KEY
    """
    if tier not in TIERS:
        raise UsageError(f"--tier {tier}: must be exact, normalized or suffix")
    if not path.startswith("/"):
        raise UsageError(f"--path {path}: must be path and query, from the first /")
    settings = load_settings()
    headers = [_header(text) for text in header or []]
    if namespace:
        headers.append((b"x-cache-namespace", _ascii("--namespace", namespace)))
    if sample:
        headers.append((b"x-cache-sample", _ascii("--sample", sample)))
    missing = _credentials(settings, path, api_key_env, headers)
    keys, why_not = _keys(settings, method.upper(), path, headers, _input(body))
    if missing:
        note(missing)
    if json:
        say_json(keys | {"note": why_not or None})
        return 0 if keys[tier] else 1
    if keys[tier] is None:
        raise LlmCacheError(f"this request has no {tier} key: {why_not or 'the tier is off'}")
    say(keys[tier] or "")
    return 0


def price(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    provider: Annotated[
        str | None, typer.Option(help="Who serves it; its maker, or the only one who does.")
    ] = None,
    json: Json = False,
) -> int:
    """Print what a model costs, in US dollars.

    Exit code 1: its price isn't known, or several who serve it ask different prices.

    Example: llm-cache price claude-haiku-4-5
    """
    from llm_cache.exchange import read_optional
    from llm_cache.wire.prices import Prices
    from llm_cache.wire.provider import Usage

    settings = load_settings()
    prices = Prices.load(read_optional(settings.prices_file), str(settings.prices_file))
    one = {
        "input": Usage(input_tokens=1),
        "output": Usage(output_tokens=1),
        "cache_read": Usage(cache_read_tokens=1),
        "cache_write": Usage(cache_write_tokens=1),
    }

    def asked_by(whom: str | None) -> dict[str, float | None]:
        fee = prices.cost(whom, model, Usage()) or 0.0  # what some take for each request
        costs = {name: prices.cost(whom, model, usage) for name, usage in one.items()}
        return {name: None if cost is None else cost - fee for name, cost in costs.items()}

    costs = asked_by(provider)
    rivals: list[str] = []
    if provider is None and costs["input"] is None:
        rivals = [name for name in _names() if prices.cost(name, model, one["input"]) is not None]
        if rivals and all(asked_by(name) == asked_by(rivals[0]) for name in rivals):
            provider, costs, rivals = rivals[0], asked_by(rivals[0]), []
    known = costs["input"] is not None
    if json:
        say_json({"model": model, "provider": provider, "usd_per_token": costs if known else None})
    elif rivals:
        say(f"{model}: --provider must say whose: {', '.join(rivals)}")
    elif not known:
        say(f"{model}: unknown; {settings.prices_file} can say what it costs")
    else:
        for name, cost in costs.items():
            if cost is not None:
                per_token = f"{cost:.12f}".rstrip("0").rstrip(".")
                say(f"{name:<12} ${per_token} per token   ${cost * 1e6:,.4g} per million")
    return 0 if known else 1


def _names() -> list[str]:
    from llm_cache.wire.registry import PROVIDERS

    return [provider.name for provider in PROVIDERS]


def usage(
    body: Text,
    provider: Annotated[str | None, typer.Option(help="Whose answer it is.")] = None,
    path: Annotated[str | None, typer.Option(help="Path the answer came from.")] = None,
    json: Json = False,
) -> int:
    """Print the tokens that an answer's body names.

    The body is JSON or a stream; whose it is shows in its form, where no option says it. Exit
    code 1: it names none.

    Example: curl -s ... | llm-cache usage -
    """
    from llm_cache.wire.recognize import recognized

    answer = recognized(_input(body), provider, path)
    if answer is None:
        told = [("--provider", provider), ("--path", path)]
        asked = " ".join(f"{name} {value}" for name, value in told if value is not None)
        raise UsageError(f"{asked}: answers of this kind aren't known")
    facts: dict[str, Any] = {
        "model": answer.model,
        "complete": answer.complete,
        "reason": answer.reason or None,
        "usage": asdict(answer.usage) if answer.usage else None,
    }
    if json:
        say_json(facts)
    elif answer.usage is None:
        say(f"no usage found: {answer.reason or 'the body names none'}")
    else:
        for name, told in asdict(answer.usage).items():
            if isinstance(told, str) and told:
                say(f"{name:<22} {printable(told)}")
            elif not isinstance(told, bool | str) and (told or name in _ALWAYS_SHOWN):
                say(f"{name:<22} {told:,}")
        if not answer.complete:
            note(f"the answer isn't complete: {answer.reason}")
    return 0 if answer.usage else 1


def _keys(
    settings: Settings, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> tuple[dict[str, str | None], str]:
    from llm_cache.exchange import Label, Refused, request_keys

    try:
        keys, note = request_keys(settings, method, path, headers, body)
    except Refused as refused:
        raise UsageError(str(refused)) from None
    except ValueError as error:
        raise UsageError(f"--path {path}: {error}") from None
    named = {"exact": Label.HIT, "normalized": Label.HIT_NORM, "suffix": Label.HIT_SUFFIX}
    return {tier: keys.get(label) for tier, label in named.items()}, note


def _credentials(
    settings: Settings, path: str, api_key_env: str | None, headers: list[tuple[bytes, bytes]]
) -> str:
    """Add the client's API key to `headers`; what to say when one is needed and there is none."""
    from llm_cache.exchange import Router
    from llm_cache.wire.registry import DEFAULT

    route = Router(settings).route("POST", _ascii("--path", path), dict(headers))
    provider = DEFAULT if route is None else route.provider
    if api_key_env is not None:
        value = os.environ.get(api_key_env)
        if not value or not value.isascii():
            raise UsageError(f"--api-key-env {api_key_env}: no such variable, or it is empty")
        headers.append(provider.auth_header(value))
    needed = settings.scope == "credential" and provider.name not in settings.real_keys
    if needed and not any(name in provider.credential_headers for name, _ in headers):
        return "clients' credentials are a part of the key; name them with --api-key-env"
    return ""


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError("--header: must be 'name: value'")
    return _ascii("--header", name.strip().lower()), _ascii("--header", value.strip())


def _ascii(option: str, text: str) -> bytes:
    if not text.isascii() or not text.isprintable():
        raise UsageError(f"{option}: must be printable ASCII")
    return text.encode("ascii")


def _input(text: str) -> bytes:
    """The bytes an argument stands for: itself, `@FILE`, or `-` for stdin."""
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise UsageError(f"{text[1:]}: can't be read: {error.strerror}") from None
    return text.encode("utf-8", "surrogateescape")
