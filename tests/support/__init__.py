"""What tests, benchmarks and scripts share: a scriptable upstream, a raw client, the proxy process.

Most see the product as its users do, from outside. What looks inside: `inside` and `cache` (an
exchange in the test's own process), `answers` and `keys`, `command` (which proxy runs in a home)
and `large_store` (fills a store).
"""
