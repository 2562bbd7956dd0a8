"""Send recorded exchanges through the proxy twice, against an upstream that plays them.

    python scripts/replay_recordings.py FILE [--host api.anthropic.com ...] [--verbose]

FILE has one JSON object a line, gzipped or not: `id`, `host`, `method`, `path`, `status`,
`request_headers`, `response_headers`, `request_body_b64`, `response_body_b64`. An exchange goes to
the route of the provider that its host belongs to; a host of nobody's gets a named upstream of its
own, whose bytes are read as the path tells, and is named.

What must hold for every exchange, each in a namespace of its own, as one recording may hold the
same request with several answers:
- The first time the upstream gets the recorded method, path and body, once, and the client gets the
  recorded status, body bytes and headers.
- The second time, when the exchange asks a model and succeeded completely, it is a `HIT` without an
  upstream call, with the same status, body bytes and headers, and `/monitor` counts for both times
  the usage that the body states.
- All other exchanges (errors, incomplete answers, other endpoints) reach the upstream again and
  come back the same; none is a hit.

Prints one line per host and outcome, the reason of each answer that wasn't stored, and every
deviation. Exit code 1 when there is one.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.proxy import MonitorFeed, Proxy, running_proxy
from support.raw import RawConnection, Response
from support.replies import Framing, Reply
from support.upstream import Request, Upstream

from llm_cache.exchange.routing import speaker
from llm_cache.wire.provider import Answer, Endpoint, Provider
from llm_cache.wire.registry import PROVIDERS, by_name

_PROVIDERS = (
    ("api.cohere.ai", "cohere"),
    ("huggingface.co", "huggingface"),
    ("ollama.com", "ollama"),
    ("localhost:11434", "ollama"),
    ("127.0.0.1:11434", "ollama"),
    ("aiplatform.", "vertex"),
    ("bedrock-runtime.", "bedrock"),
    ("bedrock-mantle.", "mantle"),
    *((urlsplit(one.base_url).netloc, one.name) for one in PROVIDERS if one.base_url),
)
"""Beginnings of host names and the provider that answers there."""
_ENDINGS = (("-aiplatform.googleapis.com", "vertex"), (".azure.com", "azure"))
"""Where each customer or region has a host."""

_OF_THE_MOMENT = {"connection", "date", "host", "keep-alive", "set-cookie", "transfer-encoding"}
_OF_THE_MOMENT |= {"accept-encoding", "content-encoding", "content-length"}


_PIECE = 700
"""Bytes per chunk of a played event stream: events are cut anywhere."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded exchange."""

    number: int
    id: str
    host: str
    method: str
    path: str
    status: int
    request_headers: tuple[tuple[str, str], ...]
    response_headers: tuple[tuple[str, str], ...]
    request_body: bytes
    response_body: bytes

    @property
    def content_type(self) -> str:
        """The answer's content type, or ""."""
        return dict(self.response_headers).get("content-type", "")

    def reply(self) -> Reply:
        """The answer as the upstream plays it: streams in chunks, the rest with a length."""
        body = self.response_body
        if "stream" in self.content_type:
            pieces = tuple(body[i : i + _PIECE] for i in range(0, len(body), _PIECE))
            return Reply(self.status, self.response_headers, pieces, Framing.CHUNKED)
        return Reply(self.status, self.response_headers, (body,))


