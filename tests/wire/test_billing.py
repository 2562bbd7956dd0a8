"""The billing line is fixed in the system prompt, and nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.billing import FIXED, rewrite_billing

NAME = "x-anthropic-billing-header:"
FORMS = (
    " cc_version=2.1.63.a43; cc_entrypoint=sdk-cli; cch=e2224;",
    " cc_version=2.1.63.a43; cc_entrypoint=cli; cch=00000;",
    " cc_version=3.0; cc_entrypoint=sdk-ts; cc_workload=cron; cch=1;",
    " cch=f;",
    "",
)


def fixed(text: str) -> str:
    return text + FIXED.decode()


@pytest.mark.parametrize("form", FORMS)
def test_the_value_is_fixed_in_a_string_system_prompt(form: str) -> None:
    body = json.dumps({"model": "m", "system": f"{NAME}{form}\nYou are.", "messages": []}).encode()
    changed, count = rewrite_billing(body)
    assert count == 1
    assert json.loads(changed)["system"] == f"{fixed(NAME)}\nYou are."


@pytest.mark.parametrize("form", FORMS)
def test_the_value_is_fixed_in_a_block_system_prompt(form: str) -> None:
    blocks = [
        {"type": "text", "text": NAME + form},
        {"type": "text", "text": f"before\n{NAME}{form}\r\nafter", "cache_control": {"type": "x"}},
    ]
    changed, count = rewrite_billing(json.dumps({"system": blocks, "max_tokens": 1}).encode())
    assert count == 2
    texts = [block["text"] for block in json.loads(changed)["system"]]
    assert texts == [fixed(NAME), f"before\n{fixed(NAME)}\r\nafter"]


def test_two_requests_that_differ_in_the_value_become_the_same_bytes() -> None:
    template = '{ "system" : [ {"text":"@"} ] , "messages":[{"role":"user","content":"é"}]}'
    bodies = [template.replace("@", NAME + form).encode() for form in FORMS]
    assert len({rewrite_billing(body)[0] for body in bodies}) == 1


@pytest.mark.parametrize(
    "doc",
    [
        {"messages": [{"role": "user", "content": f"{NAME} cch=1;"}]},
        {"messages": [{"system": f"{NAME} cch=1;"}], "system": "plain"},
        {"metadata": {"system": f"{NAME} cch=1;"}, "tools": [{"system": f"{NAME} x"}]},
        {"system": f"quoted in the middle: {NAME} cch=1;"},
        {"not_system": f"{NAME} cch=1;", "system": ""},
        {"a": "system", "b": f"{NAME} cch=1;"},
    ],
)
def test_the_same_words_anywhere_else_stay(doc: dict[str, object]) -> None:
    body = json.dumps(doc).encode()
    assert rewrite_billing(body) == (body, 0)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", f'"{NAME} x"'.encode(), b'{"system": "x-anth']
)
def test_what_is_no_request_stays(body: bytes) -> None:
    assert rewrite_billing(body) == (body, 0)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    before=st.dictionaries(st.text(max_size=8).filter(lambda k: k != "system"), _json, max_size=3),
    after=st.dictionaries(st.text(max_size=8).filter(lambda k: k != "system"), _json, max_size=3),
    rest=st.text(max_size=30),
    value=st.text(alphabet=st.characters(exclude_characters="\r\n"), max_size=20),
    indent=st.sampled_from([None, 1]),
)
def test_only_the_value_changes_whatever_stands_around_it(
    before: dict[str, object], after: dict[str, object], rest: str, value: str, indent: int | None
) -> None:
    def body(of: str) -> bytes:
        doc = {**before, "system": f"{NAME}{of}\n{rest}", **after}
        return json.dumps(doc, indent=indent).encode()

    if NAME in rest:
        return
    assert rewrite_billing(body(value)) == (body(FIXED.decode()), 1)
