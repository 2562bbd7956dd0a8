"""What llm-cache knows of LLM APIs: keys, completeness, usage, prices, errors.

Bytes go in, facts come out; nothing here does I/O, and nothing here imports the other rooms
except `llm_cache.errors`. Import the module that owns what is needed: `keys`, `normalize`,
`registry`, `provider`, `encoding`, `headers`, `prices`, `request_fields`, `sse`.
"""