def main() -> int:
    """Replay and report; the exit code."""
    options = _options()
    recorded = list(_read(options.file))
    hosts = options.host or sorted({exchange.host for exchange in recorded})
    routes = {host: _provider(host) or f"host-{number}" for number, host in enumerate(hosts)}
    for host, name in routes.items():
        if isinstance(name, str):
            print(f"nobody's host, a named upstream of its own: {host}")
    chosen = [exchange for exchange in recorded if exchange.host in routes]
    if not chosen:
        print("no exchange to replay", file=sys.stderr)
        return 1
    outcomes: Counter[tuple[str, str]] = Counter()
    deviations: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-cache-replay-")))
        upstream = stack.enter_context(Upstream())
        settings = {
            f"CACHE_UPSTREAM_{name.upper()}": upstream.url
            for name in sorted({way.name for way in routes.values() if isinstance(way, Provider)})
        }
        settings["CACHE_UPSTREAMS"] = "; ".join(
            f"{name}={upstream.url}" for name in routes.values() if isinstance(name, str)
        )
        proxy = stack.enter_context(running_proxy(folder / "home", settings))
        feed = MonitorFeed(proxy.port)
        stack.callback(feed.close)
        replay = Replay(upstream, proxy, feed)
        for exchange in chosen:
            outcome, wrong = replay.twice(exchange, routes[exchange.host])
            outcomes[exchange.host, outcome] += 1
            deviations += wrong
            if options.verbose or wrong:
                where = f"{exchange.method} {exchange.host}{exchange.path}"
                print(f"{exchange.id}  {where}  {exchange.status}  {outcome}")
    _print_table(outcomes)
    for line in deviations:
        print(f"DEVIATION {line}")
    print(f"{len(chosen)} exchanges, each sent twice; {len(deviations)} deviations")
    return 1 if deviations else 0


class Replay:
    """Sends one exchange after the other, so that everything seen belongs to the one just sent."""

    def __init__(self, upstream: Upstream, proxy: Proxy, feed: MonitorFeed) -> None:
        self._upstream = upstream
        self._proxy = proxy
        self._feed = feed

    def twice(self, exchange: Recorded, way: Provider | str) -> tuple[str, list[str]]:
        """Send an exchange twice, to a provider's route or the named upstream `way`; its outcome
        in a few words, and what deviated."""
        path = exchange.path.partition("?")[0]
        provider, base = way if isinstance(way, Provider) else None, 0
        if provider is None:
            fields = {name.encode(): value.encode() for name, value in exchange.request_headers}
            provider, base = speaker(exchange.method, path, fields)
        answer = _facts(exchange, provider, provider.endpoint(exchange.method, path[base:]))
        prefix = way if isinstance(way, str) else way.name
        storable = answer is not None and answer.complete and exchange.status == 200
        wrong: list[str] = []
        for turn in (1, 2):
            before = self._upstream.call_count
            self._upstream.default = exchange.reply()
            response = self._send(exchange, provider, prefix)
            calls = self._upstream.calls[before:]
            hit = storable and turn == 2
            label = "HIT" if hit else "MISS" if answer is not None else "PASS"
            found = [
                *_compare("x-cache", label, response.header("x-cache")),
                *_compare("upstream calls", 0 if hit else 1, len(calls)),
                *_compare("status", exchange.status, response.status),
                *_compare("body", exchange.response_body, response.body),
                *_compare("ending", True, response.complete),
                *(
                    line
                    for name, value in exchange.response_headers
                    for line in _compare(name, value, response.header(name))
                ),
                *(line for call in calls for line in _compare_request(exchange, call.request)),
            ]
            found += self._compare_feed(provider, response, answer if storable else None, hit)
            wrong += [f"{exchange.id}, time {turn}: {line}" for line in found]
        if answer is None:
            return "passed through", wrong
        if storable:
            return "second time a hit", wrong
        reason = answer.reason if exchange.status == 200 else f"status {exchange.status}"
        return f"not stored: {reason}", wrong

    def _send(self, exchange: Recorded, provider: Provider, prefix: str) -> Response:
        headers = list(exchange.request_headers)
        headers += [
            provider_header
            for provider_header in _client_headers(provider)
            if provider_header[0] not in {name for name, _ in headers}
        ]
        headers.append(("x-cache-namespace", f"exchange {exchange.number}"))
        target = exchange.path if prefix == "anthropic" else f"/{prefix}{exchange.path}"
        with RawConnection(self._proxy.port, deadline=60) as connection:
            response = connection.request(exchange.method, target, headers, exchange.request_body)
            response.read_all()
            return response

    def _compare_feed(
        self, provider: Provider, response: Response, stored: Answer | None, hit: bool
    ) -> Iterator[str]:
        """What `/monitor` says of this call, against the response's headers and, for an answer
        that is stored, against what its body states."""
        event = self._feed.next()
        yield from _compare("monitor: key", response.header("x-cache-key") or "", event.get("key"))
        yield from _compare("monitor: type", response.header("x-cache"), event.get("type"))
        yield from _compare("monitor: from_cache", hit, event.get("from_cache"))
        yield from _compare("monitor: provider", provider.name, event.get("provider"))
        yield from _compare("monitor: stored", stored is not None and not hit, event.get("stored"))
        if stored is None:
            return
        usage = stored.usage
        yield from _compare("monitor: in", usage.input_tokens if usage else 0, event.get("in"))
        yield from _compare("monitor: out", usage.output_tokens if usage else 0, event.get("out"))
        yield from _compare("monitor: snippet", stored.snippet, event.get("snippet"))


