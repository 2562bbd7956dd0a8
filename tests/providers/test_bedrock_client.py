"""boto3 and Anthropic's Bedrock client at the proxy: a hit is its miss, and each miss is signed.

What always holds here: each request that reaches the upstream is signed anew, by the proxy's own
credentials, for the host it arrived at; botocore's arithmetic checks it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anthropic
import boto3
import pytest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EventStreamError
from support import anthropic_wire
from support import bedrock_wire as wire
from support.proxy import Proxy, clean_environment, running_proxy
from support.raw import exchange
from support.replies import Cut, Framing, Reply, at_byte, json_reply
from support.stage import Stage, assert_same, running_stage
from support.upstream import Upstream

pytestmark = pytest.mark.usefixtures("home")

OWN = Credentials("AKIAPROXYPROXYPROXY", "proxy/secret+key", "proxy/session+token==")
AWS = {
    "AWS_ACCESS_KEY_ID": OWN.access_key,
    "AWS_SECRET_ACCESS_KEY": OWN.secret_key,
    "AWS_SESSION_TOKEN": OWN.token,
    "AWS_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # asked last, at an address that isn't this machine
}
TOOL = wire.tool_use(
    "get_weather", {"city": "Zürich", "note": 'say "hi"\n\\ 🌍', "list": [1, None]}
)
BLOCKS = [{"text": "Grüezi 世界 🌍"}, TOOL]
TOOLS = {
    "tools": [
        {
            "toolSpec": {
                "name": "get_weather",
                "inputSchema": {"json": {"type": "object", "properties": {}}},
            }
        }
    ]
}
CLAUDE_BODY: dict[str, Any] = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(tmp_path_factory.mktemp("bedrock"), AWS) as running:
        yield running
        for call in running.upstream.calls:
            assert_signed(call.request, running.upstream)


def assert_signed(request: Any, upstream: Upstream, service: str = "bedrock") -> None:
    scope = wire.signed_by(request, OWN, upstream.url)
    assert scope.split("/")[1:] == ["eu-central-1", service, "aws4_request"]
    assert request.header("x-amz-security-token") == OWN.token
    assert b"AKIACLIENT" not in request.head


def bedrock(proxy: Proxy, **options: Any) -> Any:
    """A client whose credentials are of no use upstream."""
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=proxy.url,
        region_name="us-west-2",
        aws_access_key_id="AKIACLIENT",
        aws_secret_access_key="client",
        aws_session_token="client",
        config=Config(retries={"total_max_attempts": 1}, **options),
    )


@pytest.fixture
def client(stage: Stage) -> Iterator[Any]:
    made = bedrock(stage.proxy)
    yield made
    made.close()


def label(answer: Any) -> str:
    found: str = answer["ResponseMetadata"]["HTTPHeaders"]["x-cache"]
    return found


def told(answer: Any) -> dict[str, str]:
    """The headers of an answer, without those that tell hit from miss."""
    headers: dict[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
    return {name: v for name, v in headers.items() if name not in ("x-cache", "age", "date")}


def talk(stage: Stage, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": [{"text": stage.prompt()}]}]
    return {"modelId": wire.NOVA, "messages": messages, **fields}


def streamed(pieces: list[bytes]) -> Reply:
    return Reply(
        headers=(*wire.STREAM_HEADERS, *wire.RESPONSE_HEADERS),
        body=tuple(pieces),
        framing=Framing.CHUNKED,
    )


def plain(body: bytes) -> Reply:
    return json_reply(body, headers=wire.RESPONSE_HEADERS)


# converse


def test_converse_is_answered_again_alike(stage: Stage, client: Any) -> None:
    stage.upstream.script(plain(wire.conversed(BLOCKS, wire.tokens(5, 7, read=3))))
    asked = talk(stage, system=[{"text": "Be kind."}], toolConfig=TOOLS)
    miss, hit = client.converse(**asked), client.converse(**asked)
    assert (label(miss), label(hit)) == ("MISS", "HIT")
    assert told(hit) == told(miss)
    assert hit["output"] == miss["output"] == {"message": {"role": "assistant", "content": BLOCKS}}
    assert (hit["stopReason"], hit["usage"]) == ("tool_use", miss["usage"])
    assert told(hit)["x-amzn-requestid"] == wire.RESPONSE_HEADERS[0][1]


def test_converse_stream_is_answered_again_event_by_event(stage: Stage, client: Any) -> None:
    stage.upstream.script(streamed(wire.conversation(BLOCKS)))
    asked = talk(stage, toolConfig=TOOLS)
    seen = []
    for expected in ("MISS", "HIT"):
        answer = client.converse_stream(**asked)
        assert label(answer) == expected
        seen.append((list(answer["stream"]), told(answer)))
    assert seen[1] == seen[0]
    events = seen[0][0]
    deltas = [one["contentBlockDelta"]["delta"] for one in events if "contentBlockDelta" in one]
    assert "".join(delta.get("text", "") for delta in deltas) == BLOCKS[0]["text"]
    written = "".join(delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta)
    assert json.loads(written) == TOOL["toolUse"]["input"]
    assert events[-1]["metadata"]["usage"] == wire.tokens()


def test_a_stream_is_replayed_byte_for_byte(stage: Stage) -> None:
    pieces = wire.conversation(BLOCKS)
    stage.upstream.script(streamed(pieces))
    body = wire.request(stage.prompt())
    headers = [("content-type", "application/json")]
    miss, hit = (
        exchange(stage.proxy.port, "POST", "/model/m/converse-stream", headers, body)
        for _ in range(2)
    )
    assert (miss.header("x-cache"), hit.header("x-cache")) == ("MISS", "HIT")
    assert_same(miss, hit)
    assert hit.body == b"".join(pieces)


# invoke


def invoke(client: Any, body: Any, model: str = wire.CLAUDE) -> tuple[str, Any]:
    answer = client.invoke_model(modelId=model, body=json.dumps(body))
    return label(answer), json.loads(answer["body"].read())


def test_invoke_is_answered_again_alike(stage: Stage, client: Any) -> None:
    document = anthropic_wire.message_document([anthropic_wire.text_block("Grüezi 世界")])
    stage.upstream.script(plain(wire.dump(document)))
    body = {**CLAUDE_BODY, "messages": [{"role": "user", "content": stage.prompt()}]}
    assert invoke(client, body) == ("MISS", document)
    assert invoke(client, body) == ("HIT", document)
    reordered = dict(reversed(body.items()))
    assert invoke(client, reordered) == ("HIT-NORM", document)


def test_embeddings_of_two_models_never_answer_for_each_other(stage: Stage, client: Any) -> None:
    body = {"inputText": stage.prompt()}
    for at, model in enumerate(("amazon.titan-embed-text-v2:0", "amazon.titan-embed-text-v1")):
        document = {"embedding": [0.5 + at], "inputTextTokenCount": 4}
        stage.upstream.script(plain(wire.dump(document)))
        assert invoke(client, body, model) == ("MISS", document)
        assert invoke(client, body, model) == ("HIT", document)


@pytest.mark.parametrize(
    "pieces",
    [
        wire.chunks_of(anthropic_wire.stream("Hello, how are you?")),
        [
            wire.chunk({"messageStart": {"role": "assistant"}}),
            wire.chunk({"contentBlockDelta": {"delta": {"text": "Hi"}, "contentBlockIndex": 0}}),
            wire.chunk({"messageStop": {"stopReason": "end_turn"}}),
            wire.chunk({"metadata": {"usage": wire.tokens()}, **wire.metrics()}),
        ],
        [wire.chunk({"generation": "Hi"}), wire.chunk({"generation": "", **wire.metrics()})],
    ],
    ids=["claude", "nova", "llama"],
)
def test_an_invoke_stream_is_answered_again_event_by_event(
    stage: Stage, client: Any, pieces: list[bytes]
) -> None:
    stage.upstream.script(streamed(pieces))
    body = json.dumps({**CLAUDE_BODY, "prompt": stage.prompt()})
    seen = []
    for expected in ("MISS", "HIT"):
        answer = client.invoke_model_with_response_stream(modelId=wire.CLAUDE, body=body)
        assert label(answer) == expected
        seen.append([one["chunk"]["bytes"] for one in answer["body"]])
    assert seen[1] == seen[0]
    assert len(seen[0]) == len(pieces)


def test_a_model_by_its_arn_is_forwarded_and_keyed_as_it_was_written(
    stage: Stage, client: Any
) -> None:
    stage.upstream.script(plain(wire.conversed("Hi")))
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/mi1dadi0g15f"
    asked = talk(stage, modelId=arn)
    assert [label(client.converse(**asked)) for _ in range(2)] == ["MISS", "HIT"]
    sent = stage.upstream.calls[-1].request.target
    assert sent == f"/model/{arn.replace(':', '%3A').replace('/', '%2F')}/converse"


# Errors


def throttled() -> Reply:
    body = wire.dump({"message": "Too many requests, please wait before trying again."})
    headers = (("x-amzn-errortype", "ThrottlingException:http://internal/"), ("retry-after", "0"))
    return json_reply(body, 429, headers)


def test_an_error_passes_through_and_is_asked_again(stage: Stage, client: Any) -> None:
    asked = talk(stage)
    stage.upstream.script(throttled(), plain(wire.conversed("Hi")))
    with pytest.raises(ClientError) as caught:
        client.converse(**asked)
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert label(client.converse(**asked)) == "MISS"


def test_boto3_retries_a_throttled_call_by_itself(stage: Stage) -> None:
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=stage.proxy.url,
        region_name="us-west-2",
        aws_access_key_id="AKIACLIENT",
        aws_secret_access_key="client",
        config=Config(retries={"total_max_attempts": 3, "mode": "standard"}),
    )
    stage.upstream.script(throttled(), plain(wire.conversed("Hi")))
    before = stage.upstream.call_count
    answer = client.converse(**talk(stage))
    client.close()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1
    assert stage.upstream.call_count == before + 2


def test_an_exception_in_a_stream_reaches_the_client_and_is_not_stored(
    stage: Stage, client: Any
) -> None:
    whole = wire.conversation()
    stage.upstream.script(streamed([*whole[:3], wire.exception()]), streamed(whole))
    asked = talk(stage)
    with (
        closing(client.converse_stream(**asked)["stream"]) as stream,
        pytest.raises(EventStreamError, match=r"throttlingException.*Too many tokens"),
    ):
        list(stream)
    answer = client.converse_stream(**asked)
    assert label(answer) == "MISS"
    assert len(list(answer["stream"])) == len(whole)


def test_a_stream_that_ends_early_is_not_stored(stage: Stage, client: Any) -> None:
    whole = wire.conversation()
    cut = Reply(
        headers=wire.STREAM_HEADERS,
        framing=Framing.CHUNKED,
        body=at_byte(whole, len(b"".join(whole)) - 3, Cut()),
    )
    stage.upstream.script(streamed(whole[:-1]), streamed(whole[:-2]), cut, streamed(whole))
    body = wire.request(stage.prompt())
    labels = []
    for _ in range(5):
        answer = exchange(
            stage.proxy.port,
            "POST",
            "/model/m/converse-stream",
            [("content-type", "application/json")],
            body,
        )
        labels.append(answer.header("x-cache"))
    assert labels == ["MISS", "MISS", "MISS", "MISS", "HIT"]


# Anthropic's client


@pytest.fixture
def claude(stage: Stage) -> Iterator[anthropic.AnthropicBedrock]:
    with anthropic.AnthropicBedrock(
        base_url=stage.proxy.url,
        aws_region="us-west-2",
        aws_access_key="AKIACLIENT",
        aws_secret_key="client",
        max_retries=0,
    ) as made:
        yield made


def question(stage: Stage, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": stage.prompt()}]
    return {"model": wire.CLAUDE, "max_tokens": 100, "messages": messages, **fields}


CLAUDE_TOOL = anthropic_wire.tool_use_block("get_weather", {"city": "Zürich", "days": 3})


def test_anthropics_client_gets_the_same_message(
    stage: Stage, claude: anthropic.AnthropicBedrock
) -> None:
    blocks = [anthropic_wire.text_block("Grüezi"), CLAUDE_TOOL]
    stage.upstream.script(plain(anthropic_wire.message(blocks)))
    asked = question(stage, tools=[{"name": "get_weather", "input_schema": {"type": "object"}}])
    miss = claude.messages.with_raw_response.create(**asked)
    hit = claude.messages.with_raw_response.create(**asked)
    assert [answer.headers["x-cache"] for answer in (miss, hit)] == ["MISS", "HIT"]
    assert hit.parse() == miss.parse()
    assert hit.parse().to_dict() == anthropic_wire.message_document(blocks)


def test_anthropics_client_sees_the_same_events(
    stage: Stage, claude: anthropic.AnthropicBedrock
) -> None:
    blocks = [anthropic_wire.text_block("Grüezi"), CLAUDE_TOOL]
    stage.upstream.script(streamed(wire.chunks_of(anthropic_wire.stream(blocks))))
    asked = question(stage)
    seen = []
    for _ in range(2):
        stream = claude.messages.create(**asked, stream=True)
        seen.append((stream.response.headers["x-cache"], [one.to_dict() for one in stream]))
    assert [label for label, _ in seen] == ["MISS", "HIT"]
    assert seen[1][1] == seen[0][1]
    assert seen[0][1][-1]["type"] == "message_stop"


def test_anthropics_client_gets_an_error_as_it_is(
    stage: Stage, claude: anthropic.AnthropicBedrock
) -> None:
    stage.upstream.script(throttled())
    with pytest.raises(anthropic.RateLimitError, match="Too many requests"):
        claude.messages.create(**question(stage))


# Whose credentials


def test_clients_with_other_signatures_share_answers(stage: Stage, client: Any) -> None:
    stage.upstream.script(plain(wire.conversed("Hi")))
    asked = talk(stage)
    other = boto3.client(
        "bedrock-runtime",
        endpoint_url=stage.proxy.url,
        region_name="ap-south-1",
        aws_access_key_id="AKIACLIENT2",
        aws_secret_access_key="other",
    )
    assert [label(one.converse(**asked)) for one in (client, other)] == ["MISS", "HIT"]
    other.close()


def test_usage_and_price_are_counted(stage: Stage, client: Any) -> None:
    stage.upstream.script(plain(wire.conversed("Hi", wire.tokens(1000, 500))))
    asked = talk(stage)
    before = stage.proxy.stats()
    client.converse(**asked)
    client.converse(**asked)
    after = stage.proxy.stats()
    assert after["tokens_spent"] - before["tokens_spent"] == 1500
    assert after["tokens_saved"] - before["tokens_saved"] == 1500
    spent, saved = (after[name] - before[name] for name in ("usd_spent", "usd_saved"))
    assert spent == pytest.approx(saved) == pytest.approx(0.035e-3 + 0.07e-3)


@pytest.fixture
def upstream_url(upstream: Upstream) -> dict[str, str]:
    return {"CACHE_UPSTREAM_BEDROCK": upstream.url, "AWS_EC2_METADATA_DISABLED": "true"}


def keyed(proxy: Proxy, key: str, body: bytes) -> Any:
    headers = [("content-type", "application/json"), ("authorization", f"Bearer {key}")]
    return exchange(proxy.port, "POST", "/model/m/converse", headers, body)


def test_an_api_key_passes_through_unsigned_and_splits_the_cache(
    tmp_path: Path, upstream: Upstream, upstream_url: dict[str, str]
) -> None:
    upstream.default = plain(wire.conversed("Hi"))
    with running_proxy(tmp_path / "home", AWS | upstream_url) as proxy:
        body = wire.request()
        labels = [keyed(proxy, key, body).header("x-cache") for key in ("one", "one", "two")]
    assert labels == ["MISS", "HIT", "MISS"]
    sent = [call.request for call in upstream.calls]
    assert [one.header("authorization") for one in sent] == ["Bearer one", "Bearer two"]
    assert all(one.header("x-amz-date") is None for one in sent)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"BEDROCK_API_KEY_REAL": "real-key"}, "real-key"),
        ({"AWS_BEARER_TOKEN_BEDROCK": "found-key"}, "found-key"),
        ({**AWS, "AWS_BEARER_TOKEN_BEDROCK": "found-key"}, "found-key"),
    ],
)
def test_the_proxys_own_api_key_stands_in_place_of_the_signature(
    tmp_path: Path,
    upstream: Upstream,
    upstream_url: dict[str, str],
    settings: dict[str, str],
    key: str,
) -> None:
    upstream.default = plain(wire.conversed("Hi"))
    with running_proxy(tmp_path / "home", upstream_url | settings) as proxy:
        client = bedrock(proxy)
        client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "x"}]}])
        client.close()
        assert key not in proxy.log()
    (call,) = upstream.calls
    assert call.request.header("authorization") == f"Bearer {key}"
    for name in ("x-amz-date", "x-amz-security-token", "x-amz-content-sha256"):
        assert call.request.header(name) is None


def test_the_proxys_token_may_come_as_an_api_key_and_ends_there(
    tmp_path: Path, upstream: Upstream, upstream_url: dict[str, str]
) -> None:
    upstream.default = plain(wire.conversed("Hi"))
    settings = AWS | upstream_url | {"CACHE_AUTH_TOKEN": "the-token"}
    with running_proxy(tmp_path / "home", settings) as proxy:
        assert keyed(proxy, "wrong", wire.request()).status == 401
        assert keyed(proxy, "the-token", wire.request()).status == 200
    (call,) = upstream.calls
    assert b"the-token" not in call.request.head
    assert_signed(call.request, upstream)


def test_without_credentials_the_client_is_told_what_to_do_and_nothing_is_stored(
    tmp_path: Path, upstream: Upstream, upstream_url: dict[str, str]
) -> None:
    with running_proxy(tmp_path / "home", upstream_url) as proxy:
        client = bedrock(proxy)
        asked = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "x"}]}]}
        for call in (client.converse, client.converse_stream):
            with pytest.raises(ClientError, match="AWS_ACCESS_KEY_ID") as caught:
                call(**asked)
            assert caught.value.response["Error"]["Code"] == "upstream_error"
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 502
        client.close()
        assert proxy.stats()["entries"] == 0
        assert "finds no AWS credentials" in proxy.log()
    assert upstream.call_count == 0


def test_credentials_of_a_profile_are_found_and_a_missing_profile_is_named(
    tmp_path: Path, upstream: Upstream, upstream_url: dict[str, str]
) -> None:
    upstream.default = plain(wire.conversed("Hi"))
    (tmp_path / "aws").write_text(
        f"[work]\naws_access_key_id={OWN.access_key}\naws_secret_access_key={OWN.secret_key}\n"
        f"aws_session_token={OWN.token}\n"
    )
    settings = upstream_url | {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws"),
        "AWS_REGION": "eu-central-1",
    }
    with running_proxy(tmp_path / "one", settings | {"AWS_PROFILE": "work"}) as proxy:
        client = bedrock(proxy)
        client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "x"}]}])
        client.close()
    assert_signed(upstream.calls[0].request, upstream)
    with running_proxy(tmp_path / "two", settings | {"AWS_PROFILE": "gone"}) as proxy:
        client = bedrock(proxy)
        with pytest.raises(ClientError, match=r"profile \(gone\)"):
            client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "x"}]}])
        client.close()


def test_replay_only_names_the_key_in_a_form_that_boto3_reads(stage: Stage, client: Any) -> None:
    def only_stored(request: Any, **_: Any) -> None:
        request.headers["x-cache-mode"] = "replay"

    client.meta.events.register("before-sign.bedrock-runtime.*", only_stored)
    with pytest.raises(ClientError, match=r"\(cache_miss\).*: [0-9a-f]{64} \(POST /model/"):
        client.converse(**talk(stage))


def test_mantle_is_signed_for_its_own_name(tmp_path: Path, upstream: Upstream) -> None:
    upstream.default = plain(anthropic_wire.message("Hi"))
    settings = AWS | {"CACHE_UPSTREAM_MANTLE": upstream.url}
    with (
        running_proxy(tmp_path / "home", settings) as proxy,
        anthropic.AnthropicBedrockMantle(
            base_url=f"{proxy.url}/mantle/anthropic",
            aws_region="us-west-2",
            aws_access_key="AKIACLIENT",
            aws_secret_key="client",
        ) as claude,
    ):
        messages: Any = [{"role": "user", "content": "Say hello."}]
        for expected in ("MISS", "HIT"):
            answer = claude.messages.with_raw_response.create(
                model="claude-sonnet-5", max_tokens=100, messages=messages
            )
            assert answer.headers["x-cache"] == expected
            assert answer.parse().to_dict() == anthropic_wire.message_document("Hi")
    (call,) = upstream.calls
    assert call.request.target == "/anthropic/v1/messages"
    assert_signed(call.request, upstream, "bedrock-mantle")


def test_botocore_is_not_imported_before_it_is_needed(home: Path) -> None:
    code = "import sys, llm_cache.server.serve; sys.exit('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(home), check=False)
    assert done.returncode == 0


def test_without_botocore_the_client_is_told_how_to_install_it(
    tmp_path: Path, upstream: Upstream, upstream_url: dict[str, str]
) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "botocore").mkdir(parents=True)
    (hidden / "botocore" / "__init__.py").write_text("raise ImportError('not installed')\n")
    settings = AWS | upstream_url | {"PYTHONPATH": str(hidden)}
    with running_proxy(tmp_path / "home", settings) as proxy:
        client = bedrock(proxy)
        with pytest.raises(ClientError, match=r"pip install 'llm-cache\[bedrock\]'"):
            client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "x"}]}])
        client.close()
    shutil.rmtree(hidden)
    assert upstream.call_count == 0
