"""What llm-cache must know of a provider's API, and the facts it reads from an answer.

A provider is one file in this folder with one subclass of `Provider`; `wire.registry` lists them.
Nothing here does I/O: bytes go in, facts come out. Nothing here imports the other rooms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Json: TypeAlias = dict[str, Any]
"""A parsed JSON object."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer says it used, each as the provider's own body counts it: tokens, and what else
    has a price.

    `cache_read_tokens` and `cache_write_tokens` are the provider's prompt cache, never ours.
    `input_includes_cache` tells whether `input_tokens` already contains them (OpenAI, Gemini) or
    not (Anthropic); prices need to know. `input_tokens`, `output_tokens` and `cache_read_tokens`
    contain what is said of one modality, of reasoning and of citations; those two are told where
    they have rates of their own. `service_tier` and `speed` are "" for what is nobody's wish.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0  # the part of cache_write_tokens with a one-hour lifetime
    input_includes_cache: bool = False
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    input_video_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    output_video_tokens: int = 0
    cache_audio_read_tokens: int = 0
    cache_image_read_tokens: int = 0
    cache_video_read_tokens: int = 0
    reasoning_tokens: int = 0
    citation_tokens: int = 0
    web_searches: int = 0
    storage_searches: int = 0
    service_tier: str = ""
    speed: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a finished answer turned out to be.

    `complete` is the provider's own definition, read from structure. When False, `reason` says why
    in a few words for the log ("no message_stop", "error event: overloaded_error").
    """

    complete: bool
    reason: str = ""
    model: str | None = None
    usage: Usage | None = None
    snippet: str = ""  # first 80 characters of the answer's text, one line


class Watcher(Protocol):
    """Reads the bytes of one response (content decoded) as they pass, in pieces of any size."""

    @property
    def done(self) -> bool:
        """True once the bytes fed so far are a complete answer: only the end is still to come."""

    @property
    def failed(self) -> bool:
        """True once a reader of the bytes fed so far can tell that no complete answer will come of
        them: an error event, say. Never True of an answer that `close` calls complete."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Never raises: garbage makes the answer incomplete."""

    def close(self) -> Answer:
        """The facts, once the body ended cleanly. Call once."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One cacheable operation of a provider's API, e.g. `messages`. `model` is what the path says,
    where the API names its model there (Gemini, Bedrock). `price_ids` are the price data's names of
    who serves this path, where a provider passes requests on; they make no other operation."""

    name: str
    model: str | None = None
    price_ids: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class KeyForm:
    """How a provider's API keys begin, and the path of an operation that needs one and costs
    nothing.

    The beginnings are those of what the provider gives out today; (): its keys have no form of
    their own. `free_path` is without the provider prefix, None when there is no such operation;
    `headers` are what it needs besides the key. Source: each provider's API reference,
    "Authentication" and "List models".
    """

    prefixes: tuple[str, ...] = ()
    free_path: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class ClientVariables:
    """The environment that a provider's official clients read.

    `urls`: the variables with a base URL, each with the path at which the proxy plays what the
    client takes for one. `keys`: where its API key is looked for, first the one to set when there
    is none. Source: the clients themselves.
    """

    urls: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] = ()


