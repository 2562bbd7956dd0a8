"""From settings to what an exchange is made of: rules, and keys as the proxy would make them."""

from __future__ import annotations

from pathlib import Path

from llm_cache.errors import SettingsError
from llm_cache.exchange.control import in_namespace, read_control
from llm_cache.exchange.heads import Headers, merged_headers
from llm_cache.exchange.routing import NORMALIZE_BUDGET_SEC, Router
from llm_cache.settings import Settings
from llm_cache.wire.keys import exact_key
from llm_cache.wire.normalize import FurtherKeys, Rules, further_keys
from llm_cache.wire.request_fields import cache_bypass


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


def request_key(
    settings: Settings, method: str, target: str, headers: Headers, body: bytes
) -> tuple[bytes, FurtherKeys]:
    """The keys the proxy would use for a request with these settings: exact, and the further
    tiers'. Raises SettingsError, and ValueError for a path that isn't cacheable."""
    fields = merged_headers(headers)
    rules = load_rules(settings)
    router = Router(settings, ignored_headers=rules.ignored_headers)
    route = router.route(method, target.encode("ascii"), fields)
    if route is None or route.endpoint is None:
        raise ValueError(f"{method} {target} is not a request that is cached")
    control = in_namespace(read_control(fields), settings.namespace.encode())
    prefix = route.key_prefix(headers, fields, control, shared=settings.scope == "shared")
    _, bare = cache_bypass(body)
    further = further_keys(
        route.provider, route.endpoint, prefix, bare, rules, NORMALIZE_BUDGET_SEC
    )
    return exact_key(prefix, bare), further
