"""From settings to what an exchange is made of: rules, and keys as the proxy would make them."""

from __future__ import annotations

from pathlib import Path

from llm_cache.errors import SettingsError
from llm_cache.exchange import edits
from llm_cache.exchange.asked import Asked, Head
from llm_cache.exchange.calls import Label
from llm_cache.exchange.control import in_namespace, read_control
from llm_cache.exchange.heads import Headers, merged_headers
from llm_cache.exchange.routing import Router
from llm_cache.exchange.tiers import Tiers
from llm_cache.settings import Settings
from llm_cache.wire.keys import exact_key
from llm_cache.wire.normalize import Rules


def load_rules(settings: Settings) -> Rules:
    """The rules of `normalize.json`; none when there is no such file. Raises SettingsError."""
    text = read_optional(settings.normalize_file)
    return Rules() if text is None else Rules.parse(text, str(settings.normalize_file))


def read_optional(path: Path) -> str | None:
    """A text file of the home, None when it isn't there. Raises SettingsError."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: can't be read: {error}") from None


def request_keys(
    settings: Settings, method: str, target: str, headers: Headers, body: bytes
) -> tuple[dict[Label, str], str]:
    """The keys (hex) the proxy would use for a request with these settings, by what a hit by each
    is called, and why there are no more. Raises SettingsError, Refused for a wrong header, and
    ValueError for a path that isn't cacheable."""
    fields = merged_headers(headers)
    route = Router(settings).route(method, target.encode("ascii"), fields)
    if route is None or route.endpoint is None:
        raise ValueError(f"{method} {target} is not a request that is cached")
    control = in_namespace(read_control(fields), settings.namespace.encode())
    prefix = route.key_prefix(headers, control, shared=settings.scope == "shared")
    bare = edits.edited(edits.BEFORE_KEY, route, body).body
    asked = Asked(
        Head(route, headers, fields, control),
        "cache",
        started=0.0,
        body=bare,
        key=exact_key(prefix, bare),
        prefix=prefix,
    )
    tiers = Tiers(settings, load_rules(settings))
    further = tiers.read(asked)
    keys = {Label.HIT: asked.key.hex()}
    for tier, key in further.found:  # the more exact one of two with one label
        keys.setdefault(tier.label, key.hex())
    return keys, further.note
