"""Signing with the proxy's own credentials: for which region, and with what the machine has now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from botocore.credentials import Credentials
from support import bedrock_wire as wire
from support.upstream import Request

from llm_cache.exchange.routing import Router
from llm_cache.exchange.signing import RECHECK_SEC, Signer
from llm_cache.exchange.upstream import Upstream, UpstreamFailed
from llm_cache.settings import Settings

TARGET = b"/model/us.amazon.nova-micro-v1%3A0/converse?x=a%20b&y="
BODY = b'{"messages":[]}'
HEADERS = [(b"content-type", b"application/json"), (b"x-amzn-bedrock-trace", b"ENABLED")]


@pytest.fixture
def shared_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credentials file that botocore reads, and nothing else for it to find."""
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return path


def log_in(path: Path, name: str) -> Credentials:
    path.write_text(
        f"[default]\naws_access_key_id={name}\naws_secret_access_key=secret of {name}\n"
    )
    return Credentials(name, f"secret of {name}")


def log_out(path: Path) -> None:
    path.unlink()


async def sign(
    signer: Signer, base_url: str = "https://bedrock-runtime.eu-west-3.amazonaws.com"
) -> dict[str, str]:
    pairs = await signer.signature("bedrock", Upstream.of(base_url), "POST", TARGET, HEADERS, BODY)
    return {name.decode(): value.decode() for name, value in pairs}


def region(signed: Mapping[str, str]) -> str:
    return signed["authorization"].split("/")[2]


async def test_a_signature_covers_the_host_base_path_query_and_body(shared_file: Path) -> None:
    credentials = log_in(shared_file, "AKIAONE")
    url = "http://gateway.example:8080"
    signed = await sign(Signer({"AWS_REGION": "eu-west-1"}), f"{url}/aws/")
    assert set(signed) == {"authorization", "x-amz-date"}
    fields = [*((name.decode(), value.decode()) for name, value in HEADERS), *signed.items()]

    def arrived(target: str, body: bytes) -> Request:
        lines = [f"POST {target} HTTP/1.1", "host: gateway.example:8080"]
        lines += [f"{name}: {value}" for name, value in fields]
        return Request("\r\n".join([*lines, "", ""]).encode(), body, body, 1)

    target = "/aws" + TARGET.decode()
    scope = wire.signed_by(arrived(target, BODY), credentials, url)
    assert scope.split("/")[1:] == ["eu-west-1", "bedrock", "aws4_request"]
    for other, body in ((TARGET.decode(), BODY), (target + "1", BODY), (target, BODY + b" ")):
        with pytest.raises(AssertionError, match="signed"):
            wire.signed_by(arrived(other, body), credentials, url)


@pytest.mark.parametrize(
    ("base_url", "environ", "expected"),
    [
        (
            "https://bedrock-runtime.eu-west-3.amazonaws.com",
            {"AWS_REGION": "us-west-2"},
            "eu-west-3",
        ),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", {}, "us-gov-west-1"),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", {}, "cn-north-1"),
        ("https://vpce-0a1.bedrock-runtime.ap-south-1.vpce.amazonaws.com", {}, "ap-south-1"),
        ("http://127.0.0.1:9000", {"AWS_REGION": "us-west-2"}, "us-west-2"),
        ("http://127.0.0.1:9000", {"AWS_DEFAULT_REGION": "us-west-1"}, "us-west-1"),
        ("http://127.0.0.1:9000", {}, "us-east-1"),
    ],
)
async def test_the_region_is_the_hosts_else_the_environments(
    shared_file: Path, base_url: str, environ: dict[str, str], expected: str
) -> None:
    log_in(shared_file, "AKIAONE")
    assert region(await sign(Signer(environ), base_url)) == expected


async def test_a_login_is_noticed_and_so_is_a_logout(shared_file: Path) -> None:
    now = 1000.0
    signer = Signer({}, clock=lambda: now)

    async def who() -> str:
        return (await sign(signer))["authorization"].split("=")[1].split("/")[0]

    with pytest.raises(UpstreamFailed, match="finds no AWS credentials"):
        await who()
    log_in(shared_file, "AKIAONE")
    assert await who() == "AKIAONE"  # what isn't there is looked for each time
    log_in(shared_file, "AKIATWO")
    assert await who() == "AKIAONE"
    now += RECHECK_SEC + 1
    assert await who() == "AKIATWO"
    log_out(shared_file)
    now += RECHECK_SEC + 1
    with pytest.raises(UpstreamFailed, match="finds no AWS credentials"):
        await who()


async def test_half_a_credential_is_named_and_never_shown(
    shared_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHALF")
    with pytest.raises(UpstreamFailed, match="AWS_SECRET_ACCESS_KEY") as caught:
        await sign(Signer({}))
    assert "AKIAHALF" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "path", "base_url"),
    [
        ({}, b"/model/m/converse", "https://bedrock-runtime.us-east-1.amazonaws.com"),
        (
            {"AWS_REGION": "eu-west-1"},
            b"/model/m/converse",
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
        ),
        (
            {},
            b"/v1/projects/p/locations/us-east5/publishers/anthropic/models/c:rawPredict",
            "https://us-east5-aiplatform.googleapis.com",
        ),
    ],
)
def test_a_request_goes_to_its_regions_host(
    home: Path, environ: dict[str, str], path: bytes, base_url: str
) -> None:
    route = Router(Settings(home=home), environ).route("POST", path, {})
    assert route is not None
    assert route.upstream.base_url == base_url
    ours = Settings(
        home=home, upstreams={"bedrock": "http://b.example", "vertex": "http://b.example"}
    )
    route = Router(ours, environ).route("POST", path, {})
    assert route is not None
    assert route.upstream.base_url == "http://b.example"
