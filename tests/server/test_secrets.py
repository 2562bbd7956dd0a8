"""No key and no token anywhere but where it belongs: upstream's request and the person's `.env`.

Canaries go through everything that can happen, at CACHE_LOG_LEVEL=debug; then every byte the proxy
wrote or said is searched for them (SPEC 8).
"""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import zstandard
from support.anthropic_wire import error, error_event, message, request, stream
from support.proxy import (
    COMMAND,
    MonitorFeed,
    Proxy,
    anthropic_headers,
    clean_environment,
    running_proxy,
)
from support.raw import RawConnection, Response, exchange, request_bytes
from support.replies import Cut, Raw, Reply, Reset, at_byte, json_reply, sse_reply, wire_reply
from support.upstream import Upstream, unused_port, wait_until

if TYPE_CHECKING:
    from support.proxy import ProxyFactory

CLIENT_KEY = "sk-ant-canary-client-7d1e"
REAL_KEY = "sk-ant-canary-real-0b6f"
TOKEN = "tok-canary-token-93aa"
BEARER = "sk-ant-oat-canary-bearer-c4d8"
CANARIES = (CLIENT_KEY, REAL_KEY, TOKEN, BEARER)

WITH_UMASK_0 = (
    "import os, sys; os.umask(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)

Fields = list[tuple[str, str]]


class Setup(NamedTuple):
    """A proxy and how a client of it says who it is."""

    settings: dict[str, str]
    identities: list[Fields]


SETUPS = {
    "clients bring their keys": Setup(
        {"CACHE_AUTH_TOKEN": TOKEN},
        [
            [("x-cache-auth", TOKEN), ("x-api-key", CLIENT_KEY)],
            [("x-cache-auth", TOKEN), ("authorization", f"Bearer {BEARER}")],
        ],
    ),
    "a real key": Setup(
        {"CACHE_AUTH_TOKEN": TOKEN, "ANTHROPIC_API_KEY_REAL": REAL_KEY},
        [
            [("x-cache-auth", TOKEN), ("x-api-key", CLIENT_KEY)],
            [("x-api-key", TOKEN)],
            [("authorization", f"Bearer {TOKEN}")],
        ],
    ),
}


@pytest.fixture(scope="module", params=list(SETUPS.values()), ids=list(SETUPS))
def aftermath(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, list[bytes]]]:
    """A proxy that everything has happened to, and all it said but to the key's own client."""
    setup: Setup = request.param
    home = tmp_path_factory.mktemp("secrets") / "home"
    with Upstream(json_reply(message())) as upstream:
        settings = {
            "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
            "CACHE_LOG_LEVEL": "debug",
            "CACHE_MAX_REQUEST_BYTES": "2000",
            **setup.settings,
        }
        with running_proxy(home, settings) as proxy:
            feed = MonitorFeed(proxy.port, [("x-cache-auth", TOKEN)])
            said: list[bytes] = []
            for number, who in enumerate(setup.identities):
                said += everything(proxy, upstream, who, f"{number}")
            for path in ("/stats", "/metrics", "/cache/stats", "/health"):
                said.append(exchange(proxy.port, "GET", path, [("x-cache-auth", TOKEN)]).body)
            said += [repr(feed.next()).encode() for _ in range(12)]
            feed.close()
            assert upstream.call_count > 10
            yield proxy, said