class Provider(ABC):
    """One LLM API. Instances hold no state; every method is pure."""

    name: str
    """Route prefix and label: `anthropic`."""
    title: str
    """What its maker calls it: `Google Gemini`."""
    base_url: str
    """Where requests go when no setting says otherwise; "" when only a setting can say it: each
    customer has a host of its own."""
    key_form: KeyForm | None = KeyForm()
    """The form of its API keys; None when it takes none, or what somebody else made up."""
    clients: ClientVariables = ClientVariables()
    """How its clients are led to the proxy."""
    key_setting: str
    """The setting with the real key: `ANTHROPIC_API_KEY_REAL`."""
    credential_headers: frozenset[bytes]
    """Lower-case request headers that carry the client's credentials."""
    key_parameters: Mapping[bytes, bytes] = {}
    """Query parameters that carry credentials, each with the header that means the same, or b""."""
    signed: bool = False
    """True when requests are signed for their host, so that the proxy must sign them anew."""
    service: str = ""
    """What requests are signed for, when they are: AWS's name of the service."""
    own_paths: tuple[str, ...] = ()
    """Beginnings of paths that are this provider's although they look like another's prefix:
    Azure's `/openai/deployments/`."""
    own_domains: tuple[str, ...] = ()
    """Domains whose hosts are the provider's own, besides the host of `base_url`."""
    price_ids: tuple[str | None, ...] = ()
    """Names the price data has for this provider, asked in order; None asks for the model alone,
    whoever made it. (): the provider's own name."""

    @abstractmethod
    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        """True when a request without a provider prefix is this provider's (`/v1/messages`)."""

    @abstractmethod
    def endpoint(self, method: str, path: str) -> Endpoint | None:
        """The cacheable operation behind `method` and `path` (no query), or None: pass through."""

    @abstractmethod
    def is_key_header(self, name: bytes) -> bool:
        """True when the lower-case request header `name` can change the answer."""

    @abstractmethod
    def auth_header(self, key: str) -> tuple[bytes, bytes]:
        """The request header that carries the real key upstream."""

    @abstractmethod
    def watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        """A watcher for a response with this status and content type."""

    @abstractmethod
    def strip_volatile(self, endpoint: Endpoint, doc: Json) -> None:
        """Take out of the parsed request, in place, what differs from run to run but not the
        answer: ids of the user, billing lines of known agents."""

    @abstractmethod
    def map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        """Replace, in place, every system text by `system(text)` and every message text, tool
        results included, by `message(text)`, in string and in block form."""

    @abstractmethod
    def keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        """Cut the messages, in place, to the last `turns`. False: the suffix tier must not be used
        for this request (tools are involved, or the kept part answers a question that was cut)."""

    @abstractmethod
    def request_model(self, endpoint: Endpoint, path: str, doc: Json) -> str | None:
        """The model the request names."""

    @property
    def upstream_setting(self) -> str:
        """The setting that says where its requests go: `CACHE_UPSTREAM_ANTHROPIC`."""
        return f"CACHE_UPSTREAM_{self.name.upper()}"

    def is_signature(self, name: bytes, value: bytes) -> bool:
        """True for a header that belongs to a request's signature. It never goes upstream: it ends
        at the proxy, which signs anew (see `signed`)."""
        return False

    def home(self, path: str, environ: Mapping[str, str]) -> str:
        """The base URL for requests to `path` when no setting says otherwise, "" when there is
        none. `environ` is the process's environment, where a cloud's region may be named."""
        return self.base_url

    def header_usage(self, fields: Mapping[bytes, bytes]) -> Usage | None:
        """What the response's headers say was used; asked when the body says nothing."""
        return None

    def is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        """True when the same request always gets the same answer: its answer may be kept without
        end (embeddings; temperature 0 with a seed)."""
        return False

    def strip_form(self, endpoint: Endpoint, doc: Json) -> bool | None:
        """Take out of the parsed request, in place and at its top level only, what says in which
        form it is answered. True when that is a stream; None when there is but one form, or no
        answer can be put into the other."""
        return None

    def as_stream(self, endpoint: Endpoint, doc: Json, body: bytes) -> bytes | None:
        """The plain answer `body` as the stream that the request `doc` asks for, in the provider's
        own events; None when that can't be done without losing or inventing something."""
        return None

    def as_plain(self, endpoint: Endpoint, body: bytes) -> bytes | None:
        """The streamed answer `body` as a plain one, None as for `as_stream`."""
        return None

    def leans_on(self, endpoint: Endpoint, doc: Json) -> str:
        """What the parsed request leans on that changes from elsewhere, so that its answer must not
        be stored ("part of a conversation that goes on"); "" when all that decides is in it."""
        return ""

    def error_shape(self, endpoint: Endpoint) -> Provider:
        """Whose errors the clients of this operation know: those of its own format."""
        return self

    @abstractmethod
    def error_body(self, status: int, kind: str, message: str) -> bytes:
        """A JSON error in the provider's own shape, so that its official client understands it."""
