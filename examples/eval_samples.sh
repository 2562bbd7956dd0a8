#!/bin/sh
# An eval with k samples: the first run asks k times a question, the second run replays all of them.
set -eu
cd "$(dirname "$0")"
llm-cache exec --samples auto -- python3 eval_samples.py
