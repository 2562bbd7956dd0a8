"""Ask each question k times and print how many different answers came.

What this knows of llm-cache is nothing: the base URL is in the environment, and `--samples auto`
makes the n-th equal request of one run sample n.
"""

import json
import os
import sys
import urllib.request

QUESTIONS = ("Name a colour.", "Name a number between 1 and 10.")
SAMPLES = 3


def ask(question: str) -> str:
    """One answer of the model."""
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": question}],
    }
    request = urllib.request.Request(
        os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
        json.dumps(body).encode(),
        {
            "content-type": "application/json",
            "anthropic-version": "2023-06-01",
            "x-api-key": os.environ["ANTHROPIC_API_KEY"],
        },
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        print(answer.headers["x-cache"], file=sys.stderr)
        return str(json.load(answer)["content"][0]["text"])


if __name__ == "__main__":
    for question in QUESTIONS:
        answers = [ask(question) for _ in range(SAMPLES)]
        print(f"{question}  {len(set(answers))} different answers of {SAMPLES}")
