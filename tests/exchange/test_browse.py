"""Rows and texts of stored entries, as they were stored: making them safe to show is the cli's."""

from __future__ import annotations

import json
from pathlib import Path

from llm_cache.exchange.browse import answer_parts, filtered, meta_of, request_parts, row_of, stored
from llm_cache.store import Entry, Limits, Store


def entry(meta: bytes) -> Entry:
    return Entry(1, meta, "", 10, 0, None, 0.0, 0.0, 0, None)


def test_a_row_holds_text_as_it_was_stored() -> None:
    meta = json.dumps({"model": "m\x1b[31m", "prompt": "Two\nlines"}).encode()
    row = row_of("ab" * 32, entry(meta))
    assert (row.provider, row.model, row.words) == ("?", "m\x1b[31m", "Two\nlines")
    assert filtered([row], "LINES two") == [row]
    assert filtered([row], "lines three") == []


def test_a_meta_that_cannot_be_read_is_empty() -> None:
    for meta in (b"", b"\xff", b"[1]", b"[" * 100_000):
        assert meta_of(entry(meta)) == {}


def test_a_body_that_is_not_kept_is_told_in_its_place(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", Limits())
    try:
        store.put([b"k" * 32], b"{}", b'{"answer": 1}')
        [(key, kept)] = store.find(b"k".hex(), 1)
        one = stored(store, key, kept)
        [asked] = request_parts(one, "readable")
        assert (asked.kind, "CACHE_STORE_REQUESTS=0" in asked.text) == ("facts", True)
        assert '"answer"' in "".join(part.text for part in answer_parts(one, "raw"))
    finally:
        store.close()
