"""What isn't in the keys of a running proxy: what `normalize.json` names, labels of gateways and
tracers, and what a known agent writes anew in every run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.agents import claude_code
from support.proxy import Proxy
from support.replies import json_reply
from support.upstream import Upstream


@pytest.fixture
def numbered(upstream: Upstream) -> Upstream:
    """Its n-th answer says n."""
    count = itertools.count(1)
    upstream.default = lambda request: json_reply(wire.message(f"answer {next(count)}"))
    return upstream


def label(proxy: Proxy, doc: dict[str, Any], **headers: str) -> str | None:
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    return proxy.ask(json.dumps(doc).encode(), sent).header("x-cache")


def asked(trace: str = "t", prompt: str = "Hi") -> dict[str, Any]:
    return {
        "model": wire.MODEL,
        "max_tokens": 9,
        "metadata": {"trace_id": trace},
        "messages": [{"role": "user", "content": prompt}],
    }


def test_an_ignored_header_is_in_no_key_and_still_goes_upstream(
    numbered: Upstream, proxy: Any, home: Path
) -> None:
    home.mkdir(mode=0o700)
    (home / "normalize.json").write_text('{"ignore": ["header:anthropic-note"]}')
    one: Proxy = proxy()
    assert label(one, asked(), anthropic_note="a", anthropic_beta="x") == "MISS"
    assert label(one, asked(), anthropic_note="b", anthropic_beta="x") == "HIT"
    assert label(one, asked(), anthropic_note="b", anthropic_beta="y") == "MISS"
    assert [call.request.header("anthropic-note") for call in numbered.calls] == ["a", "b"]


def test_an_ignored_field_is_not_in_the_normalized_key(
    numbered: Upstream, proxy: Any, home: Path
) -> None:
    home.mkdir(mode=0o700)
    (home / "normalize.json").write_text('{"ignore": ["metadata.trace_id"]}')
    one: Proxy = proxy()
    assert label(one, asked("t1")) == "MISS"
    assert label(one, asked("t2")) == "HIT-NORM"
    assert label(one, asked("t2", "Bye")) == "MISS"
    assert numbered.calls[0].request.body == json.dumps(asked("t1")).encode()


def test_a_second_run_of_claude_code_is_a_hit(numbered: Upstream, proxy: Any, home: Path) -> None:
    one: Proxy = proxy()
    assert label(one, claude_code(1)) == "MISS"
    assert label(one, claude_code(2)) == "HIT-NORM"
    assert label(one, claude_code(2, day="2026-11-26")) == "MISS"


def test_labels_of_gateways_and_tracers_are_in_no_key(numbered: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    assert label(one, asked(), cf_aig_metadata='{"id": 1}', x_portkey_config="pc-1") == "MISS"
    assert label(one, asked(), cf_aig_metadata='{"id": 2}', x_portkey_config="pc-1") == "HIT"
    assert label(one, asked(), helicone_request_id="9", x_portkey_config="pc-1") == "HIT"
    assert label(one, asked(), cf_aig_metadata='{"id": 1}', x_portkey_config="pc-2") == "MISS"
    assert numbered.calls[0].request.header("cf-aig-metadata") == '{"id": 1}'
