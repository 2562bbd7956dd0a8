"""The caching proxy: an ASGI application on Hypercorn that forwards with httpx.

`serve.run(settings)` starts it. Inside: `app` guards and routes, `exchange` answers one request,
`flights` holds the upstream calls in progress, `upstream` makes them, `own` answers `/stats` and
its kin, `journal` counts and logs.
"""
