"""A store with very many entries, made in seconds: one is put for real, the index copies it."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

from llm_cache.store import Limits, open_store

MODELS = ("claude-haiku-4-5", "claude-sonnet-5", "gpt-4.1-mini", "gemini-2.5-flash")


def fill(folder: Path, count: int) -> None:
    """Make a store of `count` entries that share one blob; entry n was used n seconds ago, has the
    prompt `Question number n.` and a key that starts with n in 8 hex digits."""
    now = time.time()
    store = open_store("local", folder, Limits())
    entry = store.put([b"\xff" * 32], b"", b'{"answer": 1}', request=b'{"ask": 1}')
    store.close()
    digest = bytes.fromhex(entry.digest)
    asked = bytes.fromhex(entry.request_digest or "")
    db = sqlite3.connect(folder / "index.sqlite", isolation_level=None)
    db.execute("BEGIN")
    db.execute("DELETE FROM entries")
    db.execute("DELETE FROM keys")
    db.executemany(
        "INSERT INTO entries VALUES(?, ?, ?, ?, ?, ?, NULL, ?)",
        (
            (number + 10, digest, asked, now - number, now - number, number % 7, meta_of(number))
            for number in range(1, count + 1)
        ),
    )
    db.executemany(
        "INSERT INTO keys VALUES(?, ?, 0, 0)",
        ((number.to_bytes(4) + b"\xab" * 28, number + 10) for number in range(1, count + 1)),
    )
    db.execute("UPDATE blobs SET refs = ?", (count,))
    db.execute("UPDATE totals SET entries = ?, last_id = ?", (count, count + 10))
    db.execute("COMMIT")
    db.close()


def meta_of(number: int) -> bytes:
    """What the proxy would note of such an entry."""
    return json.dumps(
        {
            "status": 200,
            "headers": [["content-type", "application/json"], ["request-id", f"req_{number:024}"]],
            "provider": "anthropic",
            "endpoint": "messages",
            "model": MODELS[number % 4],
            "usage": {"input_tokens": number, "output_tokens": 10},
            "nano_usd": number,
            "snippet": f"Answer number {number}, of some length as answers have it.",
            "prompt": f"Question number {number}.",
        }
    ).encode()
