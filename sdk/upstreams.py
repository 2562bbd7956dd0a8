"""Named upstreams: how `CACHE_UPSTREAMS` is written, in the variable itself or in a JSON file.

    mine = http://10.0.0.5:8080 provider=anthropic key=MINE_API_KEY; other = https://gw.example/llm
    {"mine": {"url": "http://10.0.0.5:8080", "provider": "anthropic", "key": "MINE_API_KEY"}}

What holds: a name can't be mistaken for a path of the proxy's own or of a known API, and a wrong
word is a ValueError that says in which upstream it stands and what is allowed. Whether a provider
of that name exists is known elsewhere. This module imports nothing of llm_cache.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIELDS = ("url", "provider", "key")
_API_PATH = re.compile(r"v[0-9].*")
_TAKEN = frozenset(
    (
        # the proxy's own endpoints
        *("cache", "health", "metrics", "monitor", "stats"),
        # first segments of APIs' paths, for clients whose base URL ends without a version
        *("api", "chat", "completions", "embeddings", "messages", "model", "models"),
        *("moderations", "rerank", "responses"),
    )
)

CheckUrl = Callable[[str], str]
"""The base URL in a text; ValueError says what is allowed."""


@dataclass(frozen=True, slots=True)
class NamedUpstream:
    """One upstream, reached as `/<name>/…`. `provider` None: told by the name or by the paths that
    are asked; `key_variable` names where the real key is, `key` is what was found there."""

    url: str
    provider: str | None = None
    key_variable: str | None = None
    key: str | None = field(default=None, repr=False)


def parse_upstreams(text: str, home: Path, check_url: CheckUrl) -> dict[str, NamedUpstream]:
    """The upstreams by name. `text` is JSON when it begins with `{`, written out when it holds a
    `=`, else the path of a JSON file, from `home` on. Raises ValueError."""
    text = text.strip()
    if not text.startswith("{"):
        if "=" in text:
            return _collected(_written_out(text), check_url)
        text = _content(home / Path(text).expanduser())
    return _collected(_in_json(text), check_url)


def _content(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(
            "must be `name=URL provider=… key=VARIABLE; …`, a JSON object, or the path of a "
            f"JSON file that can be read ({reason})"
        ) from None
    except UnicodeDecodeError:
        raise ValueError("the file isn't UTF-8 text") from None


def _written_out(text: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    for entry in re.split(r"[;\n]", text):
        name, assigned, rest = entry.partition("=")
        words = re.split(r"[\s,]+", rest.strip())
        if not entry.strip():
            continue
        if not assigned:
            raise ValueError(f"{_shown(name)} isn't followed by `=` and a base URL")
        given: dict[str, object] = {"url": words[0]}
        for word in words[1:]:
            option, equals, value = word.partition("=")
            if not equals or option not in _FIELDS[1:] or option in given:
                raise ValueError(
                    f"{_shown(name)}: {_shown(word)} must be provider=NAME or key=VARIABLE, "
                    "each once; `;` ends an upstream"
                )
            given[option] = value
        yield name.strip(), given


def _in_json(text: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    try:
        doc = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        raise ValueError("isn't valid JSON") from None
    if not text.lstrip().startswith("{"):
        raise ValueError('must be a JSON object: {"name": {"url": …}}')
    for name, value in doc:
        if isinstance(value, str):
            yield name, {"url": value}
            continue
        given = dict(value) if _is_object(value) else {}
        if "url" not in given or len(given) != len(value) or not given.keys() <= set(_FIELDS):
            raise ValueError(
                f"{_shown(name)}: must be a URL, or an object with url and, if wanted, "
                "provider and key"
            )
        yield name, given


def _is_object(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(pair, tuple) for pair in value)


def _collected(
    entries: Iterable[tuple[str, Mapping[str, object]]], check_url: CheckUrl
) -> dict[str, NamedUpstream]:
    found: dict[str, NamedUpstream] = {}
    for name, given in entries:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{_shown(name)} is no name: lower-case letters, digits, - and _, "
                "a letter first, at most 32"
            )
        if name in _TAKEN or _API_PATH.fullmatch(name):
            raise ValueError(f"{name} can't be a name: /{name} is a path of the proxy or of an API")
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = _checked(name, given, check_url)
    return found


def _checked(name: str, given: Mapping[str, object], check_url: CheckUrl) -> NamedUpstream:
    url, provider, variable = (given.get(key) for key in _FIELDS)
    try:
        url = check_url(url if isinstance(url, str) else "")
    except ValueError as error:
        raise ValueError(f"{name}: the URL {error}") from None
    if provider is not None and not (isinstance(provider, str) and _NAME.fullmatch(provider)):
        raise ValueError(f"{name}: provider must be a provider's name, such as openai")
    if variable is not None and not (isinstance(variable, str) and _VARIABLE.fullmatch(variable)):
        # Whoever writes the key itself here must not find it in an error.
        raise ValueError(f"{name}: key must be the name of the variable that holds the key")
    return NamedUpstream(url, provider, variable)


def _shown(text: object) -> str:
    """Of something wrong, the part before what could be a secret."""
    word = str(text).strip().partition("=")[0].partition("@")[0]
    return repr(word[:40])
