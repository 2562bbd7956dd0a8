"""What llm-cache-proxy (Node) left in its folder, as answers to `setup` and files of our home.

What holds: nothing is written here, and nothing is said of a value that may be a secret. What
can't be taken over is told with its reason, by name, and keeps nothing else from being taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_cache import env_file
from llm_cache.errors import LlmCacheError, UsageError
from llm_cache.exchange import read_optional
from llm_cache.host.configure import Present
from llm_cache.settings import check_value, is_setting
from llm_cache.wire.normalize import Rules
from llm_cache.wire.prices import Prices

_THREE = ("CACHE_UPSTREAM_HOST", "CACHE_UPSTREAM_PORT", "CACHE_UPSTREAM_PROTO")
"""How llm-cache-proxy names the one upstream it has; the defaults are Anthropic's own."""
_OWN = "https://api.anthropic.com:443"
_FILES = ("normalize.json", "prices.json")


@dataclass(frozen=True, slots=True)
class TakenOver:
    """`answers` for `.env`, `files` of the home by name, and what is `left` out, a line each."""

    answers: Mapping[str, str]
    files: Mapping[str, str]
    left: tuple[str, ...]


def taken_over(folder: Path, now: Present) -> TakenOver:
    """What of `folder` our home doesn't have. Raises UsageError when there is nothing of
    llm-cache-proxy, SettingsError for a file of it that the proxy couldn't start with."""
    names = [name for name in (".env", *_FILES) if (folder / name).is_file()]
    if not names:
        raise UsageError(
            f"--from {folder}: has no .env, normalize.json or prices.json of llm-cache-proxy"
        )
    left: list[str] = []
    said = env_file.as_far_as_it_reads(folder / ".env")
    answers = {}
    for name, value in {**said, **_upstream(said)}.items():
        why = _left_out(name, value, folder, now)
        if why is None:
            answers[name] = value
        elif why:
            left.append(f"{name} of {folder / '.env'} is left out: {why}")
    files = {}
    for name in _FILES:
        text = read_optional(folder / name)
        if text is None:
            continue
        _check(name, text, str(folder / name))
        ours = read_optional(now.home / name)
        if ours is None:
            files[name] = text
        elif ours != text:
            left.append(f"{folder / name} is left out: {now.home / name} is there, and stays")
    return TakenOver(answers, files, tuple(left))


def write_files(taken: TakenOver, home: Path) -> list[Path]:
    """Put the files into the home, for the user only; their paths."""
    paths = []
    for name, text in taken.files.items():
        path = home / name
        env_file.write_private(path, text.encode())
        paths.append(path)
    return paths


def _upstream(said: Mapping[str, str]) -> dict[str, str]:
    """The base URL of the three settings, if they name another than Anthropic's own."""
    host, port, scheme = (said.get(name, "").strip() for name in _THREE)
    if not (host or port or scheme):
        return {}
    scheme = (scheme or "https").removesuffix("://").removesuffix(":").lower()
    port = port or ("80" if scheme == "http" else "443")
    url = f"{scheme}://{host or 'api.anthropic.com'}:{port}"
    return {} if url == _OWN else {"CACHE_UPSTREAM_ANTHROPIC": url}


def _left_out(name: str, value: str, folder: Path, now: Present) -> str | None:
    """Why a setting isn't taken; "" when that needs no word, None when it is."""
    if name in _THREE or not value:
        return ""  # they are said by CACHE_UPSTREAM_ANTHROPIC
    if name == "CACHE_LOG_FILE" and (folder / value).is_relative_to(folder):
        return ""  # our own log is in our own home
    if name == "LLM_CACHE_HOME" or not is_setting(name):
        return "there is no such setting here"
    if name in now.said:
        return "" if now.said[name] == value else f"{now.path} says something else, which stays"
    return check_value(name, value, now.home)


def _check(name: str, text: str, source: str) -> None:
    try:
        if name == "normalize.json":
            Rules.parse(text, source)
        else:
            Prices.load(text, source)
    except LlmCacheError as error:
        raise error.under("nothing was taken over") from None
