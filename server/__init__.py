"""The caching proxy: an ASGI application on Hypercorn over an exchange.

`serve.run(settings)` starts it. Inside: `app` guards and routes, `bodies` reads a request,
`replies` writes an answer, `own` answers `/stats` and its kin, `calllog`, `feed` and `latencies`
hear of every call; `hypercorn/` is what knows Hypercorn's insides. What others may use is named in
`__all__` and loaded when it is first used.
"""

from typing import TYPE_CHECKING

from llm_cache.lazy import lazy

if TYPE_CHECKING:
    from llm_cache.server import serve as serve
    from llm_cache.server.feed import Feed, Listener
    from llm_cache.server.hypercorn.sockets import bound_sockets, check_certificate
    from llm_cache.server.pidfile import holder
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Feed": "feed",
            "Listener": "feed",
            "bound_sockets": "hypercorn.sockets",
            "check_certificate": "hypercorn.sockets",
            "holder": "pidfile",
            "serve": "serve",
        },
    )

__all__ = [
    "Feed",
    "Listener",
    "bound_sockets",
    "check_certificate",
    "holder",
    "serve",
]