def everything(proxy: Proxy, upstream: Upstream, who: Fields, tag: str) -> list[bytes]:
    """One client's hits, misses, errors and refusals; the bodies of all answers but those in which
    the upstream itself tells the client its key."""
    base: Fields = [("content-type", "application/json"), ("anthropic-version", "2023-06-01")]
    said: list[bytes] = []

    def ask(prompt: str, *fields: tuple[str, str], path: str = "/v1/messages") -> Response:
        answer = exchange(
            proxy.port, "POST", path, [*base, *who, *fields], request(f"{tag} {prompt}")
        )
        said.append(answer.head + answer.body)
        return answer

    def upstream_says(reply: Reply, prompt: str) -> Response:
        upstream.script(reply)
        return ask(prompt)

    assert ask("hello").header("x-cache") == "MISS"
    assert ask("hello").header("x-cache") == "HIT"
    assert ask("hello", ("x-cache-mode", "bypass")).header("x-cache") == "BYPASS"
    assert ask("never asked", ("x-cache-mode", "replay")).status == 504
    assert ask("hello", ("x-cache-mode", "nonsense")).status == 400
    assert ask("hello", ("x-cache-ttl", "never")).status == 400
    assert ask("y" * 3000).status == 413
    assert ask("hello", ("host", "evil.com")).status == 403
    assert ask("hello", ("origin", "http://evil.com")).status == 403
    assert ask("hello", path="/nowhere/../x").status == 400
    assert upstream_says(sse_reply(stream("Hi")), "streamed").status == 200

    # The upstream fails, before its answer and within it.
    for at, reply in enumerate(
        [
            Reply(before=(Cut(),)),
            Reply(before=(Reset(),)),
            Reply(before=(Raw(b"garbage\r\n\r\n"), Cut())),
            Reply(body=at_byte([message()], 20, Cut())),
            Reply(body=at_byte([message()], 20, Reset())),
            sse_reply(at_byte(stream("Hi"), 100, Cut())),
            json_reply(error("overloaded_error", "busy"), status=529),
        ]
    ):
        upstream_says(reply, f"fault {at}")

    # The upstream tells the client its own credentials, in every place it has.
    for at, canary in enumerate(CANARIES):
        refused = error("authentication_error", f"invalid x-api-key {canary}")
        mark = len(said)
        passed_on = upstream_says(json_reply(refused, status=401), f"echo {at}")
        assert passed_on.body == refused  # untouched
        late = [*stream("Hi")[:-1], error_event("api_error", f"key {canary}")]
        upstream_says(sse_reply(late), f"late echo {at}")
        upstream_says(json_reply(f"not JSON, key {canary}".encode()), f"odd echo {at}")
        del said[mark:]
        # Bytes that aren't HTTP: what they hold is not for the log, which explains them.
        for number, head in enumerate(
            [
                f"x-api-key: {canary}\r\n\r\n",
                f"HTTP/1.1 200 OK\r\n{canary}\r\n\r\n",
                f"HTTP/1.1 200 OK\r\nx key: {canary}\r\n\r\n",
                f"HTTP/1.1 200 OK\r\ncontent-length: {canary}\r\n\r\n",
                f"HTTP/1.1 200 OK\r\ntransfer-encoding: {canary}\r\n\r\n",
                f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{canary}\r\n",
            ]
        ):
            broken = wire_reply(head.encode(), Cut())
            assert upstream_says(broken, f"raw echo {at} {number}").status in (200, 502)

    # The client itself breaks off, or isn't understood.
    for raw in (
        request_bytes("POST", "/v1/messages", "localhost", [*base, *who], b"cut")[:-1],
        request_bytes("TRACE", "/v1/messages", "localhost", [*base, *who]),
        request_bytes("GET", "/v1/x", "localhost", [("x bad", who[0][1]), *who]),
        request_bytes("GET", f"/v1/{who[-1][1]}/..", "localhost", who).replace(b"Bearer ", b""),
        f"{who[0][1]}\r\n\r\n".encode(),
    ):
        with RawConnection(proxy.port) as connection:
            connection.send(raw)
            connection.half_close()
            said.append(connection.wait_closed())
    upstream.refuse()
    upstream.drop_connections()
    assert ask("is nobody there?").status == 502
    upstream.listen()
    return said


def spellings(canary: str) -> list[bytes]:
    """The ways in which bytes of a secret could be written down."""
    plain = canary.encode()
    return [
        plain,
        plain.hex().encode(),
        base64.b64encode(plain).rstrip(b"=")[:-1],
        canary.encode("utf-16-le"),
        canary.replace("-", "%2D").encode(),
    ]


def assert_no_canary(data: bytes, where: str) -> None:
    for canary in CANARIES:
        for spelling in spellings(canary):
            at = data.find(spelling)
            assert at < 0, f"{canary} in {where}: {data[max(0, at - 80) : at + 80]!r}"


