#!/bin/sh
# Claude Code through a proxy of its own. The same question in the same folder is a hit the next time.
set -eu
llm-cache exec -- claude -p "${1:-What does this folder hold?}"
