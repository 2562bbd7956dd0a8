"""Which sample of a prompt a request is, where the client asks for `x-cache-sample: auto`.

Evals ask the same k times and want k answers. The n-th equal request of one run is sample n,
counted from 1, so that a rerun asks for the same samples again and finds them. What always holds:

- A run gives no number twice while it is held, however many ask at once; a number that came to
  nothing (an upstream's error, a client that left) is given back and is the next one's, so that a
  retry is the sample that the failed try would have been.
- Runs don't know of each other, and neither do different requests.
- Memory is bounded: of more than `limit` different requests, those of the run that was silent for
  longest are forgotten first, and start at 1 again.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

LIMIT: Final = 100_000
"""Different requests that are counted, of all runs together: some 20 MB."""


@dataclass(slots=True)
class _Count:
    """The numbers of one request in one run: the highest given out, and those given back."""

    last: int = 0
    free: list[int] = field(default_factory=list)  # a heap


class Samples:
    """The counts of one running proxy. May be used from any thread."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._runs: OrderedDict[bytes, OrderedDict[bytes, _Count]] = OrderedDict()
        self._counted = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Samples of {self._counted} requests in {len(self._runs)} runs>"

    def take(self, run: bytes, key: bytes) -> int:
        """The number of this request, the lowest that is free.

        `run` is what `x-cache-run` says, b"" for the proxy's own; `key` is the request's key
        without a sample, with its namespace.
        """
        with self._lock:
            counts = self._runs.setdefault(run, OrderedDict())
            self._runs.move_to_end(run)
            count = counts.get(key)
            if count is None:
                count = counts[key] = _Count()
                self._counted += 1
                self._keep_limit()
            else:
                counts.move_to_end(key)
            if count.free:
                return heapq.heappop(count.free)
            count.last += 1
            return count.last

    def give_back(self, run: bytes, key: bytes, number: int) -> None:
        """Let the next equal request have `number`, whose answer was not stored and will not be."""
        with self._lock:
            counts = self._runs.get(run)
            count = None if counts is None else counts.get(key)
            if count is None or not 0 < number <= count.last or number in count.free:
                return  # forgotten meanwhile, or given back before
            heapq.heappush(count.free, number)
            while count.last in count.free:  # so that nothing is kept of what is all given back
                count.free.remove(count.last)
                heapq.heapify(count.free)
                count.last -= 1

    def reset(self, run: bytes) -> None:
        """Forget a run that has ended: its name may be used for another."""
        with self._lock:
            self._counted -= len(self._runs.pop(run, ()))

    def _keep_limit(self) -> None:
        while self._counted > self._limit:
            oldest = next(iter(self._runs))
            self._runs[oldest].popitem(last=False)
            self._counted -= 1
            if not self._runs[oldest]:
                del self._runs[oldest]
