"""The settings: their names, defaults, what each may be, and the order in which they are looked up.

What holds here: a flag beats the environment, the environment beats `.env` in the home, `.env`
beats the default; an empty value counts as not set. `load_settings` returns settings that are all
right or raises one SettingsError that lists everything wrong, each with its name, value, where it
was found and what is allowed. The value of a secret is in no error, no traceback and no `repr`.

A setting is one field of `Settings` and one line of `_FIELDS`. This module imports nothing of
llm_cache but other leaves, so that every room may use it.
"""

from __future__ import annotations

import io
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from llm_cache.errors import SettingsError
from llm_cache.masking import without_keys
from llm_cache.upstreams import NamedUpstream, parse_upstreams

Mode = Literal["cache", "fresh", "bypass", "replay"]
LogLevel = Literal["silent", "error", "info", "debug"]

_LARGEST = 2**53  # every count and size up to here is exact in JSON, SQLite and a float


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one proxy, checked. Times in seconds, sizes in bytes, 0 = no limit."""

    home: Path
    port: int = 4000  # 0 = any free port
    host: str = "127.0.0.1"
    auth_token: str | None = field(default=None, repr=False)
    ttl_sec: int = 604800
    ttl_deterministic_sec: int | None = None  # None = as ttl_sec
    stale_if_error_sec: int = 0
    max_entries: int = 5000
    max_bytes: int = 2 << 30
    off: bool = False
    mode: Mode = "cache"
    namespace: str = ""  # of a request that names none
    sample: str = ""  # of a request that names none; "auto": counted
    log_level: LogLevel = "info"
    log_file: Path | None = None  # None = no file
    quiet: bool = False
    upstream: str | None = None
    upstreams: Mapping[str, str] = field(default_factory=dict)  # provider name: base URL
    named_upstreams: Mapping[str, NamedUpstream] = field(default_factory=dict)
    real_keys: Mapping[str, str] = field(default_factory=dict, repr=False)  # provider name: key
    scope: Literal["credential", "shared"] = "credential"
    tls_certfile: Path | None = None
    tls_keyfile: Path | None = None
    allow_origins: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()  # further names the proxy is known by, as in a Host header
    max_request_bytes: int = 64 << 20
    max_entry_bytes: int = 64 << 20
    normalize: bool = True
    cross_stream: bool = False
    rewrite_billing: Literal["on", "off", "auto"] = "auto"
    upstream_timeout_sec: float = 600.0  # longest silence of an upstream
    client_timeout_sec: float = 60.0  # how long a client may be idle, slow to send or not read
    sse_keepalive_sec: int = 0  # how long a stream may be silent towards its client; 0 = for ever
    store_requests: bool = True
    workers: int = 1
    backend: str = "local"

    @property
    def store_dir(self) -> Path:
        """Where blobs, index and ledger are."""
        return self.home / "store"

    @property
    def pid_file(self) -> Path:
        """The file the running proxy holds a lock on; its content is the pid."""
        return self.home / "proxy.pid"

    @property
    def normalize_file(self) -> Path:
        """What is stripped from requests before the normalized key is made."""
        return self.home / "normalize.json"

    @property
    def prices_file(self) -> Path:
        """Prices that override the built-in ones."""
        return self.home / "prices.json"

    @property
    def env_file(self) -> Path:
        """Settings of the home, one `NAME=value` a line."""
        return self.home / ".env"

    @property
    def tls(self) -> bool:
        """True when the proxy serves HTTPS."""
        return self.tls_certfile is not None

    def keep_secrets_private(self) -> None:
        """Take `.env` away from other users, if they could read it. The home itself is left as its
        owner made it: what else is secret in there is private by its own mode."""
        with suppress(OSError):  # not there, or another user's: `validate` says so
            mode = self.env_file.stat().st_mode
            if mode & 0o077:
                self.env_file.chmod(mode & 0o700)

    def make_home(self) -> None:
        """Create the home, 0700 whatever the umask; one that exists is left as it is."""
        try:
            if not self.home.is_dir():
                self.home.parent.mkdir(parents=True, exist_ok=True)
                self.home.mkdir(mode=0o700, exist_ok=True)
                self.home.chmod(0o700)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SettingsError(
                f"LLM_CACHE_HOME={_shown(str(self.home))}: can't be created: {reason}; "
                "name a folder you may write to"
            ) from None


@dataclass(frozen=True, slots=True)
class Found:
    """One setting as it was found: its text, and where. A secret's text is in no `repr`."""

    name: str
    text: str = field(repr=False)
    where: str

    @property
    def shown(self) -> str:
        """`NAME=value`, fit for one line on a terminal; of what may hold a secret the name only."""
        # CACHE_UPSTREAMS holds names of keys, and now and then a key written there instead.
        hidden = is_secret(self.name) or self.name == "CACHE_UPSTREAMS"
        return self.name if hidden else f"{self.name}={_shown(self.text)}"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a setting: the whole sentence for an error, and what is allowed."""

    name: str
    sentence: str
    allowed: str


@dataclass(frozen=True, slots=True)
class Review:
    """The settings with everything that is wrong with them. In `settings` a wrong one has its
    default. `unknown` are names that look like ours and are none."""

    settings: Settings
    found: Mapping[str, Found]
    problems: tuple[Problem, ...]
    unknown: tuple[Found, ...]

    def error(self) -> SettingsError:
        """All the problems in one error."""
        sentences = sorted(problem.sentence for problem in self.problems)
        return SettingsError.of(sentences, f"{len(sentences)} settings are wrong")


def load_settings(
    flags: Mapping[str, object] | None = None, *, environ: Mapping[str, str] | None = None
) -> Settings:
    """The settings from `flags` (setting name to value; None = not given), `environ` (default:
    the process's), `.env` in the home, and the defaults, in this order.

    Reads `.env` and looks whether the TLS files exist; creates nothing. Raises SettingsError with
    everything that is wrong.
    """
    review = review_settings(flags, environ=environ)
    if review.problems:
        raise review.error()
    return review.settings


def review_settings(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    env_file: Mapping[str, str] | None = None,
) -> Review:
    """The same as `load_settings`, for who wants to hear of each wrong setting by itself.

    `env_file` stands for what `.env` says. Raises SettingsError when the home isn't known or
    `.env` can't be read.
    """
    given = {name: _text(value) for name, value in (flags or {}).items() if value is not None}
    for name in given:
        if not is_setting(name):
            raise TypeError(f"{name} is no setting")
    env = os.environ if environ is None else environ
    home = _home(given.get("LLM_CACHE_HOME") or env.get("LLM_CACHE_HOME"), env)
    path = home / ".env"
    said = read_env_file(path) if env_file is None else env_file
    layers = (("command line", given), ("environment", env), (str(path), said))

    found: dict[str, Found] = {}
    unknown: dict[str, Found] = {}
    for where, layer in layers:
        for name, value in layer.items():
            if value and is_setting(name):
                found.setdefault(name, Found(name, value, where))
            elif _looks_like_ours(name):
                unknown.setdefault(name, Found(name, value, where))
    settings, problems = _build(home, found, [layer for _, layer in layers])
    return Review(settings, found, tuple(problems), tuple(unknown.values()))


def home_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The home that `environ` (default: the process's) names. Raises SettingsError."""
    env = os.environ if environ is None else environ
    return _home(env.get("LLM_CACHE_HOME"), env)


def check_value(name: str, text: str, home: Path) -> str | None:
    """What is allowed for this setting, when `text` isn't; None when it is."""
    try:
        _parsed(name, text, home)
    except ValueError as error:
        return str(error)
    return None


def _looks_like_ours(name: str) -> bool:
    return name.startswith(("CACHE_", "LLM_CACHE_")) and not is_setting(name)


def is_setting(name: str) -> bool:
    """True for every name the settings know: of the table, a provider's key or base URL."""
    return (
        name == "LLM_CACHE_HOME"
        or name in _FIELDS
        or _REAL_KEY.fullmatch(name) is not None
        or _PROVIDER_UPSTREAM.fullmatch(name) is not None
    )


def is_secret(name: str) -> bool:
    """True when the value of this setting must never be shown."""
    return name == "CACHE_AUTH_TOKEN" or _REAL_KEY.fullmatch(name) is not None


def configured_upstreams(settings: Settings) -> dict[str, str]:
    """The base URLs asked in the place of providers' own, and besides them, by name; `*` is that of
    everything that isn't named."""
    named = {name: upstream.url for name, upstream in settings.named_upstreams.items()}
    if settings.upstream is not None:
        return {"*": settings.upstream, **named}
    return {**settings.upstreams, **named}


LOCALHOST = ("127.0.0.1", "localhost", "::1")
"""The hosts for which the proxy listens on IPv4 and IPv6, so that clients may call it localhost."""


def is_loopback(host: str) -> bool:
    """True when only this machine can reach `host`: localhost, 127.0.0.0/8, ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_env_file(path: Path) -> dict[str, str]:
    """The names and values of an `.env` file; nothing when there is no such file.

    Values are taken as written: `$NAME` isn't replaced. Raises SettingsError naming the line that
    can't be understood (and never its text, which may be a secret).
    """
    from dotenv.parser import parse_stream

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        where = _shown(str(path.parent))
        raise SettingsError(f"{where}: isn't a folder; set LLM_CACHE_HOME to one") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(f"{path}: can't be read: {reason}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}, line {line}: isn't UTF-8 text") from None

    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            # A binding starts with the blank lines before it; the fault is where its text starts.
            blank = len(binding.original.string) - len(binding.original.string.lstrip())
            line = binding.original.line + binding.original.string[:blank].count("\n")
            raise SettingsError(f"{path}, line {line}: must be NAME=value, a comment or empty")
        if binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return values


# What each setting may be. A parser takes the text and the home, and returns the value or raises
# ValueError whose message says what is allowed.

Parser = Callable[[str, Path], object]


def _integer(low: int, high: int, meaning: str) -> Parser:
    def parse(text: str, _home: Path) -> int:
        if not re.fullmatch(r"[0-9]{1,16}", text) or not low <= int(text) <= high:
            raise ValueError(meaning)
        return int(text)

    return parse


_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}IB": 1024**_power, f"{_letter}B": 1000**_power}


def _size(low: int) -> Parser:
    """Bytes: `2147483648`, `2 GiB`, `500M` (1024 to the step), `500 MB` (1000 to the step)."""
    none = ", 0 for no limit" if low == 0 else ""
    meaning = f"must be a size such as 2147483648, 2 GiB, 64MiB or 500M{none}"

    def parse(text: str, _home: Path) -> int:
        match = re.fullmatch(r"([0-9]{1,16}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)", text)
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ValueError(meaning)
        size = float(match[1]) * unit
        if not size.is_integer() and unit == 1:
            raise ValueError(meaning)
        if not low <= size <= _LARGEST:
            raise ValueError(meaning)
        return int(size)

    return parse


def _switch(text: str, _home: Path) -> bool:
    word = text.lower()
    if word in {"1", "on", "true", "yes"}:
        return True
    if word in {"0", "off", "false", "no"}:
        return False
    raise ValueError("must be 1 or 0 (also on, off, true, false, yes, no)")


def _one_of(*words: str) -> Parser:
    def parse(text: str, _home: Path) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return parse


def _host(text: str, _home: Path) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    label = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    looks_numeric = re.fullmatch(r"[0-9.]+", bare)
    if looks_numeric or len(bare) > 253 or not re.fullmatch(rf"{label}(?:\.{label})*", bare):
        raise ValueError("must be an IP address or a host name, with no scheme and no port")
    return bare


def _secret(text: str, _home: Path) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be visible ASCII characters with no space: it is sent in a header")
    return text


def _namespace(text: str, _home: Path) -> str:
    if not re.fullmatch(r"[!-~](?:[ -~]{0,198}[!-~])?", text):
        raise ValueError("must be 1 to 200 visible ASCII characters, as in x-cache-namespace")
    return text


def _url(text: str, _home: Path) -> str:
    meaning = "must be an http:// or https:// URL with no user, query or fragment"
    try:
        parts = urlsplit(text)
        port = parts.port  # raises ValueError for a port that is none
    except ValueError:
        raise ValueError(meaning) from None
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or port == 0
        or not re.fullmatch(r"[!-~]+", text)
        or any(mark in text for mark in "@?#\\")
    ):
        raise ValueError(meaning)
    return text.rstrip("/")


def _upstreams(text: str, home: Path) -> dict[str, NamedUpstream]:
    return parse_upstreams(text, home, lambda url: _url(url, home))


def _origins(text: str, _home: Path) -> tuple[str, ...]:
    origins = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for origin in origins:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[!-~]+", origin) or any(
            mark in origin.partition("://")[2] for mark in "/?#@*\\"
        ):
            raise ValueError(
                "must be origins such as https://app.example.com, separated by commas, "
                "each with its scheme and no path"
            )
    return origins


def _hosts(text: str, home: Path) -> tuple[str, ...]:
    try:
        names = [_host(part.strip(), home).lower() for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError("must be host names or IP addresses, separated by commas") from None
    return tuple(f"[{name}]" if ":" in name else name for name in names)


def _file(text: str, home: Path) -> Path:
    path = _path(text, home)
    if not path.is_file():
        raise ValueError("must be a file that exists")
    if not os.access(path, os.R_OK):
        raise ValueError("must be a file you may read")
    return path


def _log_file(text: str, home: Path) -> Path | None:
    return None if text.lower() == "none" else _path(text, home)


def _path(text: str, home: Path) -> Path:
    if "\0" in text:
        raise ValueError("must be a path")
    try:
        return home / Path(text).expanduser()  # an absolute path stays what it is
    except RuntimeError:
        raise ValueError("must be a path; there is no such user") from None


def _seconds(text: str, _home: Path) -> float:
    meaning = "must be a number of seconds above 0, at most 86400"
    try:
        value = float(text)
    except ValueError:
        raise ValueError(meaning) from None
    if not math.isfinite(value) or not 0 < value <= 86400:
        raise ValueError(meaning)
    return value


def _only(word: str, later: str) -> Parser:
    def parse(text: str, _home: Path) -> str:
        if text != word:
            raise ValueError(f"must be {word}: this version can't do more yet ({later})")
        return text

    return parse


def _one_worker(text: str, home: Path) -> int:
    return int(cast(str, _only("1", "several server processes sharing one store")(text, home)))


_count = _integer(0, _LARGEST, "must be a whole number, 0 for no limit")
_FIELDS: Mapping[str, tuple[str, Parser]] = {
    "CACHE_PORT": ("port", _integer(0, 65535, "must be 1 to 65535 (0: any free port)")),
    "CACHE_HOST": ("host", _host),
    "CACHE_AUTH_TOKEN": ("auth_token", _secret),
    "CACHE_TTL_SEC": ("ttl_sec", _integer(0, _LARGEST, "must be whole seconds, 0 for no limit")),
    "CACHE_TTL_DETERMINISTIC_SEC": (
        "ttl_deterministic_sec",
        _integer(0, _LARGEST, "must be whole seconds, 0 for no limit"),
    ),
    "CACHE_STALE_IF_ERROR_SEC": (
        "stale_if_error_sec",
        _integer(0, _LARGEST, "must be whole seconds, 0 for never"),
    ),
    "CACHE_MAX_ENTRIES": ("max_entries", _count),
    "CACHE_MAX_BYTES": ("max_bytes", _size(0)),
    "CACHE_OFF": ("off", _switch),
    "CACHE_MODE": ("mode", _one_of("cache", "fresh", "bypass", "replay")),
    "CACHE_NAMESPACE": ("namespace", _namespace),
    "CACHE_SAMPLE": ("sample", _namespace),
    "CACHE_LOG_LEVEL": ("log_level", _one_of("silent", "error", "info", "debug")),
    "CACHE_LOG_FILE": ("log_file", _log_file),
    "CACHE_QUIET": ("quiet", _switch),
    "CACHE_UPSTREAM": ("upstream", _url),
    "CACHE_UPSTREAMS": ("named_upstreams", _upstreams),
    "CACHE_SCOPE": ("scope", _one_of("credential", "shared")),
    "CACHE_TLS_CERTFILE": ("tls_certfile", _file),
    "CACHE_TLS_KEYFILE": ("tls_keyfile", _file),
    "CACHE_ALLOW_ORIGINS": ("allow_origins", _origins),
    "CACHE_ALLOW_HOSTS": ("allow_hosts", _hosts),
    "CACHE_MAX_REQUEST_BYTES": ("max_request_bytes", _size(1)),
    "CACHE_MAX_ENTRY_BYTES": ("max_entry_bytes", _size(1)),
    "CACHE_NORMALIZE": ("normalize", _switch),
    "CACHE_CROSS_STREAM": ("cross_stream", _switch),
    "CACHE_REWRITE_BILLING": ("rewrite_billing", _one_of("on", "off", "auto")),
    "CACHE_UPSTREAM_TIMEOUT_SEC": ("upstream_timeout_sec", _seconds),
    "CACHE_CLIENT_TIMEOUT_SEC": ("client_timeout_sec", _seconds),
    "CACHE_SSE_KEEPALIVE_SEC": (
        "sse_keepalive_sec",
        _integer(0, 86400, "must be whole seconds, 0 for never"),
    ),
    "CACHE_STORE_REQUESTS": ("store_requests", _switch),
    "CACHE_WORKERS": ("workers", _one_worker),
    "CACHE_BACKEND": ("backend", _only("local", "a store shared over Redis")),
}
SETTING_NAMES = frozenset(_FIELDS)
"""The settings of the table; the names that hold a provider's come besides."""

_REAL_KEY = re.compile(r"([A-Z][A-Z0-9_]*)_API_KEY_REAL")
_PROVIDER_UPSTREAM = re.compile(r"CACHE_UPSTREAM_(?!TIMEOUT_SEC$)([A-Z][A-Z0-9_]*)")


def _parsed(name: str, text: str, home: Path) -> object:
    """The value of one setting. ValueError says what is allowed."""
    if _REAL_KEY.fullmatch(name):
        return _secret(text, home)
    if _PROVIDER_UPSTREAM.fullmatch(name):
        return _url(text, home)
    return _FIELDS[name][1](text, home) if name in _FIELDS else text


def _build(
    home: Path, found: Mapping[str, Found], layers: Sequence[Mapping[str, str]]
) -> tuple[Settings, list[Problem]]:
    values: dict[str, Any] = {"home": home, "log_file": home / "proxy.log"}
    upstreams: dict[str, str] = {}
    real_keys: dict[str, str] = {}
    problems: list[Problem] = []
    for name, one in found.items():
        try:
            value = _parsed(name, one.text, home)
        except ValueError as error:
            sentence = f"{one.shown} ({one.where}): {error}"
            problems.append(Problem(name, sentence, str(error)))
            continue
        if match := _REAL_KEY.fullmatch(name):
            real_keys[match[1].lower()] = cast(str, value)
        elif match := _PROVIDER_UPSTREAM.fullmatch(name):
            upstreams[match[1].lower()] = cast(str, value)
        elif name in _FIELDS:
            values[_FIELDS[name][0]] = value
    problems += _together(values, found)
    named: dict[str, NamedUpstream] = values.pop("named_upstreams", {})
    for name, upstream in list(named.items()):
        try:
            named[name] = _with_key(name, upstream, real_keys, layers, home)
            if name in upstreams:
                raise ValueError(f"CACHE_UPSTREAM_{name.upper()} names an upstream for it as well")
        except ValueError as error:
            where = found["CACHE_UPSTREAMS"].where
            sentence = f"CACHE_UPSTREAMS ({where}): {name}: {error}"
            problems.append(Problem("CACHE_UPSTREAMS", sentence, f"{name}: {error}"))
    if values.get("quiet"):
        values["log_level"] = "silent"
    made = Settings(upstreams=upstreams, named_upstreams=named, real_keys=real_keys, **values)
    return made, problems


def _with_key(
    name: str,
    upstream: NamedUpstream,
    real_keys: Mapping[str, str],
    layers: Sequence[Mapping[str, str]],
    home: Path,
) -> NamedUpstream:
    """The upstream with its real key: of the variable it names, else `<NAME>_API_KEY_REAL`."""
    variable = upstream.key_variable
    if variable is None:
        return replace(upstream, key=real_keys.get(name.replace("-", "_")))
    text = next((layer[variable] for layer in layers if layer.get(variable)), None)
    if text is None:
        raise ValueError(f"key={variable}: this variable isn't set, here or in .env")
    try:
        return replace(upstream, key=_secret(text, home))
    except ValueError as error:
        raise ValueError(f"{variable} {error}") from None


def _together(values: Mapping[str, Any], found: Mapping[str, Found]) -> list[Problem]:
    """What is wrong with settings that are right one by one."""
    problems = []
    host = values.get("host", "127.0.0.1")
    if not is_loopback(host) and "CACHE_AUTH_TOKEN" not in found:
        why = "other machines can reach it, so CACHE_AUTH_TOKEN must be set; or use 127.0.0.1"
        place = f"CACHE_HOST={_shown(host)} ({found['CACHE_HOST'].where})"
        problems.append(Problem("CACHE_HOST", f"{place}: {why}", why))
    if values.get("cross_stream") and not values.get("normalize", True):
        why = "must be 0 with CACHE_NORMALIZE=off: it compares requests by their normalized form"
        place = f"CACHE_CROSS_STREAM=1 ({found['CACHE_CROSS_STREAM'].where})"
        problems.append(Problem("CACHE_CROSS_STREAM", f"{place}: {why}", why))
    pair = ("CACHE_TLS_CERTFILE", "CACHE_TLS_KEYFILE")
    missing = [name for name in pair if name not in found]
    if len(missing) == 1:
        there = pair[1 - pair.index(missing[0])]
        why = f"must be set, because {there} is; set both or neither"
        problems.append(Problem(missing[0], f"{missing[0]}: {why}", why))
    return problems


def _home(text: str | None, env: Mapping[str, str]) -> Path:
    try:
        if text:
            if "\0" in text:
                raise RuntimeError
            return Path.cwd() / Path(text).expanduser()
        own = env.get("HOME")
        return (Path(own) if own else Path.home()) / ".llm-cache"
    except (RuntimeError, OSError):
        raise SettingsError(
            f"LLM_CACHE_HOME={_shown(text or '')}: must be a folder; no home folder is known"
        ) from None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)


def _shown(text: str) -> str:
    """A value fit for one line on a terminal: no control characters, nothing before an `@` or
    after a `?` (in a URL these hold passwords and keys), no key (of the next line, where the line
    break was lost), and not endless."""
    text = without_keys(text)
    text = re.sub(r".*@", "…@", text, flags=re.DOTALL)
    text = re.sub(r"[?#].*", "?…", text, flags=re.DOTALL)
    text = "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)
    return text if len(text) <= 80 else text[:79] + "…"
