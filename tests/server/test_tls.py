"""HTTPS on both sides: what the proxy serves, and whom it believes upstream.

Certificates are made by the `openssl` program and trusted by nobody but the test's client.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.anthropic_wire import message, request
from support.proxy import COMMAND, Proxy, anthropic_headers, clean_environment
from support.raw import RawConnection, request_bytes
from support.replies import json_reply
from support.upstream import Upstream, unused_port, wait_until

from llm_cache.server.certificate import names_of

if TYPE_CHECKING:
    from support.proxy import ProxyFactory

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

TOKEN = "tok-tls"


class Pair(NamedTuple):
    """A self-signed certificate for localhost and 127.0.0.1, and its key."""

    certificate: Path
    key: Path


def make_pair(folder: Path, name: str, names: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}"),
            *("-keyout", str(pair.key), "-out", str(pair.certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("certificates"), "proxy")


@pytest.fixture
def secure(home: Path, upstream: Upstream, pair: Pair) -> Iterator[Proxy]:
    """A running proxy that serves HTTPS."""
    upstream.default = json_reply(message())
    settings = {
        "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
        "CACHE_TLS_CERTFILE": str(pair.certificate),
        "CACHE_TLS_KEYFILE": str(pair.key),
        "CACHE_AUTH_TOKEN": TOKEN,
        "CACHE_CLIENT_TIMEOUT_SEC": "2",
    }
    proxy = Proxy(home, settings)
    proxy.start(wait=False)
    try:
        wait_until(lambda: "listens on https://localhost:" in proxy.output(), "HTTPS", 20)
        yield proxy
    finally:
        proxy.close()
    assert not proxy.trouble(), proxy.output()


def client_context(pair: Pair, *protocols: str) -> ssl.SSLContext:
    """Believes in exactly this certificate, and checks the host name."""
    context = ssl.create_default_context(cafile=str(pair.certificate))
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


@contextmanager
def https(
    proxy: Proxy, pair: Pair, *protocols: str, host: str = "localhost"
) -> Iterator[ssl.SSLSocket]:
    address = "::1" if host == "::1" else "127.0.0.1"
    context = client_context(pair, *protocols)
    with (
        socket.create_connection((address, proxy.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        yield secured


def ask(secured: ssl.SSLSocket, *fields: tuple[str, str], method: str = "POST") -> bytes:
    """Everything the proxy says to a model call that closes the connection."""
    headers = [*anthropic_headers(), ("connection", "close"), *fields]
    secured.sendall(request_bytes(method, "/v1/messages", "localhost", headers, request("TLS")))
    said = b""
    while data := secured.recv(65536):
        said += data
    return said


def test_https_is_served_with_the_same_answers(secure: Proxy, pair: Pair) -> None:
    for label in (b"x-cache: MISS", b"x-cache: HIT"):
        with https(secure, pair) as secured:
            assert secured.version() in ("TLSv1.2", "TLSv1.3")
            said = ask(secured, ("x-cache-auth", TOKEN))
            assert label in said
            assert said.endswith(message())


def test_https_is_served_on_both_loopback_addresses(secure: Proxy, pair: Pair) -> None:
    with https(secure, pair, host="::1") as secured:
        assert b" 200 " in ask(secured, ("x-cache-auth", TOKEN))


def test_https_keeps_the_guards(secure: Proxy, pair: Pair, upstream: Upstream) -> None:
    """Host, Origin (whose scheme is https now) and token."""
    own = f"https://localhost:{secure.port}"
    for fields, status in (
        ([("x-cache-auth", "wrong")], b" 401 "),
        ([("x-cache-auth", TOKEN), ("host", "evil.com")], b" 403 "),
        ([("x-cache-auth", TOKEN), ("origin", "https://evil.com")], b" 403 "),
        ([("x-cache-auth", TOKEN), ("origin", own.replace("https", "http"))], b" 403 "),
        ([("x-cache-auth", TOKEN), ("origin", own), ("host", own[8:])], b" 200 "),
    ):
        with https(secure, pair) as secured:
            assert status in ask(secured, *fields)[:20]
    assert upstream.call_count == 1


def test_the_names_of_the_certificate_are_names_of_the_proxy(
    home: Path, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.default = json_reply(message())
    names = "DNS:LLM.example,DNS:*.wild.example,IP:10.0.0.7,IP:fd00::7,DNS:localhost"
    pair = make_pair(tmp_path, "team", names)
    assert names_of(pair.certificate) == ("llm.example", "10.0.0.7", "[fd00::7]", "localhost")
    settings = {
        "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
        "CACHE_TLS_CERTFILE": str(pair.certificate),
        "CACHE_TLS_KEYFILE": str(pair.key),
        "CACHE_AUTH_TOKEN": TOKEN,
    }
    proxy = Proxy(home, settings)
    proxy.start(wait=False)
    try:
        wait_until(lambda: "listens on https://localhost:" in proxy.output(), "HTTPS", 20)
        for host, status in (
            ("llm.example", b" 200 "),
            ("10.0.0.7:4000", b" 200 "),
            ("[fd00::7]", b" 200 "),
            ("a.wild.example", b" 403 "),
            ("other.example", b" 403 "),
        ):
            with https(proxy, pair) as secured:
                said = ask(secured, ("x-cache-auth", TOKEN), ("host", host))
                assert status in said[:20], host
    finally:
        proxy.close()


@pytest.mark.parametrize("cut", [0, 40, 200, 400])
def test_a_file_that_is_no_certificate_has_no_names(pair: Pair, tmp_path: Path, cut: int) -> None:
    assert names_of(tmp_path / "none") == ()
    broken = tmp_path / "broken.crt"
    broken.write_text(pair.certificate.read_text()[:cut] + "\n-----END CERTIFICATE-----\n")
    assert names_of(broken) == ()


def test_https_speaks_http_1_1_only(secure: Proxy, pair: Pair) -> None:
    """BAR: Hypercorn would speak HTTP/2. A client that offers both gets HTTP/1.1."""
    with https(secure, pair, "h2", "http/1.1") as secured:
        assert secured.selected_alpn_protocol() == "http/1.1"
        assert b" 200 " in ask(secured, ("x-cache-auth", TOKEN))
    try:
        with https(secure, pair, "h2") as secured:  # who offers nothing else gets no HTTP/2 either
            assert secured.selected_alpn_protocol() is None
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04" + bytes(5))
            assert secured.recv(100).startswith(b"HTTP/1.1 505 ")
    except ssl.SSLError:
        pass  # a handshake that fails is an answer as well (RFC 7301, 3.2)


def test_old_protocols_are_not_spoken(secure: Proxy, pair: Pair) -> None:
    context = client_context(pair)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_plain_http_and_broken_handshakes_get_nothing_and_disturb_nobody(
    secure: Proxy, pair: Pair
) -> None:
    """A client that speaks HTTP to the HTTPS port, garbage, a hello and then silence."""
    for data in (
        request_bytes("GET", "/stats", "localhost", [("x-cache-auth", TOKEN)]),
        b"\x16\x03\x01\x00\x05hello",
        b"garbage\r\n\r\n",
    ):
        with RawConnection(secure.port) as connection:
            connection.send(data)
            assert b"HTTP/1.1 2" not in connection.wait_closed()
    with RawConnection(secure.port) as silent:
        silent.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        with https(secure, pair) as secured:
            assert b" 200 " in ask(secured, ("x-cache-auth", TOKEN))
        silent.wait_closed()  # after CACHE_CLIENT_TIMEOUT_SEC


def test_a_command_of_the_same_home_talks_to_it(secure: Proxy) -> None:
    """`status` trusts exactly the configured certificate."""
    status = subprocess.run(
        [*COMMAND[:-1], "status", "--json"],
        env=clean_environment(secure.home, secure.settings),
        capture_output=True,
        timeout=30,
        check=True,
    )
    told = json.loads(status.stdout)
    assert told["up"] is True
    assert told["pid"] == secure.pid


@pytest.mark.parametrize(
    "fault",
    ["no such file", "only one", "not PEM", "another key", "swapped", "empty", "passphrase"],
)
def test_wrong_files_refuse_to_start_in_one_clear_line(
    home: Path, pair: Pair, tmp_path: Path, fault: str
) -> None:
    certificate, key = pair
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"" if fault == "empty" else b"\x00\xffnot a certificate\n" * 9)
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-in", key, "-out", locked, "-aes256", "-passout", "pass:secret"],
        check=True,
        capture_output=True,
    )
    certfile, keyfile = {
        "no such file": (tmp_path / "none.crt", key),
        "only one": (certificate, None),
        "not PEM": (garbage, key),
        "empty": (garbage, key),
        "another key": (certificate, make_pair(tmp_path, "other").key),
        "swapped": (key, certificate),
        "passphrase": (certificate, locked),
    }[fault]
    settings = {"CACHE_PORT": str(unused_port()), "CACHE_TLS_CERTFILE": str(certfile)}
    if keyfile is not None:
        settings["CACHE_TLS_KEYFILE"] = str(keyfile)
    ended = subprocess.run(
        COMMAND,
        env=clean_environment(home, settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert "CACHE_TLS_" in lines[0]
    assert ("not this certificate's" in lines[0]) is (fault == "another key")
    assert "listens" not in ended.stdout


@contextmanager
def https_upstream(pair: Pair) -> Iterator[int]:
    """A port that answers every HTTPS request right, with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    listener = socket.create_server(("127.0.0.1", 0))
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
    body = message()

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(accepted, server_side=True) as secured:
                    got = b""
                    while not got.endswith(request()) and (data := secured.recv(65536)):
                        got += data
                    length = b"content-length: %d\r\n\r\n" % len(body)
                    secured.sendall(answer + length + body)
            except OSError:
                accepted.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def test_an_upstream_that_nobody_vouches_for_gets_no_key(proxy: ProxyFactory, pair: Pair) -> None:
    """SPEC 8: upstream TLS is verified; the key isn't sent before."""
    with https_upstream(pair) as port:
        running = proxy(CACHE_UPSTREAM_ANTHROPIC=f"https://localhost:{port}")
        answer = running.ask(request())
        assert (answer.status, answer.header("x-cache")) == (502, "ERROR")
        assert b"certificate" in answer.body.lower()
        assert json.loads(answer.body)["type"] == "error"


def test_an_upstream_with_another_hosts_certificate_gets_no_key(
    proxy: ProxyFactory, tmp_path: Path
) -> None:
    """Vouched for, but for another name; one that is vouched for under its own is believed."""
    other = make_pair(tmp_path, "other", "DNS:other.example.com")
    with https_upstream(other) as port:
        running = proxy(
            CACHE_UPSTREAM_ANTHROPIC=f"https://localhost:{port}",
            SSL_CERT_FILE=str(other.certificate),
        )
        answer = running.ask(request())
        assert answer.status == 502
        assert b"mismatch" in answer.body.lower()
        running.stop()
    own = make_pair(tmp_path, "own")
    with https_upstream(own) as port:
        running = proxy(
            CACHE_UPSTREAM_ANTHROPIC=f"https://localhost:{port}",
            SSL_CERT_FILE=str(own.certificate),
        )
        assert running.ask(request()).body == message()
