"""The settings of a command that asks after the running proxy, which may have better ones."""

from __future__ import annotations

from llm_cache.cli.output import note
from llm_cache.host import process
from llm_cache.settings import Settings


def settings_beside_it() -> Settings:
    """The settings. A wrong one is no hindrance while the proxy runs: it is told in a line. Raises
    SettingsError when none runs."""
    settings, wrong = process.settings_beside_it()
    if wrong is not None:
        note(f"the settings are wrong, which a start will refuse: {wrong}")
    return settings
