"""What tests, benchmarks and scripts share: a scriptable upstream, a raw client, the proxy process.

No module here imports llm_cache: they see the product as its users do, from outside.
"""
