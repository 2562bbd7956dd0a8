"""What every provider says of itself besides how its bytes are read."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from llm_cache.settings import is_setting
from llm_cache.wire.api_keys import wrong_form
from llm_cache.wire.provider import Provider
from llm_cache.wire.registry import PROVIDERS, by_host, by_name, is_providers_own

EACH = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda one: str(one.name))


@EACH
def test_a_provider_says_its_title_its_settings_and_where_it_is(provider: Provider) -> None:
    assert provider.title
    assert is_setting(provider.upstream_setting)
    assert is_setting(provider.key_setting)
    if provider.base_url:
        assert urlsplit(provider.base_url).scheme in ("http", "https")
        assert not (urlsplit(provider.base_url).hostname or "").endswith(".invalid")
    else:
        assert provider.home("/", {}) == ""


@EACH
def test_variables_of_a_providers_clients_lead_to_that_provider(provider: Provider) -> None:
    for name, path in provider.clients.urls:
        assert name.isupper()
        # Anthropic's paths are read without its name; the others' begin with theirs.
        assert path.split("/")[1:2] == ([] if provider.name == "anthropic" else [provider.name])


def test_no_two_providers_have_a_title_or_a_variable_in_common() -> None:
    titles = [one.title for one in PROVIDERS]
    assert len(set(titles)) == len(titles)
    variables = [
        name
        for one in PROVIDERS
        for name in (*(name for name, _ in one.clients.urls), *one.clients.keys)
    ]
    assert len(set(variables)) == len(variables)


@EACH
def test_a_key_of_the_providers_form_is_taken_and_a_placeholder_is_not(provider: Provider) -> None:
    prefixes = () if provider.key_form is None else provider.key_form.prefixes
    for prefix in prefixes:
        assert wrong_form(provider, f"{prefix}{'x' * 32}") is None
        assert wrong_form(provider, prefix) == f"it must begin with {' or '.join(prefixes)}"
    assert wrong_form(provider, "sk-...") == "it is a placeholder, not a key"


def test_a_provider_without_a_host_of_its_own_owns_no_address() -> None:
    unset = [one.name for one in PROVIDERS if not one.base_url]
    assert unset == ["azure", "snowflake", "compatible"]
    for url in ("", "http://None", "http://compatible.example"):
        assert by_host(url) is None
        assert not is_providers_own(url)
    azure = by_name("azure")
    assert azure is not None
    assert by_host("https://mine.openai.azure.com") is azure
