"""What an upstream or a client makes up costs no answer, no figure and no other's money."""

from __future__ import annotations

import json
from collections.abc import Callable

from support.anthropic_wire import message, request
from support.proxy import Proxy
from support.replies import json_reply
from support.upstream import Upstream


def answer_with(**changes: object) -> bytes:
    return json.dumps({**json.loads(message("fine")), **changes}).encode()


def test_a_model_name_of_half_characters_breaks_neither_answers_nor_figures(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    upstream.default = json_reply(answer_with(model="claude-\ud800\x1b[2J"))
    one = proxy()
    with one.connect() as monitor:
        monitor.request("GET", "/monitor").read_until(b"connected")
        for label in ("MISS", "HIT"):
            answer = one.ask(request("surrogate"))
            answer.read_all()
            assert (answer.complete, answer.header("x-cache")) == (True, label)
        asked = json.dumps({"model": "\ud800", "messages": []}).encode()
        assert one.ask(asked, {"x-cache-mode": "replay"}).status == 504
    assert one.get("/metrics").status_code == 200
    assert one.stats()["by_model"]
    assert "\x1b" not in one.log()


def test_a_clients_other_keys_and_our_token_stay_here_when_the_real_key_goes_up(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    upstream.default = json_reply(message("fine"))
    one = proxy(ANTHROPIC_API_KEY_REAL="sk-ant-real", CACHE_AUTH_TOKEN="cache-token-1")
    headers = {
        "x-cache-auth": "cache-token-1",
        "x-mine": "cache-token-1",
        "api-key": "AIza-client",
        "authorization": "Bearer cache-token-1",
    }
    assert one.ask(request("keys"), headers).status == 200
    sent = upstream.calls[-1].request.headers
    assert [value for name, value in sent if name == "x-api-key"] == ["sk-ant-real"]
    assert not [name for name, value in sent if "cache-token" in value or "AIza" in value]


def test_a_head_request_to_monitor_ends(proxy: Callable[..., Proxy]) -> None:
    one = proxy()
    with one.connect() as connection:
        assert connection.request("HEAD", "/monitor").status == 405
    assert one.healthy()
