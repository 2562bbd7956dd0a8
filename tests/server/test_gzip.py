"""Content codings, as an official client meets them; the rest: `tests/exchange/test_gzip.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from support import anthropic_wire as wire
from support.replies import gzip_reply, json_reply, sse_reply
from support.stage import Stage, running_stage

pytestmark = pytest.mark.usefixtures("home")

TEXT = "Grüezi 世界 🌍 " * 40
DOCUMENT = wire.message(TEXT)
EVENTS = wire.stream(TEXT, piece=40)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(tmp_path_factory.mktemp("gzip")) as running:
        yield running
        running.wait_idle()


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_official_client_reads_both(stage: Stage, streamed: bool) -> None:
    stage.upstream.script(gzip_reply(sse_reply(EVENTS) if streamed else json_reply(DOCUMENT)))
    labels = []
    with anthropic.Anthropic(base_url=stage.proxy.url, api_key="k", max_retries=0) as client:
        prompt = stage.prompt()
        for accepted in ("gzip", "gzip", "identity"):
            create = client.with_options(
                default_headers={"accept-encoding": accepted}
            ).messages.with_raw_response.create
            answer = create(
                model=wire.MODEL,
                max_tokens=10,
                messages=[{"role": "user", "content": prompt}],
                stream=streamed,
            )
            labels.append(answer.headers["x-cache"])
            parsed: Any = answer.parse()
            if streamed:
                deltas = [
                    event.delta.text for event in parsed if event.type == "content_block_delta"
                ]
                assert "".join(deltas) == TEXT
            else:
                assert parsed.content[0].text == TEXT
    assert labels == ["MISS", "HIT", "HIT"]


def test_compressed_error_reaches_the_official_client(stage: Stage) -> None:
    stage.upstream.script(gzip_reply(json_reply(wire.error("overloaded_error"), 529)))
    with (
        anthropic.Anthropic(base_url=stage.proxy.url, api_key="k", max_retries=0) as client,
        pytest.raises(anthropic.InternalServerError, match="field required"),
    ):
        client.messages.create(
            model=wire.MODEL,
            max_tokens=10,
            messages=[{"role": "user", "content": stage.prompt()}],
        )
