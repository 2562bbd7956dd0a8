"""The guard's decisions over request heads, as tables: no socket, no server.

What it decides is shown on the running proxy in test_hosts_and_origins, test_token and test_paths.
"""

from __future__ import annotations

import pytest

from llm_cache.exchange.heads import merged_headers
from llm_cache.server.guard import Guard, method_refusal, path_problem, split_target

LOOPBACK = Guard(host="127.0.0.1", token=None)


def status(guard: Guard, host: bytes, *, server: str = "127.0.0.1", **fields: str) -> int:
    """What the guard says to a request with this Host; 200 when it lets it in."""
    head = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    scope = {"http_version": "1.1", "server": (server, 4000)}
    refusal = guard.check(scope, {b"host": host, **head}, "http")
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:4000",
        "127.0.0.1:1",
        "127.0.0.1:65535",
        "localhost",
        "localhost:4000",
        "LocalHost:4000",
        "LOCALHOST",
        "[::1]",
        "[::1]:4000",
    ],
)
def test_loopback_names_are_known_with_any_port(host: str) -> None:
    """BAR: host checks by `split(":")[0]` break `[::1]:4000`."""
    assert status(LOOPBACK, host.encode()) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "evil.com",
        "evil.com:4000",
        "127.0.0.1:evil.com",
        "127.0.0.1:4000:evil.com",
        "localhost@evil.com",
        "localhost:4000@evil.com",
        "evil.com@localhost",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "localhostevil.com",
        "evil.com#localhost",
        "evil.com/localhost",
        "localhost/evil.com",
        "localhost?evil.com",
        "localhost evil.com",
        "localhost, evil.com",
        "localhost, localhost",
        "localhost\tevil.com",
        "localhost\n",
        "localhost:4000\n",
        "localhost.",
        "127.0.0.1.",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:99999",
        "localhost:-1",
        "localhost:+80",
        "localhost:4000 ",
        "localhost:\uff14\uff10\uff10\uff10",
        "localhost:0x50",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "::1",
        "[::1",
        "::1]",
        "[::1]evil.com",
        "[::1].evil.com:80",
        "[::ffff:127.0.0.1]",
        "[::1%25lo]",
        "[0:0:0:0:0:0:0:1]:evil",
        "\uff4cocalhost",
        "localhost\x00",
        "xn--localhost-",
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    """BAR: host checks by prefix or `split(":")[0]` let `127.0.0.1:evil.com` through; Hypercorn
    takes an empty or odd Host (`localhost@evil.com`)."""
    assert status(LOOPBACK, host.encode()) == 403


def test_missing_host_is_refused() -> None:
    """HTTP/1.0 may leave it out; a page that rebinds DNS can't."""
    refusal = LOOPBACK.check({"http_version": "1.0"}, {}, "http")
    assert refusal is not None
    assert refusal.status == 403


def test_a_host_that_passed_lets_no_other_spelling_in() -> None:
    """Hosts that passed are remembered; what is remembered is the whole value."""
    guard = Guard(host="127.0.0.1", token=None)
    for host in (b"localhost", b"localhost:4000", b"127.0.0.1"):
        assert status(guard, host) == 200
    assert status(guard, b"localhost:4000x") == 403
    assert status(guard, b"localhost:4000, evil.com") == 403


def test_allowed_hosts_are_known_whatever_their_case() -> None:
    guard = Guard(
        host="127.0.0.1", token=None, allow_hosts=("Cache.Internal", "[2001:db8::5]", "10.0.0.7")
    )
    for host in (b"cache.internal", b"CACHE.internal:8443", b"[2001:DB8::5]:1", b"10.0.0.7:4000"):
        assert status(guard, host) == 200
    for host in (b"x.cache.internal", b"cache.internal.evil.com", b"10.0.0.71"):
        assert status(guard, host) == 403


def test_a_named_host_is_known_by_its_name() -> None:
    assert status(Guard(host="10.0.0.5", token="t"), b"10.0.0.5:4000") == 200
    assert status(Guard(host="2001:db8::1", token="t"), b"[2001:db8::1]:4000") == 200
    assert status(Guard(host="proxy.internal", token="t"), b"PROXY.internal") == 200
    assert status(Guard(host="10.0.0.5", token="t"), b"10.0.0.6") == 403


@pytest.mark.parametrize(
    ("listening_on", "reached_at", "host", "expected"),
    [
        ("0.0.0.0", "192.168.1.5", b"192.168.1.5:4000", 200),
        ("0.0.0.0", "192.168.1.5", b"192.168.1.6:4000", 403),
        ("0.0.0.0", "192.168.1.5", b"evil.com", 403),
        ("0.0.0.0", "192.168.1.5", b"192.168.1.5.evil.com", 403),
        ("0.0.0.0", "192.168.1.5", b"3232235781", 403),  # the same address as a number
        ("::", "2001:db8::9", b"[2001:db8::9]:4000", 200),
        ("::", "2001:db8::9", b"[2001:0db8:0:0::9]", 200),
        ("::", "2001:db8::9", b"[2001:db8::8]:4000", 403),
        # A dual-stack socket shows an IPv4 client's address in IPv6's form (RFC 4291, 2.5.5.2).
        ("::", "::ffff:192.168.1.5", b"192.168.1.5:4000", 200),
        ("::", "::ffff:192.168.1.5", b"192.168.1.6:4000", 403),
        ("127.0.0.1", "127.0.0.1", b"192.168.1.5", 403),
    ],
)
def test_on_every_address_the_one_the_client_reached_is_known(
    listening_on: str, reached_at: str, host: bytes, expected: int
) -> None:
    """An address can't be rebound, only a name can."""
    assert status(Guard(host=listening_on, token="t"), host, server=reached_at) == expected