def _facts(exchange: Recorded, provider: Provider, endpoint: Endpoint | None) -> Answer | None:
    """What the recorded answer is, read without the proxy; None when it isn't asking a model."""
    if endpoint is None:
        return None
    watcher = provider.watch(endpoint, exchange.status, exchange.content_type)
    watcher.feed(exchange.response_body)
    return watcher.close()


def _compare_request(exchange: Recorded, request: Request) -> Iterator[str]:
    yield from _compare("forwarded method", exchange.method, request.method)
    yield from _compare("forwarded path", exchange.path, request.target)
    yield from _compare("forwarded body", exchange.request_body, request.body)
    leaked = [name for name, _ in request.headers if name.startswith("x-cache")]
    yield from _compare("forwarded x-cache headers", [], leaked)


def _compare(what: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {_short(expected)}, found {_short(found)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"


def _client_headers(provider: Provider) -> list[tuple[str, str]]:
    """Headers that official clients send and the recordings leave out."""
    if provider.name == "anthropic":
        return [("anthropic-version", "2023-06-01"), ("x-api-key", "sk-ant-recorded")]
    name, value = provider.auth_header("recorded-key")
    return [(name.decode(), value.decode())]


def _provider(host: str) -> Provider | None:
    for beginning, name in _PROVIDERS:
        if host.startswith(beginning):
            return by_name(name)
    return next((by_name(name) for ending, name in _ENDINGS if host.endswith(ending)), None)


def _read(file: Path) -> Iterator[Recorded]:
    data = file.read_bytes()
    if file.suffix == ".gz":
        data = gzip.decompress(data)
    for number, line in enumerate(data.splitlines()):
        if line.strip():
            yield _recorded(number, json.loads(line))


def _recorded(number: int, one: dict[str, Any]) -> Recorded:
    return Recorded(
        number=number,
        id=one["id"],
        host=one["host"],
        method=one["method"],
        path=one["path"],
        status=one["status"],
        request_headers=_end_to_end(one["request_headers"]),
        response_headers=_end_to_end(one["response_headers"]),
        request_body=base64.b64decode(one["request_body_b64"] or ""),
        response_body=base64.b64decode(one["response_body_b64"] or ""),
    )


def _end_to_end(headers: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Without those that belong to the recorded connection or moment. Bodies were recorded
    decoded."""
    return tuple((name, value) for name, value in headers.items() if name not in _OF_THE_MOMENT)


def _print_table(outcomes: Counter[tuple[str, str]]) -> None:
    width = max(len(host) for host, _ in outcomes)
    print(f"\n{'host':{width}}  exchanges  outcome")
    for (host, outcome), count in sorted(outcomes.items()):
        print(f"{host:{width}}  {count:9}  {outcome}")
    print()


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the recordings, .jsonl or .jsonl.gz")
    parser.add_argument("--host", nargs="+", help="only exchanges with these hosts")
    parser.add_argument("--verbose", action="store_true", help="a line per exchange")
    options = parser.parse_args(arguments)
    if not options.file.is_file():
        parser.error(f"no such file: {options.file}")
    return options


if __name__ == "__main__":
    sys.exit(main())
