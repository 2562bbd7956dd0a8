#!/bin/sh
# Record where the key is, replay where it isn't. Both name one scope, so that the key isn't in the
# cache's keys, and one folder, which CI keeps between jobs.
set -eu
cd "$(dirname "$0")"
export LLM_CACHE_HOME="${LLM_CACHE_HOME:-$PWD/.llm-cache}" CACHE_TTL_SEC=0

llm-cache validate
llm-cache exec --scope shared --samples auto -- python3 eval_samples.py

unset ANTHROPIC_API_KEY # exec gives clients a placeholder where none is needed
llm-cache exec --scope shared --samples auto --fail-on-miss -- python3 eval_samples.py
