"""Rules for the tiers that can't be used, or that take without end, on the running proxy (SPEC 4).

What each tier ignores is in `tests/exchange/test_tiers.py`.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.proxy import Proxy
from support.replies import json_reply
from support.upstream import Upstream

LIMIT_SEC = 20.0
"""How long anybody may wait because of a pattern that backtracks without end."""


@pytest.fixture
def numbered(upstream: Upstream) -> Upstream:
    """Its n-th answer says n."""
    count = itertools.count(1)
    upstream.default = lambda request: json_reply(wire.message(f"answer {next(count)}"))
    return upstream


def rules(home: Path, document: object) -> None:
    """Write `normalize.json`."""
    home.mkdir(mode=0o700, exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (home / "normalize.json").write_text(text)


def asked(proxy: Proxy, body: bytes | dict[str, Any], **headers: str) -> tuple[str | None, str]:
    """The label and the text of the answer."""
    raw = body if isinstance(body, bytes) else wire.dump(body)
    response = proxy.ask(raw, {name.replace("_", "-"): text for name, text in headers.items()})
    assert response.status == 200, response.body
    return response.header("x-cache"), json.loads(response.body)["content"][0]["text"]


def talk(*texts: str, **fields: Any) -> dict[str, Any]:
    """A request of alternating user and assistant messages."""
    roles = itertools.cycle(("user", "assistant"))
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"model": wire.MODEL, "max_tokens": 100, "messages": messages, **fields}


# Rules that can't be used


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"system_strip": ["("]}', "system_strip[0] '('"),
        ('{"message_strip": ["fine", "[z-a]"]}', "message_strip[1] '[z-a]'"),
        ('{"system_strip": "date"}', "system_strip"),
        ('{"suffix_turns": 0}', "suffix_turns is 0"),
        ('{"suffix_only": "yes"}', "suffix_only"),
        ('{"system_stripp": []}', "system_stripp"),
        ('{"system_strip": [}', "not valid JSON"),
        ("[]", "must be a JSON object"),
    ],
)
def test_the_proxy_does_not_start_on_rules_it_cannot_use(
    upstream: Upstream, proxy: Any, home: Path, text: str, said: str
) -> None:
    """BAR fault 13: an invalid pattern silently switches normalizing off."""
    rules(home, text)
    one: Proxy = proxy(start=False)
    one.start(wait=False)
    assert one.wait_exit() == 2
    lines = one.output().splitlines()
    assert len(lines) == 1
    assert str(home / "normalize.json") in lines[0]
    assert said in lines[0]


# Patterns that backtrack without end


def test_a_catastrophic_pattern_holds_up_neither_its_request_nor_its_neighbours(
    numbered: Upstream, proxy: Any, home: Path
) -> None:
    rules(home, {"message_strip": ["(a+)+$"], "system_strip": ["(a|aa)+$"]})
    one: Proxy = proxy(CACHE_LOG_LEVEL="debug")
    neighbours = [wire.request(f"neighbour {n}") for n in range(20)]
    for body in neighbours:
        assert asked(one, body)[0] == "MISS"
    evil = [talk("a" * 200_000 + f"b{n}", system="a" * 100_000 + "!") for n in range(8)]
    took: list[float] = []
    labels: list[str | None] = []

    def ask_evil(body: dict[str, Any]) -> None:
        began = time.monotonic()
        labels.append(asked(one, body)[0])
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask_evil, args=(body,)) for body in evil]
    for thread in threads:
        thread.start()
    slowest = {"HIT": 0.0, "HIT-NORM": 0.0}
    while any(thread.is_alive() for thread in threads):
        for body in neighbours:
            began = time.monotonic()
            label, _ = asked(one, body)
            assert label == "HIT"
            slowest["HIT"] = max(slowest["HIT"], time.monotonic() - began)
        began = time.monotonic()
        assert asked(one, neighbours[0] + b" ")[0] == "HIT-NORM"
        slowest["HIT-NORM"] = max(slowest["HIT-NORM"], time.monotonic() - began)
    for thread in threads:
        thread.join()
    print(f"slowest: with the pattern {max(took):.3f} s, neighbours {slowest}")
    assert labels == ["MISS"] * len(evil)
    assert max(took) < LIMIT_SEC
    assert max(slowest.values()) < LIMIT_SEC
    assert slowest["HIT"] < LIMIT_SEC / 3
    assert "ran out of time" in one.wait_logged("ran out of time")
    assert asked(one, evil[0])[0] == "HIT"  # the exact key is all it has
