"""One request and its answer, with no server: where it goes, what is known, what comes back.

What others may use is named in `__all__` and loaded when it is first used. `open_exchange` is the
way in; `exchange.py` is one request's way.
"""

from typing import TYPE_CHECKING

from llm_cache.lazy import lazy

if TYPE_CHECKING:
    from llm_cache.exchange import browse as browse
    from llm_cache.exchange import edits as edits
    from llm_cache.exchange import entries as entries
    from llm_cache.exchange import figures as figures
    from llm_cache.exchange.asked import Head
    from llm_cache.exchange.bodies import ClientGone
    from llm_cache.exchange.calls import NANO, Call, Kind, Label, kind_of, read_ledger
    from llm_cache.exchange.control import read_control
    from llm_cache.exchange.entries import Credential, readable_by, replay_of
    from llm_cache.exchange.exchange import Exchange
    from llm_cache.exchange.flights import FlightFailed
    from llm_cache.exchange.heads import HeaderList, Headers, Refusal, Refused, merged_headers
    from llm_cache.exchange.home import load_prices, load_rules, open_store, read_optional
    from llm_cache.exchange.journal import Journal, Level, Listener, Tallies
    from llm_cache.exchange.opening import open_exchange, request_keys
    from llm_cache.exchange.reply import Reply
    from llm_cache.exchange.routing import Route, Router
    from llm_cache.exchange.tiers import NORMALIZE_BUDGET_SEC
    from llm_cache.exchange.upstream import Caller, UpstreamFailed
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Call": "calls",
            "Caller": "upstream",
            "ClientGone": "bodies",
            "Credential": "entries",
            "Exchange": "exchange",
            "FlightFailed": "flights",
            "Head": "asked",
            "HeaderList": "heads",
            "Headers": "heads",
            "Journal": "journal",
            "Kind": "calls",
            "Label": "calls",
            "Level": "journal",
            "Listener": "journal",
            "NANO": "calls",
            "NORMALIZE_BUDGET_SEC": "tiers",
            "Refusal": "heads",
            "Refused": "heads",
            "Reply": "reply",
            "Route": "routing",
            "Router": "routing",
            "Tallies": "journal",
            "UpstreamFailed": "upstream",
            "browse": "browse",
            "edits": "edits",
            "entries": "entries",
            "figures": "figures",
            "kind_of": "calls",
            "load_prices": "home",
            "load_rules": "home",
            "merged_headers": "heads",
            "open_exchange": "opening",
            "open_store": "home",
            "read_control": "control",
            "read_ledger": "calls",
            "read_optional": "home",
            "readable_by": "entries",
            "replay_of": "entries",
            "request_keys": "opening",
        },
    )

__all__ = [
    "NANO",
    "NORMALIZE_BUDGET_SEC",
    "Call",
    "Caller",
    "ClientGone",
    "Credential",
    "Exchange",
    "FlightFailed",
    "Head",
    "HeaderList",
    "Headers",
    "Journal",
    "Kind",
    "Label",
    "Level",
    "Listener",
    "Refusal",
    "Refused",
    "Reply",
    "Route",
    "Router",
    "Tallies",
    "UpstreamFailed",
    "browse",
    "edits",
    "entries",
    "figures",
    "kind_of",
    "load_prices",
    "load_rules",
    "merged_headers",
    "open_exchange",
    "open_store",
    "read_control",
    "read_ledger",
    "read_optional",
    "readable_by",
    "replay_of",
    "request_keys",
]