APP = "https://app.example.com"
OPEN_TO_APP = Guard(host="127.0.0.1", token=None, allow_origins=(APP,))


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:4000", 200),
        ("HTTP://LOCALHOST:4000", 200),
        ("https://localhost:4000", 403),
        ("http://localhost", 403),
        ("http://localhost:4001", 403),
        ("http://127.0.0.1:4000", 403),  # another origin than the Host's
        ("http://localhost:4000.evil.com", 403),
        ("http://localhost:4000/", 403),
        ("null", 403),
        ("", 403),
        ("*", 403),
        ("http://evil.com", 403),
        ("chrome-extension://abcdefgh", 403),
        ("file://", 403),
        (f"{APP}", 200),
        (f"{APP.upper()}", 200),
        (f"{APP}:443", 403),
        (f"{APP}.evil.com", 403),
        ("http://app.example.com", 403),
        (f"{APP}, {APP}", 403),
        (f"{APP} http://evil.com", 403),
    ],
)
def test_origin_is_the_proxys_own_or_an_allowed_one(origin: str, expected: int) -> None:
    """BAR fault 7: any web page could spend the key."""
    assert status(OPEN_TO_APP, b"localhost:4000", origin=origin) == expected
    # A browser says so with both headers; an allowed origin is another site's by nature.
    both = status(OPEN_TO_APP, b"localhost:4000", origin=origin, sec_fetch_site="cross-site")
    assert both == (200 if origin.lower() == APP else 403)
    own = status(OPEN_TO_APP, b"localhost:4000", origin=origin, sec_fetch_site="same-origin")
    assert own == expected


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("same-origin", 200),
        ("none", 200),  # typed by the person
        ("same-site", 403),  # another port of localhost is the same site
        ("cross-site", 403),
        ("", 403),
        ("none, cross-site", 403),
        ("anything", 403),
    ],
)
def test_sec_fetch_site_of_another_site_is_refused(site: str, expected: int) -> None:
    """A page's GET without CORS carries no Origin, but this (W3C Fetch Metadata)."""
    assert status(LOOPBACK, b"localhost:4000", sec_fetch_site=site) == expected


def test_no_origin_is_allowed_by_default() -> None:
    assert not LOOPBACK.origin_allowed(b"http://localhost:4000")
    assert not LOOPBACK.origin_allowed(b"null")
    assert not LOOPBACK.origin_allowed(b"")
    assert OPEN_TO_APP.origin_allowed(APP.encode())


@pytest.mark.parametrize("version", ["0.9", "2", "2.0", "3"])
def test_other_versions_of_http_are_refused(version: str) -> None:
    """BAR: Hypercorn speaks h2c in the clear."""
    refusal = LOOPBACK.check({"http_version": version}, {b"host": b"localhost"}, "http")
    assert refusal is not None
    assert refusal.status == 505


def test_both_lengths_are_refused() -> None:
    """RFC 9112, 6.1. BAR: Hypercorn accepts Content-Length with Transfer-Encoding."""
    assert status(LOOPBACK, b"localhost", content_length="5", transfer_encoding="chunked") == 400


TOKEN = "s3cret-token"


@pytest.mark.parametrize(
    ("headers", "places", "expected"),
    [
        ({"x-cache-auth": TOKEN}, (), True),
        ({"x-cache-auth": TOKEN[:-1]}, (), False),
        ({"x-cache-auth": TOKEN + "x"}, (), False),
        ({"x-cache-auth": TOKEN.upper()}, (), False),
        ({"x-cache-auth": f"Bearer {TOKEN}"}, (), False),
        ({"x-cache-auth": ""}, (), False),
        ({"x-cache-auth": f"{TOKEN}, {TOKEN}"}, (), False),
        ({"x-cache-auth": "s3cret-tökén"}, (), False),
        ({}, (), False),
        ({"x-api-key": TOKEN}, (), False),
        ({"x-api-key": TOKEN}, ("x-api-key", "authorization"), True),
        ({"authorization": f"Bearer {TOKEN}"}, ("x-api-key", "authorization"), True),
        ({"authorization": f"bearer {TOKEN}"}, ("x-api-key", "authorization"), True),
        ({"authorization": f"Basic {TOKEN}"}, ("x-api-key", "authorization"), False),
        ({"authorization": "Bearer "}, ("x-api-key", "authorization"), False),
        ({"x-api-key": "wrong", "x-cache-auth": TOKEN}, ("x-api-key",), True),
        ({"x-api-key": TOKEN, "x-cache-auth": "wrong"}, ("x-api-key",), True),
    ],
)
def test_token_is_taken_whole_and_only_where_it_may_be(
    headers: dict[str, str], places: tuple[str, ...], expected: bool
) -> None:
    guard = Guard(host="127.0.0.1", token=TOKEN)
    fields = {name.encode(): value.encode() for name, value in headers.items()}
    assert guard.token_ok(fields, [name.encode() for name in places]) is expected


