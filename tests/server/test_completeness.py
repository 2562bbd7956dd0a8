"""What isn't whole isn't stored, as an official client sees it and one that asks again at once.

Which answers are whole is in `tests/exchange/test_completeness.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest
from support import anthropic_wire as wire
from support.proxy import anthropic_headers
from support.replies import Reply, json_reply, sse_reply
from support.stage import Stage, running_stage

pytestmark = pytest.mark.usefixtures("home")

EVENTS = wire.stream("message_stop")
JSON = (("content-type", "application/json"),)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(tmp_path_factory.mktemp("completeness")) as running:
        yield running
        running.wait_idle()


def plain(body: bytes, headers: tuple[tuple[str, str], ...] = JSON) -> Reply:
    """A 200 with a content-length."""
    return Reply(headers=headers, body=(body,))


@pytest.mark.parametrize(
    "reply",
    [json_reply(wire.error("rate_limit_error"), 429), plain(b"null"), sse_reply(EVENTS[:-1])],
    ids=["an error", "wrong JSON", "an unfinished stream"],
)
def test_what_was_not_stored_is_asked_for_again_at_once(stage: Stage, reply: Reply) -> None:
    """BAR 3: a repeat sent as soon as the last byte came isn't given the answer that just ended."""
    with stage.proxy.connect(deadline=30) as connection:
        body = stage.body()
        for _ in range(100):
            stage.upstream.script(reply)
            before = stage.upstream.call_count
            response = connection.request("POST", "/v1/messages", anthropic_headers(), body)
            response.read_all()
            assert response.header("x-cache") == "MISS"
            assert stage.upstream.call_count == before + 1


def test_official_client_sees_an_error_event_as_it_would_without_the_proxy(stage: Stage) -> None:
    """BAR 3: it raises each time, since nothing was stored."""
    stage.upstream.script(*[sse_reply([*EVENTS[:4], wire.error_event()])] * 2)
    asked = {"role": "user", "content": stage.prompt()}

    def events(client: anthropic.Anthropic) -> list[object]:
        with client.messages.stream(
            model=wire.MODEL,
            max_tokens=10,
            messages=[asked],  # type: ignore[list-item]
        ) as stream:
            return list(stream)

    with anthropic.Anthropic(base_url=stage.proxy.url, api_key="k", max_retries=0) as client:
        for _ in range(2):
            with pytest.raises(anthropic.APIStatusError, match="Overloaded") as raised:
                events(client)
            assert raised.value.response.headers["x-cache"] == "MISS"
            stage.wait_idle()  # the client leaves at the error, before the stream's end
