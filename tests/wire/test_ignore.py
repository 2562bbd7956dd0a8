"""`ignore` of normalize.json: JSON paths and headers that are in no key, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.keys import further_keys

from llm_cache.errors import SettingsError
from llm_cache.wire.json_path import JsonPath, leave_out
from llm_cache.wire.normalize import Rules
from llm_cache.wire.providers.openai import RESPONSES, OpenAI
from llm_cache.wire.registry import ALL_CREDENTIALS


def key(doc: dict[str, Any], *ignore: str) -> bytes:
    rules = Rules.parse(json.dumps({"ignore": ignore}), "normalize.json")
    keys = further_keys(OpenAI(), RESPONSES, b"p", json.dumps(doc).encode(), rules, 1.0)
    assert keys.normalized is not None
    return keys.normalized


DOC: dict[str, Any] = {
    "model": "m",
    "metadata": {"trace_id": "t1", "team": "a", "a.b": 1},
    "input": [{"id": "i1", "content": "x"}, {"id": "i2", "content": "y"}, "z"],
    "tools": [[{"n": 1}], [{"n": 2}]],
}


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("metadata.trace_id", {**DOC, "metadata": {"team": "a", "a.b": 1}}),
        ('metadata["a.b"]', {**DOC, "metadata": {"trace_id": "t1", "team": "a"}}),
        ("metadata", {name: value for name, value in DOC.items() if name != "metadata"}),
        ("input[].id", {**DOC, "input": [{"content": "x"}, {"content": "y"}, "z"]}),
        ("input[1].id", {**DOC, "input": [DOC["input"][0], {"content": "y"}, "z"]}),
        ("input[0]", {**DOC, "input": DOC["input"][1:]}),
        ("input[]", {**DOC, "input": []}),
        ("tools[][].n", {**DOC, "tools": [[{}], [{}]]}),
        ("tools[1][0]", {**DOC, "tools": [[{"n": 1}], []]}),
        ("input[9].id", DOC),
        ("metadata[]", DOC),
        ("input.id", DOC),
        ("nothing.here", DOC),
    ],
)
def test_a_path_leaves_out_what_it_names_and_nothing_else(path: str, left: dict[str, Any]) -> None:
    doc = json.loads(json.dumps(DOC))
    leave_out(doc, [JsonPath.parse(path)])
    assert doc == left
    assert (key(DOC, path) == key(DOC)) == (left == DOC)


def test_several_paths_mean_the_request_as_it_came() -> None:
    doc = json.loads(json.dumps(DOC))
    leave_out(doc, map(JsonPath.parse, ["input[0]", "input[1].id", "input[0]", "input[2]"]))
    assert doc["input"] == [{"content": "y"}]


VALUES = st.none() | st.integers() | st.text(max_size=4) | st.dictionaries(st.text(), st.integers())


@given(VALUES, VALUES, VALUES)
def test_what_is_ignored_may_be_anything(one: Any, two: Any, kept: Any) -> None:
    def doc(trace: Any, said: Any) -> dict[str, Any]:
        item = {"id": trace, "content": said}
        return {"model": "m", "metadata": {"trace_id": trace}, "input": [item]}

    ignored = ("metadata.trace_id", "input[].id")
    assert key(doc(one, kept), *ignored) == key(doc(two, kept), *ignored)
    if json.dumps(one, sort_keys=True) != json.dumps(two, sort_keys=True):
        assert key(doc(one, kept)) != key(doc(two, kept))
        assert key(doc(kept, one), *ignored) != key(doc(kept, two), *ignored)


@pytest.mark.parametrize(
    ("ignore", "told"),
    [
        ('"metadata"', ["ignore is", "a list of JSON paths and header:NAME"]),
        ("[5]", ["ignore[0]", "5", "a JSON path or header:NAME"]),
        ('["model", ""]', ["ignore[1]", "is empty"]),
        ('["a..b"]', ["ignore[0]", '"a..b"', "no path from position 1"]),
        ('["a."]', ["ignore[0]", "position 1"]),
        ('[".a"]', ["ignore[0]", "position 0"]),
        ('["a[b]"]', ["ignore[0]", "position 1"]),
        ('["a[-1]"]', ["ignore[0]", "position 1"]),
        ('["a[1"]', ["ignore[0]", "position 1"]),
        ('["a[0]b"]', ["ignore[0]", "position 4"]),
        ('["$.a b"]', ["ignore[0]", "position 3"]),
        ('["[0].a"]', ["ignore[0]", "a body is an object"]),
        ('["stream"]', ["ignore[0]", "CACHE_CROSS_STREAM"]),
        ('["header:"]', ["ignore[0]", "no header's name"]),
        ('["header:a b"]', ["ignore[0]", "no header's name"]),
        ('["header:x-cache-sample"]', ["ignore[0]", "the proxy itself"]),
        ('["header:Authorization"]', ["ignore[0]", "who asks", "CACHE_SCOPE"]),
        ('["header:x-portkey-api-key"]', ["ignore[0]", "who asks"]),
    ],
)
def test_what_can_not_be_ignored_is_refused_with_the_reason(ignore: str, told: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Rules.parse(f'{{"ignore": {ignore}}}', "normalize.json")
    for words in ["normalize.json", *told]:
        assert words in str(caught.value)


@pytest.mark.parametrize("name", sorted(ALL_CREDENTIALS))
def test_no_provider_s_credential_can_be_ignored(name: bytes) -> None:
    with pytest.raises(SettingsError):
        Rules.parse(json.dumps({"ignore": [f"header:{name.decode()}"]}), "normalize.json")


def test_headers_are_read_in_any_case() -> None:
    rules = Rules.parse('{"ignore": ["header:OpenAI-Beta", "input[].id"]}', "normalize.json")
    assert rules.ignored_headers == {b"openai-beta"}
    assert [path.text for path in rules.ignore] == ["input[].id"]