def test_without_a_token_everybody_may() -> None:
    assert LOOPBACK.token_ok({})
    assert not LOOPBACK.needs_token
    # An empty value isn't a token that everybody knows.
    assert Guard(host="127.0.0.1", token="").token_ok({b"x-cache-auth": b"anything"})


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages",
        "/v1/files/file%2Fwith%2Fslashes",
        "/model/anthropic.claude-3%3A0/invoke",
        "/v1/models/a.b..c",
        "/v1/...",
        "/v1/%2e%2e%2e",
        "/v1//messages",
        "/v1/files/%41%zz%",
        "/v1/x;param=1,2~'!$&()*+@:",
        "/",
    ],
)
def test_paths_that_mean_one_thing_only_are_in_order(path: str) -> None:
    assert path_problem(path.encode()) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "v1/messages",
        "//evil.com/v1/messages",
        "///evil.com",
        "/v1/../x",
        "/..",
        "/.",
        "/v1/./messages",
        "/v1/messages/..",
        "/%2e%2e/x",
        "/%2E%2E/x",
        "/.%2e/x",
        "/%2e/x",
        "/v1/..%2fx",
        "/v1/%2e%2e%2fx",
        "/v1/..%5cx",
        "/v1/%2e%2e%5Cx",
        "/v1/a%2f..%2fx",
        "/\\evil.com/x",
        "/v1\\..\\x",
        "/v1/%00",
        "/v1/%0d%0aHost:%20evil.com",
        "/v1/%1f",
        "/v1/%7F",
        "/v1/messages#fragment",
        "/v1/a b",
        "/v1/\t",
        "/v1/\x7f",
        "/v1/é",
    ],
)
def test_paths_another_reader_might_take_elsewhere_are_refused(path: str) -> None:
    """BAR: `//evil/x` goes to that host, `/../x` leaves the base path, `path` is decoded."""
    assert path_problem(path.encode()) is not None


def test_a_fragment_in_the_query_is_refused() -> None:
    """RFC 9112, 3.2.1: a target has no fragment."""
    assert path_problem(b"/v1/messages", b"a=/../b&c=//d%2e") is None
    assert path_problem(b"/v1/messages", b"a#b") is not None


@pytest.mark.parametrize(
    ("target", "authority", "path"),
    [
        (b"/v1/messages", None, b"/v1/messages"),
        (b"http://localhost:4000/v1/messages", b"localhost:4000", b"/v1/messages"),
        (b"HTTP://localhost/v1", b"localhost", b"/v1"),
        (b"https://localhost/v1", b"localhost", b"/v1"),
        (b"http://evil.com", b"evil.com", b"/"),
        (b"http:///v1", b"", b"/v1"),
        (b"http://localhost@evil.com/x", b"localhost@evil.com", b"/x"),
        (b"http://evil.com//x", b"evil.com", b"//x"),
        (b"ftp://localhost/x", None, b"ftp://localhost/x"),
        (b"//evil.com/x", None, b"//evil.com/x"),
        (b"*", None, b"*"),
        (b"evil.com:443", None, b"evil.com:443"),
    ],
)
def test_absolute_form_is_taken_apart(target: bytes, authority: bytes | None, path: bytes) -> None:
    """RFC 9112, 3.2.2. BAR: Hypercorn hands the app absolute-form targets as the path."""
    assert split_target(target) == (authority, path)


@pytest.mark.parametrize(
    ("method", "upgrade", "expected"),
    [
        ("GET", b"", None),
        ("POST", b"h2c", None),  # an upgrade that isn't taken up is no fault
        ("PROPFIND", b"", None),
        ("CONNECT", b"", 501),
        ("TRACE", b"", 501),
        ("GET", b"websocket", 426),
        ("GET", b"WebSocket", 426),
    ],
)
def test_tunnels_echoes_and_web_sockets_are_refused(
    method: str, upgrade: bytes, expected: int | None
) -> None:
    refusal = method_refusal(method, {b"upgrade": upgrade})
    assert (None if refusal is None else refusal.status) == expected


def test_a_header_sent_twice_is_one_list() -> None:
    """RFC 9110, 5.3: so that a second Host or Origin can't hide behind the first."""
    merged = merged_headers([(b"origin", b"a"), (b"x", b"1"), (b"origin", b"b")])
    assert merged == {b"origin": b"a, b", b"x": b"1"}
