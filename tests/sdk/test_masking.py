"""A key is in no text that goes out, whatever its form and wherever in the text it stands."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.masking import masked, without_keys
from llm_cache.settings import review_settings
from llm_cache.wire.registry import PROVIDERS

LETTERS = string.ascii_letters + string.digits
PREFIXES = sorted({prefix for one in PROVIDERS if one.key_form for prefix in one.key_form.prefixes})
NAMES = ("ANTHROPIC_API_KEY_REAL", "MISTRAL_API_KEY_REAL", "CACHE_AUTH_TOKEN", "OPENAI_API_KEY")
BODIES = st.text(LETTERS, min_size=20, max_size=100)


@given(st.sampled_from(PREFIXES), BODIES, st.sampled_from(["", "60", "/x/", "http://h/?k=", "("]))
def test_a_key_of_a_known_form_is_masked_wherever_it_stands(
    prefix: str, body: str, before: str
) -> None:
    text = without_keys(f"CACHE_TTL_SEC={before}{prefix}{body} (.env): must be whole seconds")
    assert body[:-4] not in text
    assert text.endswith(f"…{body[-4:]} (.env): must be whole seconds")


@given(st.sampled_from(NAMES), st.text(string.ascii_letters + "-_.", min_size=1, max_size=60))
def test_what_is_called_a_key_is_masked_whatever_it_looks_like(name: str, value: str) -> None:
    text = without_keys(f"CACHE_TTL_SEC=60{name}={value}")
    assert text == f"CACHE_TTL_SEC=60{name}={masked(value)}"
    assert len(value) < 5 or value not in masked(value)


@given(st.sampled_from([*PREFIXES, ""]), BODIES, st.sampled_from(NAMES))
def test_a_lost_line_break_shows_no_key_in_an_error(prefix: str, body: str, name: str) -> None:
    said = {"CACHE_TTL_SEC": f"60{name}={prefix}{body}"}
    review = review_settings(environ={"HOME": "/nowhere"}, env_file=said)
    (problem,) = review.problems
    assert body[:-4] not in problem.sentence
    assert name in problem.sentence  # so that one sees what happened


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("sk-ant-api03-0123456789abcdefa1b2", "sk-ant-…a1b2"),
        ("sk-or-v1-0123456789abcdef0123", "sk-or-…0123"),
        ("0123456789abcdef0123", "…0123"),
        ("sk-short", "sk-…"),
        ("", "…"),
    ],
)
def test_a_key_is_shown_by_its_maker_and_its_end(key: str, shown: str) -> None:
    assert masked(key) == shown


@pytest.mark.parametrize(
    "text",
    [
        "/home/x/risk-analysis-of-everything/.env: can't be read",
        "claude-sonnet-4-5-20250929 has no price",
        "CACHE_TLS_KEYFILE=/etc/ssl/private/proxy.key: must be a file you may read",
        "no entry has a key that begins with 0123456789abcdef0123456789abcdef",
        "put CACHE_PORT=4100 CACHE_MODE=replay there",
        "export OPENAI_API_KEY=… in your shell",
    ],
)
def test_other_words_stay_as_they_are(text: str) -> None:
    assert without_keys(text) == text
