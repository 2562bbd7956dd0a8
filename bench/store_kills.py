"""Kill a writer at every step of its work, many times over, and check what it left.

    python bench/store_kills.py [--seeds 200] [--first 0]

Each seed starts a child that puts, replaces and deletes, with limits that keep evicting, and tells
its parent of every answer only after the store has reported it stored. The child kills itself with
SIGKILL at a step chosen by the seed (one seed in three: the parent kills it at some moment). Then
the parent opens the store and checks: what was reported stored is served, byte for byte; what was
deleted is gone; the ledger has every amount that was reported; no wrong byte is served; and after
a sweep the index and the files agree. The tests run some seeds of this on every run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from llm_cache.store import Limits
from llm_cache.store.local import LocalStore

MOST = 12  # entries
STEPS = (
    "draft-created",
    "draft-half-written",
    "draft-written",
    "blob-renamed",
    "blobs-placed",
    "entry-inserted",
    "keys-pointed",
    "tallied",
    "entry-removed",
    "totals-written",
    "committed",
    "unlinked",
)


def body_of(number: int) -> bytes:
    """Return the body put by operation `number`; every fifth shares the one before."""
    return random.Random(number - (number % 5 == 4)).randbytes(200 + number * 37 % 900)


def plan(seed: int) -> list[tuple[str, int, int]]:
    """Return the operations of a seed: (what, key, operation's number)."""
    rng = random.Random(seed)
    return [
        ("delete" if rng.random() < 0.12 else "put", rng.randrange(20), number)
        for number in range(60)
    ]


def by_its_parent(seed: int) -> bool:
    """Tell whether the writer of this seed is killed from outside, at no step in particular."""
    return seed // len(STEPS) % 3 == 2


def child(path: Path, seed: int) -> None:
    """Carry out the plan; die at the step the seed chose, or when the parent says so."""
    rng = random.Random(f"death of {seed}")
    where, left = STEPS[seed % len(STEPS)], rng.randrange(1, 25)
    by_itself = not by_its_parent(seed)

    def step(name: str) -> None:
        nonlocal left
        if by_itself and name == where:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    now = 1_000_000.0
    store = LocalStore.open(path, Limits(max_entries=MOST), clock=lambda: now, step=step)
    for what, key, number in plan(seed):
        now += 1
        os.write(1, b"begin %d\n" % number)
        if what == "put":
            request = b"request %d" % number if number % 3 else None
            tallies = {"calls": {"n": 1}}
            keys = [b"key %d" % key, b"further %d" % key]
            store.put(keys, b"%d" % number, body_of(number), request=request, tallies=tallies)
        else:
            store.delete(b"further %d" % key)
        os.write(1, b"done %d\n" % number)
    os.kill(os.getpid(), signal.SIGKILL)


def states(operations: list[tuple[str, int, int]]) -> dict[int, int]:
    """Return what a store with the limit holds after them: key to operation, oldest first."""
    held: dict[int, int] = {}
    for what, key, number in operations:
        held.pop(key, None)
        if what == "put":
            held[key] = number
            if len(held) > MOST:
                del held[next(iter(held))]
    return held


def check(seed: int, path: Path) -> tuple[int, list[str]]:
    """Run one seed; return how many operations were reported done and what is wrong after."""
    writer = subprocess.Popen(
        [sys.executable, __file__, "--child", str(path), str(seed)], stdout=subprocess.PIPE
    )
    if by_its_parent(seed):
        assert writer.stdout is not None
        begun = writer.stdout.readline()
        time.sleep(random.Random(f"moment of {seed}").random() * 0.03)
        writer.kill()
        said = begun + writer.stdout.read()
        writer.wait()
        writer.stdout.close()
    else:
        said, _ = writer.communicate()
    if writer.returncode != -signal.SIGKILL:
        return 0, [f"the writer ended with {writer.returncode}"]
    done = sum(line.startswith(b"done") for line in said.splitlines())
    begun_count = sum(line.startswith(b"begin") for line in said.splitlines())
    operations = plan(seed)
    # The operation it died in may have happened or not, but not by half.
    allowed = [states(operations[:done]), states(operations[:begun_count])]
    wrong = []
    store = LocalStore.open(path, Limits(max_entries=MOST), clock=lambda: 1_000_100.0)
    found: dict[int, int] = {}
    for key in range(20):
        stored = store.get(b"key %d" % key)
        also = store.get(b"further %d" % key)
        if (stored and stored.entry.id) != (also and also.entry.id):
            wrong.append(f"the two keys of {key} differ")
        if stored is None:
            continue
        number = int(stored.entry.meta)
        found[key] = number
        if stored.body != body_of(number):
            wrong.append(f"key {key} is served with a wrong body")
        expected = b"request %d" % number if number % 3 else None
        if store.request_body(stored.entry) != expected:
            wrong.append(f"the request of key {key} is lost")
    if found not in allowed:
        wrong.append(f"after {done} operations it holds {found}, not {allowed[0]}")
    puts = [sum(op[0] == "put" for op in operations[:n]) for n in (done, begun_count)]
    if store.ledger.read().get("calls", {"n": 0})["n"] not in puts:
        wrong.append(f"the ledger says {store.ledger.read()} after {puts} puts")
    store.sweep()
    wrong += store.integrity()
    store.put([b"after"], b"", b"after")
    wrong += store.integrity()
    store.close()
    return done, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.child:
        child(Path(arguments.child[0]), int(arguments.child[1]))
        return 0
    counts: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            done, wrong = check(seed, Path(folder) / str(seed))
            counts["kills"] += 1
            counts["operations"] += done
            for line in wrong:
                counts["wrong"] += 1
                print(f"seed {seed}: {line}")
    print(
        f"{counts['kills']} kills, {counts['operations']} operations reported done, "
        f"{counts['wrong']} wrong, {time.monotonic() - started:.0f} s"
    )
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
