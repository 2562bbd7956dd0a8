"""`kill -9` in the middle of traffic: what was answered stays answered, and stays counted.

SPEC 7, and: at most the last second of hits uncounted, no miss uncounted. Clients keep book of
every answer they have read to its end; the book is compared with what the next run knows.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from support import anthropic_wire as wire
from support.proxy import Proxy, anthropic_headers, clean_environment
from support.raw import request_bytes
from support.replies import Gate, Reply, json_reply, sse_reply
from support.upstream import Request, Upstream, wait_until

UNCOUNTED_SEC = 1.0
"""Hits of the last second before a kill may be uncounted."""
TOKENS = wire.usage(3, 4)


def text_for(body: bytes) -> str:
    return "answer to " + hashlib.sha256(body).hexdigest()


def answer_for(request: Request) -> Reply:
    """An answer that follows from the question, streamed when that asks for it."""
    if b'"stream":true' in request.body:
        return sse_reply(wire.stream(text_for(request.body), tokens=TOKENS))
    return json_reply(wire.message(text_for(request.body), tokens=TOKENS))


def expected(body: bytes) -> bytes:
    if b'"stream":true' in body:
        return b"".join(wire.stream(text_for(body), tokens=TOKENS))
    return wire.message(text_for(body), tokens=TOKENS)


@dataclass
class Book:
    """What one client has read to its end: body, label, and when."""

    sent: int = 0
    read: list[tuple[bytes, str, float]] = field(default_factory=list)


def client(proxy: Proxy, seed: int, book: Book) -> None:
    """Ask one thing after another, old and new, until the proxy is gone."""
    dice = random.Random(seed)
    with httpx.Client(
        base_url=proxy.url, trust_env=False, timeout=30, headers=anthropic_headers()
    ) as connection:
        while True:
            number = dice.randrange(60) if dice.random() < 0.7 else dice.randrange(10**9)
            body = wire.request(f"question {number}", stream=number % 2 == 0)
            try:
                book.sent += 1
                answer = connection.post("/v1/messages", content=body)
            except httpx.TransportError:
                return
            assert answer.content == expected(body)
            book.read.append((body, answer.headers["x-cache"], time.monotonic()))


@pytest.mark.parametrize("seed", range(2))
def test_a_kill_in_the_middle_of_traffic_loses_no_answer_and_no_miss(
    upstream: Upstream, proxy: Any, seed: int
) -> None:
    upstream.default = answer_for
    dice = random.Random(seed)
    first: Proxy = proxy()
    books = [Book() for _ in range(4)]
    threads = [
        threading.Thread(target=client, args=(first, seed * 100 + number, book))
        for number, book in enumerate(books)
    ]
    for thread in threads:
        thread.start()
    age = UNCOUNTED_SEC + 0.1 + dice.random() * 0.7

    def has_hit_of(age: float) -> bool:
        read = [entry for book in books for entry in list(book.read)]
        moment = time.monotonic() - age
        return any(label == "HIT" and when < moment for _, label, when in read)

    wait_until(lambda: has_hit_of(age), "a hit that must be counted")
    killed = time.monotonic()
    first.kill()
    for thread in threads:
        thread.join()

    read = [entry for book in books for entry in book.read]
    misses = sum(label == "MISS" for _, label, _ in read)
    hits = [when for _, label, when in read if label.startswith("HIT")]
    sent = sum(book.sent for book in books)
    assert misses + len(hits) == len(read)
    assert misses > 10
    assert any(when < killed - UNCOUNTED_SEC for when in hits)

    again: Proxy = proxy()
    stats = again.stats()
    assert misses <= stats["misses"] <= upstream.call_count
    assert sum(when < killed - UNCOUNTED_SEC for when in hits) <= stats["hits"]
    assert stats["calls"] <= sent
    assert stats["errors"] == 0
    assert stats["tokens_spent"] == 7 * stats["misses"]
    assert stats["tokens_saved"] == 7 * stats["hits"]
    print(f"{misses} misses, {len(hits)} hits read; {stats['misses']}, {stats['hits']} counted")

    calls = upstream.call_count
    with httpx.Client(
        base_url=again.url,
        trust_env=False,
        headers=[*anthropic_headers(), ("x-cache-mode", "replay")],
    ) as connection:
        for body in {body for body, _, _ in read}:
            answer = connection.post("/v1/messages", content=body)
            assert (answer.status_code, answer.headers["x-cache"]) == (200, "HIT")
            assert answer.content == expected(body)
    assert upstream.call_count == calls


def test_a_miss_is_stored_and_counted_before_its_last_byte_goes_out(
    upstream: Upstream, proxy: Any
) -> None:
    """Killed the moment the client has its answer: no time for anything to be written later."""
    upstream.default = answer_for
    plain, streamed = wire.request("plain"), wire.request("streamed", stream=True)
    for number, body in enumerate((plain, streamed), 1):
        one: Proxy = proxy()
        assert one.ask(body).header("x-cache") == "MISS"
        one.kill()
        again: Proxy = proxy()
        assert again.stats()["misses"] == number
        assert again.ask(body).header("x-cache") == "HIT"
        assert again.ask(body).body == expected(body)
        again.stop()


def test_an_error_is_counted_before_its_last_byte_goes_out(upstream: Upstream, proxy: Any) -> None:
    upstream.default = json_reply(wire.error(), status=429)
    one: Proxy = proxy()
    assert one.ask(wire.request()).status == 429
    one.kill()
    again: Proxy = proxy()
    assert (again.stats()["calls"], again.stats()["errors"]) == (1, 1)
    assert again.stats()["entries"] == 0


def test_an_answer_that_was_still_coming_when_the_proxy_was_killed_is_not_there(
    upstream: Upstream, proxy: Any
) -> None:
    pieces = wire.stream("cut by a kill")
    gate = Gate()
    upstream.script(sse_reply([*pieces[:-1], gate, pieces[-1]]))
    upstream.default = answer_for
    body = wire.request(stream=True)
    one: Proxy = proxy()
    with one.connect() as waiting:
        fields = anthropic_headers()
        waiting.send(request_bytes("POST", "/v1/messages", "localhost", fields, body))
        answer = waiting.response("POST")
        answer.read(sum(map(len, pieces[:-1])))
        gate.wait_reached()
        one.kill()
        answer.read_all()
        assert not answer.complete
    gate.release()
    again: Proxy = proxy()
    answer = again.ask(body)
    assert (answer.header("x-cache"), answer.body) == ("MISS", expected(body))
    assert again.stats()["entries"] == 1


def test_a_clean_stop_counts_every_hit(upstream: Upstream, proxy: Any) -> None:
    upstream.default = answer_for
    one: Proxy = proxy()
    for _ in range(30):
        one.ask(wire.request())
    one.stop()
    again: Proxy = proxy()
    assert (again.stats()["hits"], again.stats()["misses"]) == (29, 1)


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        ("no scope", 1),
        ('["two", "parts"]', 1),
        ('["anthropic", 7, "HIT"]', 1),
        ('["anthropic", "m", ["HIT"]]', 1),
        ("7", 1),
        (b"\xff", 1),
        ("no text", 1),
        ('["anthropic", "m", "HIT"]', "many"),
        ('["anthropic", "m", "HIT"]', b"\xff"),
    ],
)
def test_a_ledger_row_that_is_none_of_ours_harms_no_figure_and_no_start(
    upstream: Upstream, proxy: Any, scope: Any, value: Any
) -> None:
    """One altered byte in the index must not keep the proxy from starting ever after."""
    upstream.default = answer_for
    one: Proxy = proxy()
    one.ask(wire.request())
    one.stop()
    db = sqlite3.connect(one.home / "store" / "index.sqlite", isolation_level=None)
    db.execute("INSERT INTO ledger VALUES(?, 'calls', ?)", (scope, value))
    db.execute("UPDATE ledger SET scope = CAST(x'ff' AS TEXT) WHERE scope = 'no text'")
    db.close()
    down = subprocess.run(
        [sys.executable, "-m", "llm_cache", "stats", "--json"],
        env=clean_environment(one.home),
        capture_output=True,
        check=True,
    )
    again: Proxy = proxy()
    assert again.ask(wire.request()).header("x-cache") == "HIT"
    assert again.get("/metrics").status_code == 200
    for figures, hits in ((json.loads(down.stdout), 0), (again.stats(), 1)):
        assert (figures["misses"], figures["hits"]) == (1, hits)
        assert figures["by_provider"][0]["misses"] == 1
