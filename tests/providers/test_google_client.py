"""google-genai and Claude's Vertex client at the proxy: a hit is its miss, a key stays secret."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials
from support import anthropic_wire
from support import gemini_wire as wire
from support.proxy import Proxy, running_proxy
from support.raw import Response, exchange
from support.replies import Cut, Framing, Reply, at_byte, json_reply
from support.stage import Stage, assert_same, running_stage
from support.upstream import Upstream

pytestmark = pytest.mark.usefixtures("home")

KEY = "AIzaSyTestKey-0123456789abcdefghijklmno"
GENERATE = f"{wire.PATH}:generateContent"
STREAM = f"{wire.PATH}:streamGenerateContent"
JSON = [("content-type", "application/json")]
PARTS = [
    wire.thought("Let me think. 🤔"),
    wire.text("Grüezi 世界 🌍 \u2028"),
    wire.call("get_weather", city="Zürich", days=3, note='say "hi"\n\\', list=[1, [2.5, None]]),
]
TOKENS = wire.usage(prompt=11, candidates=3, thoughts=4, cached=7)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(tmp_path_factory.mktemp("google")) as running:
        yield running


@pytest.fixture
def client(stage: Stage) -> Iterator[genai.Client]:
    with genai.Client(api_key=KEY, http_options=options(stage.proxy)) as official:
        yield official


@pytest.fixture
async def async_client(stage: Stage) -> AsyncIterator[Any]:
    async with genai.Client(api_key=KEY, http_options=options(stage.proxy)).aio as official:
        yield official


@pytest.fixture
def vertex(stage: Stage) -> Iterator[genai.Client]:
    token: Any = Credentials
    with genai.Client(
        vertexai=True,
        project="my-project",
        location="europe-west4",
        credentials=token("ya29.token"),
        http_options=options(stage.proxy),
    ) as official:
        yield official


def options(proxy: Proxy) -> types.HttpOptions:
    return types.HttpOptions(base_url=proxy.url)


def whole(body: bytes) -> Reply:
    return Reply(headers=(*wire.JSON_HEADERS, *wire.RESPONSE_HEADERS), body=(body,))


def streamed(pieces: list[bytes], headers: Any = wire.SSE_HEADERS) -> Reply:
    return Reply(
        headers=(*headers, *wire.RESPONSE_HEADERS), body=tuple(pieces), framing=Framing.CHUNKED
    )


def label(answer: Any) -> str:
    found: str = answer.sdk_http_response.headers["x-cache"]
    return found


def told(answer: Any) -> dict[str, str]:
    """The headers a client sees, without those that tell hit from miss."""
    headers = answer.sdk_http_response.headers
    return {name: v for name, v in headers.items() if name not in ("x-cache", "age", "date")}


def shown(answer: Any) -> Any:
    """All that an answer says, without its headers."""
    return answer.model_dump(exclude={"sdk_http_response"})


WITH_TOOLS = types.GenerateContentConfig(
    system_instruction="Be kind.",
    temperature=0.5,
    tools=[
        types.Tool(
            function_declarations=[types.FunctionDeclaration(name="get_weather", description="x")]
        )
    ],
)


# google-genai


def test_generate_content_is_answered_again_alike(stage: Stage, client: Any) -> None:
    stage.upstream.script(whole(wire.answer(PARTS, tokens=TOKENS)))
    prompt = stage.prompt()
    miss, hit = (
        client.models.generate_content(model=wire.MODEL, contents=prompt, config=WITH_TOOLS)
        for _ in range(2)
    )
    assert (label(miss), label(hit)) == ("MISS", "HIT")
    assert told(hit) == told(miss)
    assert shown(hit) == shown(miss)
    assert hit.function_calls[0].args == PARTS[2]["functionCall"]["args"]
    assert hit.usage_metadata.cached_content_token_count == 7
    assert stage.upstream.calls[-1].request.header("x-goog-api-key") == KEY


def test_a_stream_is_answered_again_chunk_by_chunk(stage: Stage, client: Any) -> None:
    documents = wire.chunks(PARTS, tokens=TOKENS)
    stage.upstream.script(streamed(wire.sse(documents)))
    prompt = stage.prompt()
    seen = []
    for expected in ("MISS", "HIT"):
        chunks = list(
            client.models.generate_content_stream(
                model=wire.MODEL, contents=prompt, config=WITH_TOOLS
            )
        )
        assert {label(chunk) for chunk in chunks} == {expected}
        seen.append([shown(chunk) for chunk in chunks])
    assert seen[1] == seen[0]
    assert len(seen[0]) == len(documents)


async def test_the_async_client_gets_the_same(stage: Stage, async_client: Any) -> None:
    stage.upstream.script(
        whole(wire.answer(PARTS)), streamed(wire.sse(wire.chunks(PARTS, tokens=TOKENS)))
    )
    prompt = stage.prompt()
    miss, hit = [
        await async_client.models.generate_content(model=wire.MODEL, contents=prompt)
        for _ in range(2)
    ]
    assert (label(miss), label(hit)) == ("MISS", "HIT")
    assert shown(hit) == shown(miss)
    seen = []
    for _ in range(2):
        stream = await async_client.models.generate_content_stream(
            model=wire.MODEL, contents=prompt
        )
        seen.append([shown(chunk) async for chunk in stream])
    assert seen[1] == seen[0]


def test_a_chat_with_tools_replays_turn_by_turn(stage: Stage, client: Any) -> None:
    asked = []

    def get_weather(city: str) -> dict[str, str]:
        """The weather of a city."""
        asked.append(city)
        return {"sky": "clear"}

    config = types.GenerateContentConfig(tools=[get_weather])
    prompt = stage.prompt()
    stage.upstream.script(
        whole(wire.answer([wire.call("get_weather", city="Zürich")])),
        whole(wire.answer("A clear sky.")),
    )
    before = stage.upstream.call_count
    answers = [
        client.chats.create(model=wire.MODEL, config=config).send_message(prompt).text
        for _ in range(2)
    ]
    assert answers == ["A clear sky."] * 2
    assert asked == ["Zürich"] * 2
    assert stage.upstream.call_count == before + 2


def test_counts_and_embeddings_are_answered_again_alike(stage: Stage, client: Any) -> None:
    stage.upstream.script(
        whole(wire.dump({"totalTokens": 12})),
        whole(wire.dump({"embeddings": [{"values": [0.25, -0.5]}]})),
    )
    prompt = stage.prompt()
    before = stage.upstream.call_count
    counted = [client.models.count_tokens(model=wire.MODEL, contents=prompt) for _ in range(2)]
    assert [answer.total_tokens for answer in counted] == [12, 12]
    embedded = [
        client.models.embed_content(model="gemini-embedding-001", contents=prompt) for _ in range(2)
    ]
    assert embedded[1].embeddings == embedded[0].embeddings
    assert embedded[0].embeddings[0].values == [0.25, -0.5]
    assert [label(answer) for answer in (*counted, *embedded)] == ["MISS", "HIT"] * 2
    assert stage.upstream.call_count == before + 2


def test_an_error_passes_through_and_is_asked_again(stage: Stage, client: Any) -> None:
    prompt = stage.prompt()
    limited = wire.error(429, "Quota exceeded.", "RESOURCE_EXHAUSTED")
    stage.upstream.script(
        json_reply(limited, 429, (("retry-after", "7"),)), whole(wire.answer("Hi"))
    )
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model=wire.MODEL, contents=prompt)
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert caught.value.response.headers["retry-after"] == "7"
    assert label(client.models.generate_content(model=wire.MODEL, contents=prompt)) == "MISS"


def test_an_unreachable_upstream_is_an_error_the_client_understands(
    tmp_path: Path, upstream: Upstream
) -> None:
    upstream.refuse()
    with (
        running_proxy(tmp_path / "home", {"CACHE_UPSTREAM_GEMINI": upstream.url}) as proxy,
        genai.Client(api_key=KEY, http_options=options(proxy)) as client,
        pytest.raises(errors.ServerError, match="can't be reached") as caught,
    ):
        client.models.generate_content(model=wire.MODEL, contents="x")
    assert (caught.value.code, caught.value.status) == (502, "UNAVAILABLE")


# What isn't whole isn't stored


ARRAY = wire.array(wire.chunks(PARTS))
SSE = wire.sse(wire.chunks(PARTS))


@pytest.mark.parametrize(
    ("query", "pieces", "headers"),
    [("?alt=sse", SSE, wire.SSE_HEADERS), ("", ARRAY, wire.JSON_HEADERS)],
    ids=["sse", "array"],
)
def test_both_framings_of_a_stream_are_replayed_byte_for_byte_once_whole(
    stage: Stage, query: str, pieces: list[bytes], headers: Any
) -> None:
    told = wire.sse if query else wire.array
    broken = told([*wire.chunks(PARTS)[:-1], {"error": {"code": 503, "status": "UNAVAILABLE"}}])
    cut = streamed(pieces, headers)
    stage.upstream.script(
        streamed(broken, headers),
        streamed(pieces[: -1 if query else -2], headers),
        Reply(headers=cut.headers, body=at_byte(pieces, 300, Cut()), framing=Framing.CHUNKED),
        streamed(pieces, headers),
    )
    body = wire.request(stage.prompt())
    answers = [
        exchange(stage.proxy.port, "POST", STREAM + query, [*JSON, ("x-goog-api-key", KEY)], body)
        for _ in range(5)
    ]
    assert [one.header("x-cache") for one in answers] == ["MISS"] * 4 + ["HIT"]
    assert_same(answers[3], answers[4])
    assert answers[4].body == b"".join(pieces)


def test_sse_and_array_never_answer_for_each_other(stage: Stage) -> None:
    stage.upstream.script(streamed(SSE), streamed(ARRAY, wire.JSON_HEADERS))
    body = wire.request(stage.prompt())
    for target, pieces in ((f"{STREAM}?alt=sse", SSE), (STREAM, ARRAY)):
        answer = exchange(stage.proxy.port, "POST", target, JSON, body)
        assert (answer.header("x-cache"), answer.body) == ("MISS", b"".join(pieces))


def test_a_blocked_prompt_is_passed_on_and_not_stored(stage: Stage, client: Any) -> None:
    stage.upstream.script(whole(wire.blocked()), whole(wire.blocked()))
    prompt = stage.prompt()
    for _ in range(2):
        answer = client.models.generate_content(model=wire.MODEL, contents=prompt)
        assert answer.prompt_feedback.block_reason == types.BlockedReason.SAFETY
        assert label(answer) == "MISS"


# The key


def ask(proxy: Proxy, target: str, body: bytes, *headers: tuple[str, str]) -> Response:
    return exchange(proxy.port, "POST", target, [*JSON, *headers], body)


def test_a_key_in_the_query_is_forwarded_where_it_was_and_is_the_same_client(stage: Stage) -> None:
    stage.upstream.script(whole(wire.answer("Hi")))
    body = wire.request(stage.prompt())
    for target, expected in (
        (f"{GENERATE}?$fields=candidates&key={KEY}", "MISS"),
        (f"{GENERATE}?key={KEY}&$fields=candidates", "HIT"),
    ):
        assert ask(stage.proxy, target, body).header("x-cache") == expected
    in_header = ask(stage.proxy, f"{GENERATE}?$fields=candidates", body, ("x-goog-api-key", KEY))
    assert in_header.header("x-cache") == "HIT"
    sent = stage.upstream.calls[-1].request
    assert sent.target == f"{GENERATE}?$fields=candidates&key={KEY}"
    assert sent.header("x-goog-api-key") is None


def test_another_key_gets_its_own_answers(stage: Stage) -> None:
    body = wire.request(stage.prompt())
    for key in ("one", "two"):
        stage.upstream.script(whole(wire.answer(f"For {key}.")))
        for expected in ("MISS", "HIT"):
            answer = ask(stage.proxy, f"{GENERATE}?key={key}", body)
            assert answer.header("x-cache") == expected
            assert f"For {key}.".encode() in answer.body


def test_the_real_key_goes_in_a_header_and_the_clients_nowhere(
    tmp_path: Path, upstream: Upstream
) -> None:
    upstream.default = whole(wire.answer("Hi"))
    settings = {"CACHE_UPSTREAM_GEMINI": upstream.url, "GEMINI_API_KEY_REAL": "real-key"}
    body = wire.request()
    with running_proxy(tmp_path / "home", settings) as proxy:
        first = ask(proxy, f"{GENERATE}?key={KEY}&prettyPrint=false", body)
        second = ask(proxy, f"{GENERATE}?prettyPrint=false", body, ("x-goog-api-key", "other"))
        bare = exchange(proxy.port, "GET", f"/v1beta/models?pageSize=5&key={KEY}", [])
    assert [one.header("x-cache") for one in (first, second, bare)] == ["MISS", "HIT", "PASS"]
    sent = [call.request for call in upstream.calls]
    assert [one.target for one in sent] == [
        f"{GENERATE}?prettyPrint=false",
        "/v1beta/models?pageSize=5",
    ]
    for one in sent:
        assert one.header("x-goog-api-key") == "real-key"
        assert KEY.encode() not in one.head


def test_the_proxys_token_may_come_as_the_key_and_ends_there(
    tmp_path: Path, upstream: Upstream
) -> None:
    upstream.default = whole(wire.answer("Hi"))
    settings = {
        "CACHE_UPSTREAM_GEMINI": upstream.url,
        "GEMINI_API_KEY_REAL": "real-key",
        "CACHE_AUTH_TOKEN": "the-token",
    }
    body = wire.request()
    with running_proxy(tmp_path / "one", settings) as proxy:
        assert ask(proxy, f"{GENERATE}?key=wrong", body).status == 401
        assert ask(proxy, f"{GENERATE}?key=the-token", body).status == 200
        assert ask(proxy, GENERATE, body, ("x-goog-api-key", "the-token")).status == 200
    del settings["GEMINI_API_KEY_REAL"]
    with running_proxy(tmp_path / "two", settings) as proxy:
        token = ("x-cache-auth", "the-token")
        assert ask(proxy, f"{GENERATE}?key=the-token", body).status == 401
        assert ask(proxy, f"{GENERATE}?key=the-token&a=1", body, token).status == 200
    assert [call.request.target for call in upstream.calls] == [GENERATE, f"{GENERATE}?a=1"]
    assert all(b"the-token" not in call.request.head for call in upstream.calls)


def test_a_key_in_the_query_reaches_no_log_no_error_and_no_file(
    tmp_path: Path, upstream: Upstream
) -> None:
    upstream.script(whole(wire.answer("Hi")), whole(wire.error(500, "Oops", "INTERNAL")))
    settings = {"CACHE_UPSTREAM_GEMINI": upstream.url, "CACHE_LOG_LEVEL": "debug"}
    home = tmp_path / "home"
    with running_proxy(home, settings) as proxy:
        target = f"{GENERATE}?key={KEY}"
        answers = [
            ask(proxy, target, wire.request("1")),
            ask(proxy, target, wire.request("2")),
            ask(proxy, target, wire.request("3"), ("x-cache-mode", "replay")),
            ask(proxy, target, wire.request("4"), ("x-cache-mode", "nonsense")),
            exchange(proxy.port, "GET", f"/v1beta/models/x/../y?key={KEY}", []),
            exchange(proxy.port, "GET", f"/nowhere?key={KEY}", []),
        ]
        upstream.refuse()
        upstream.drop_connections()
        answers.append(ask(proxy, target, wire.request("5")))
        stats = proxy.get("/stats").content + proxy.get("/metrics").content
    assert [one.status for one in answers] == [200, 200, 504, 400, 400, 404, 502]
    secret = KEY.encode()
    for one in answers:
        assert secret not in one.body
        assert all(KEY not in value for _, value in one.headers)
    assert secret not in stats
    assert KEY not in proxy.log() + proxy.output()
    with sqlite3.connect(next(home.rglob("*.sqlite*"))) as index:
        index.execute("pragma wal_checkpoint(truncate)")
    index.close()
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if secret in path.read_bytes()]


# Vertex AI


def test_vertex_is_answered_again_alike(stage: Stage, vertex: Any) -> None:
    stage.upstream.script(
        whole(wire.answer(PARTS, tokens=TOKENS)), streamed(wire.sse(wire.chunks(PARTS)))
    )
    prompt = stage.prompt()
    answers = [vertex.models.generate_content(model=wire.MODEL, contents=prompt) for _ in range(2)]
    assert [label(answer) for answer in answers] == ["MISS", "HIT"]
    assert shown(answers[1]) == shown(answers[0])
    seen = [
        [
            shown(one)
            for one in vertex.models.generate_content_stream(model=wire.MODEL, contents=prompt)
        ]
        for _ in range(2)
    ]
    assert seen[1] == seen[0]
    sent = stage.upstream.calls[-1].request
    path = "/v1beta1/projects/my-project/locations/europe-west4/publishers/google/models"
    assert sent.target == f"{path}/{wire.MODEL}:streamGenerateContent?alt=sse"
    assert sent.header("authorization") == "Bearer ya29.token"


def test_vertex_embeddings_are_answered_again_alike(stage: Stage, vertex: Any) -> None:
    statistics = {"statistics": {"token_count": 4, "truncated": False}}
    document = {"predictions": [{"embeddings": {"values": [0.25], **statistics}}]}
    stage.upstream.script(whole(wire.dump(document)))
    prompt = stage.prompt()
    answers = [
        vertex.models.embed_content(model="text-embedding-005", contents=prompt) for _ in range(2)
    ]
    assert [label(answer) for answer in answers] == ["MISS", "HIT"]
    assert answers[1].embeddings == answers[0].embeddings


@pytest.fixture
def claude(stage: Stage) -> Iterator[anthropic.AnthropicVertex]:
    with anthropic.AnthropicVertex(
        base_url=f"{stage.proxy.url}/v1",
        region="europe-west1",
        project_id="my-project",
        access_token="ya29.token",
        max_retries=0,
    ) as official:
        yield official


CLAUDE = "claude-sonnet-4-5@20250929"
CLAUDE_PATH = "/v1/projects/my-project/locations/europe-west1/publishers/anthropic/models"
BLOCKS = [
    anthropic_wire.text_block("Grüezi"),
    anthropic_wire.tool_use_block("get_weather", {"city": "Zürich", "days": 3}),
]


def question(stage: Stage) -> dict[str, Any]:
    messages = [{"role": "user", "content": stage.prompt()}]
    return {"model": CLAUDE, "max_tokens": 100, "messages": messages}


def test_claude_at_vertex_gives_the_same_message(
    stage: Stage, claude: anthropic.AnthropicVertex
) -> None:
    stage.upstream.script(json_reply(anthropic_wire.message(BLOCKS)))
    asked = question(stage)
    asked["tools"] = [{"name": "get_weather", "input_schema": {"type": "object"}}]
    answers = [claude.messages.with_raw_response.create(**asked) for _ in range(2)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT"]
    assert answers[1].parse() == answers[0].parse()
    assert answers[1].parse().to_dict() == anthropic_wire.message_document(BLOCKS)
    assert stage.upstream.calls[-1].request.target == f"{CLAUDE_PATH}/{CLAUDE}:rawPredict"


def test_claude_at_vertex_gives_the_same_events(
    stage: Stage, claude: anthropic.AnthropicVertex
) -> None:
    events = anthropic_wire.stream(BLOCKS)
    stage.upstream.script(streamed(events[:-1]), streamed(events))
    asked = question(stage)
    seen = []
    for _ in range(3):
        stream = claude.messages.create(**asked, stream=True)
        seen.append((stream.response.headers["x-cache"], [one.to_dict() for one in stream]))
    assert [label for label, _ in seen] == ["MISS", "MISS", "HIT"]
    assert seen[2][1] == seen[1][1]
    assert seen[2][1][-1]["type"] == "message_stop"


def test_claude_at_vertex_counts_tokens_and_tells_errors(
    stage: Stage, claude: anthropic.AnthropicVertex
) -> None:
    stage.upstream.script(
        json_reply(anthropic_wire.count_tokens(14)),
        json_reply(wire.error(429, "Quota exceeded.", "RESOURCE_EXHAUSTED"), 429),
    )
    asked = question(stage)
    counted: Any = {key: asked[key] for key in ("model", "messages")}
    before = stage.upstream.call_count
    assert [claude.messages.count_tokens(**counted).input_tokens for _ in range(2)] == [14, 14]
    assert stage.upstream.call_count == before + 1
    assert stage.upstream.calls[-1].request.target == f"{CLAUDE_PATH}/count-tokens:rawPredict"
    with pytest.raises(anthropic.RateLimitError, match="Quota exceeded"):
        claude.messages.create(**asked)


def test_usage_and_prices_are_those_of_the_host(stage: Stage, client: Any) -> None:
    used = wire.usage(prompt=1000, candidates=100, thoughts=200, cached=600)
    stage.upstream.script(whole(wire.answer("Hi", tokens=used)))
    prompt = stage.prompt()
    before = stage.proxy.stats()
    for _ in range(2):
        client.models.generate_content(model=wire.MODEL, contents=prompt)
    after = stage.proxy.stats()
    spent, saved = (after[name] - before[name] for name in ("usd_spent", "usd_saved"))
    # gemini-2.5-flash: $0.30 in, $0.03 cached, $2.50 out, per million tokens
    assert spent == pytest.approx(400 * 0.3e-6 + 600 * 0.03e-6 + 300 * 2.5e-6)
    assert saved == pytest.approx(spent)
    assert after["tokens_saved"] - before["tokens_saved"] == 1300
