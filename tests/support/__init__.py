"""What tests, benchmarks and scripts share: a scriptable upstream, a raw client, the proxy process.

They see the product as its users do, from outside: no module here imports llm_cache but `command`
(which proxy runs in a home) and `large_store` (fills a store).
"""
