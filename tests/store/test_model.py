"""Any sequence of operations leaves the store equal to a dict with limits and a clock."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llm_cache.store import Limits, Store
from llm_cache.store.local import LocalStore
from llm_cache.store.local.blobs import encode
from llm_cache.store.memory import MemoryTier

KEYS = [b"key %d" % number for number in range(6)]
keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3)
# Few bodies, so that they are shared, and of sizes that make the byte limit bite.
BODIES = [b"", b"tea", bytes(range(256)), bytes(range(255, -1, -1)) * 2, b"long " * 500]
bodies = st.sampled_from(BODIES)
DISK = {body: len(encode(body)) for body in BODIES}


@dataclass
class Held:
    """One entry as the model has it; `used` orders them."""

    keys: set[bytes]
    body: bytes
    request: bytes | None
    created: float
    ttl: float | None
    used: int
    hits: int = field(default=0)


class StoreAgainstModel(RuleBasedStateMachine):
    @initialize(
        ttl=st.sampled_from([0, 10]),
        most=st.sampled_from([0, 2, 4]),
        size=st.sampled_from([0, 700, 1_500]),
        memory=st.sampled_from([0, 5_000, 1 << 20]),
        stale=st.sampled_from([0, 6]),
    )
    def begin(self, ttl: float, most: int, size: int, memory: int, stale: float) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.limits = Limits(ttl, most, size, memory, stale)
        self.now = 1_000.0
        self.turn = 0
        self.held: list[Held] = []
        self.ledger = 0
        self.store = self.open()

    def open(self) -> Store:
        path, clock = Path(self.folder.name) / "store", lambda: self.now
        self.local = LocalStore.open(path, self.limits, clock=clock)
        return MemoryTier(self.local, self.limits, clock)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert self.local.integrity() == []
            self.store.close()
            self.folder.cleanup()

    def tick(self) -> int:
        """Uses are told apart by time, so every use happens a little later than the last."""
        self.turn += 1
        self.now += 1 / 1_024
        return self.turn

    def is_expired(self, held: Held, now: float | None = None) -> bool:
        ttl = held.ttl if held.ttl is not None else self.limits.ttl_sec or float("inf")
        return held.created + ttl <= (self.now if now is None else now)

    def is_gone(self, held: Held) -> bool:
        return self.is_expired(held, self.now - self.limits.stale_sec)

    def bytes(self) -> int:
        bodies = {held.body for held in self.held} | {held.request for held in self.held}
        return sum(DISK[body] for body in bodies if body is not None)

    @rule(chosen=keys, body=bodies, request=st.none() | bodies, ttl=st.sampled_from([None, 3, 30]))
    def put(
        self, chosen: list[bytes], body: bytes, request: bytes | None, ttl: float | None
    ) -> None:
        turn = self.tick()
        new = Held(set(chosen), body, request, self.now, ttl, turn)
        entry = self.store.put(
            chosen, b"m", body, request=request, ttl=ttl, tallies={"s": {"n": 1}}
        )
        self.ledger += 1
        for held in self.held:
            held.keys -= new.keys
        self.held = [held for held in self.held if held.keys]
        self.held.append(new)
        self.held.sort(key=lambda held: held.used)
        while self.limits.max_entries and len(self.held) > self.limits.max_entries:
            self.held.pop(0)
        while self.limits.max_bytes and self.bytes() > self.limits.max_bytes:
            with_request = [held for held in self.held if held.request is not None]
            if with_request:
                with_request[0].request = None
            else:
                self.held.pop(0)
        assert self.store.request_body(entry) == new.request

    @rule(key=st.sampled_from(KEYS), max_age=st.sampled_from([None, 0, 4]), stale=st.booleans())
    def get(self, key: bytes, max_age: float | None, stale: bool) -> None:
        turn = self.tick()
        stored = self.store.get(key, max_age=max_age, stale=stale)
        held = next((held for held in self.held if key in held.keys), None)
        if held is not None and self.is_gone(held):
            self.held.remove(held)
            held = None
        if held is not None and not stale and self.is_expired(held):
            held = None
        oldest = float("inf") if max_age is None else max_age
        if held is None or self.now - held.created >= oldest + (
            self.limits.stale_sec if stale else 0
        ):
            assert stored is None
            return
        assert stored is not None
        assert stored.body == held.body
        assert stored.entry.created == held.created
        held.used = turn
        held.hits += 1

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: bytes) -> None:
        held = next((held for held in self.held if key in held.keys), None)
        assert self.store.delete(key) is (held is not None)
        if held is not None:
            self.held.remove(held)

    @rule()
    def clear(self) -> None:
        assert self.store.clear() == len(self.held)
        self.held.clear()

    @rule(seconds=st.sampled_from([1, 2.5, 7]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def flush(self) -> None:
        self.store.flush()
        self.held = [held for held in self.held if not self.is_gone(held)]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    @rule()
    def list_entries(self) -> None:
        live = [held for held in self.held if not self.is_expired(held)]
        live.sort(key=lambda held: -held.used)
        listed = list(self.store.entries())
        assert [(entry.size, entry.hits) for _, entry in listed] == [
            (len(held.body), held.hits) for held in live
        ]
        assert all(
            bytes.fromhex(key) in held.keys for (key, _), held in zip(listed, live, strict=True)
        )

    @invariant()
    def totals_are_exact(self) -> None:
        if hasattr(self, "store"):
            totals = self.store.totals()
            assert (totals.entries, totals.bytes) == (len(self.held), self.bytes())
            assert self.store.ledger.read().get("s", {"n": 0})["n"] == self.ledger


StoreAgainstModel.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreAgainstModel = StoreAgainstModel.TestCase
