"""The proxy as a process of this machine: started, found, stopped, set up, checked.

What others may use is named in `__all__` and loaded when it is first used.
"""

from typing import TYPE_CHECKING

from llm_cache.lazy import lazy

if TYPE_CHECKING:
    from llm_cache.host import configure as configure
    from llm_cache.host import foreground as foreground
    from llm_cache.host import process as process
    from llm_cache.host import real_keys as real_keys
    from llm_cache.host import record as record
    from llm_cache.host import service as service
    from llm_cache.host import starting as starting
    from llm_cache.host import takeover as takeover
    from llm_cache.host.beside import Calls, proxy_beside
    from llm_cache.host.checks.everything import check_everything, misspelt
    from llm_cache.host.checks.finding import Finding
    from llm_cache.host.configure import Answers, Present
    from llm_cache.host.manager import Manager, NoSandbox, Plan
    from llm_cache.host.notify import tell_manager
    from llm_cache.host.real_keys import ask_with, form_problem
    from llm_cache.host.record import in_words
    from llm_cache.host.takeover import TakenOver
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Answers": "configure",
            "Calls": "beside",
            "Finding": "checks.finding",
            "Manager": "manager",
            "NoSandbox": "manager",
            "Plan": "manager",
            "Present": "configure",
            "TakenOver": "takeover",
            "ask_with": "real_keys",
            "check_everything": "checks.everything",
            "configure": "configure",
            "foreground": "foreground",
            "form_problem": "real_keys",
            "in_words": "record",
            "misspelt": "checks.everything",
            "process": "process",
            "proxy_beside": "beside",
            "real_keys": "real_keys",
            "record": "record",
            "service": "service",
            "starting": "starting",
            "takeover": "takeover",
            "tell_manager": "notify",
        },
    )

__all__ = [
    "Answers",
    "Calls",
    "Finding",
    "Manager",
    "NoSandbox",
    "Plan",
    "Present",
    "TakenOver",
    "ask_with",
    "check_everything",
    "configure",
    "foreground",
    "form_problem",
    "in_words",
    "misspelt",
    "process",
    "proxy_beside",
    "real_keys",
    "record",
    "service",
    "starting",
    "takeover",
    "tell_manager",
]