def test_no_file_of_the_home_holds_a_secret(aftermath: tuple[Proxy, list[bytes]]) -> None:
    """Log, index, write-ahead log, blobs (decompressed) and pid file."""
    proxy, _ = aftermath
    proxy.get("/stats", {"x-cache-auth": TOKEN})  # everything has been written then
    kinds = set()
    for path in sorted(proxy.home.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        assert_no_canary(data, str(path))
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            assert_no_canary(data, f"{path}, decompressed")
        kinds.add(path.suffix or path.name)
    assert {".log", ".zst", ".pid"} <= kinds
    assert any("wal" in kind or "sqlite" in kind or "db" in kind for kind in kinds), kinds
    assert "refused: 403" in proxy.log()  # debug lines are there


def test_nothing_the_proxy_says_holds_a_secret(aftermath: tuple[Proxy, list[bytes]]) -> None:
    """Answers, refusals, /stats, /metrics, /monitor, stdout and stderr, command line."""
    proxy, said = aftermath
    assert len(said) > 50
    for answer in said:
        assert_no_canary(answer, "an answer")
    assert_no_canary(proxy.output().encode(), "stdout or stderr")
    assert_no_canary(Path(f"/proc/{proxy.pid}/cmdline").read_bytes(), "the command line")
    comm = [path.read_bytes() for path in Path(f"/proc/{proxy.pid}/task").glob("*/comm")]
    assert_no_canary(b"".join(comm), "a thread's name")


def test_echoed_errors_are_told_apart_in_the_log(aftermath: tuple[Proxy, list[bytes]]) -> None:
    """What was kept out of the log left enough to find a fault by."""
    proxy, _ = aftermath
    log = proxy.log()
    for trace in (" 401 ", " 529 ", "broke off", "can't be reached", "refused: 413"):
        assert trace in log, trace


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ANTHROPIC_API_KEY_REAL": f"{REAL_KEY} with a space"}, "ANTHROPIC_API_KEY_REAL"),
        ({"CACHE_AUTH_TOKEN": f"{TOKEN}\u00e9"}, "CACHE_AUTH_TOKEN"),
        (
            {"CACHE_UPSTREAM_ANTHROPIC": f"https://user:{REAL_KEY}@api.example.com"},
            "CACHE_UPSTREAM_ANTHROPIC",
        ),
        (
            {"CACHE_UPSTREAM": f"https://api.example.com?key={REAL_KEY}"},
            "CACHE_UPSTREAM",
        ),
    ],
)
def test_a_wrong_setting_is_named_and_a_secret_in_it_is_not_shown(
    home: Path, settings: dict[str, str], named: str
) -> None:
    ended = subprocess.run(
        COMMAND,
        env=clean_environment(home, settings),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert named.encode() in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert_no_canary(ended.stdout + ended.stderr, "the error")


def test_secrets_of_an_env_file_stay_there(proxy: ProxyFactory, home: Path) -> None:
    home.mkdir(mode=0o700)
    env_file = home / ".env"
    env_file.write_text(f"ANTHROPIC_API_KEY_REAL={REAL_KEY}\nCACHE_AUTH_TOKEN={TOKEN}\n")
    env_file.chmod(0o600)
    running = proxy(CACHE_LOG_LEVEL="debug")
    assert exchange(running.port, "GET", "/stats", [("x-api-key", TOKEN)]).status == 200
    running.stop()
    for path in home.rglob("*"):
        if path.is_file() and path != env_file:
            assert_no_canary(path.read_bytes(), str(path))
    assert_no_canary(running.output().encode(), "stdout or stderr")


def test_everything_in_the_home_is_private_whatever_the_umask(
    home: Path, upstream: Upstream
) -> None:
    """SPEC 8: 0700 and 0600. BAR fault 9: llm-cache-proxy writes files 0644."""
    upstream.default = json_reply(message())
    settings = {"CACHE_UPSTREAM_ANTHROPIC": upstream.url}
    port = unused_port()
    environment = clean_environment(home, {**settings, "CACHE_PORT": str(port)})
    wrapped = [sys.executable, "-c", WITH_UMASK_0, "-m", "llm_cache"]
    process = subprocess.Popen([*wrapped, "run"], env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for_health(port)
        for prompt in ("One", "One", "Two"):
            answer = exchange(port, "POST", "/v1/messages", anthropic_headers(), request(prompt))
            assert answer.status == 200
        assert exchange(port, "GET", "/stats").status == 200
        check_modes(home)
    finally:
        process.terminate()
        assert process.wait(15) == 0
    check_modes(home)
    # A command that reads the store with no proxy up creates nothing others can read either.
    subprocess.run(
        [*wrapped, "stats"], env=environment, stdout=subprocess.DEVNULL, timeout=30, check=True
    )
    check_modes(home)


def wait_for_health(port: int) -> None:
    def healthy() -> bool:
        try:
            return exchange(port, "GET", "/health").status == 200
        except OSError:
            return False

    wait_until(healthy, "the proxy to answer", 20)


def check_modes(home: Path) -> None:
    paths = [home, *home.rglob("*")]
    assert len(paths) > 6
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path}: {mode:o}"
