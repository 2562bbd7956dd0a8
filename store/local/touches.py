"""Touches: which entries were used since the last flush. In memory until `flush` writes them.

Whoever chooses a victim asks here first, so that what was used a moment ago is not taken for old.
Nothing is dropped before it is known to be committed.
"""

from __future__ import annotations

import threading
from itertools import islice


class Touches:
    """Access times and hit counts by entry id that the index doesn't have yet. Thread-safe."""

    def __init__(self) -> None:
        self._pending: dict[int, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pending)

    def note(self, entry: int, now: float) -> None:
        """Count one hit of an entry."""
        with self._lock:
            accessed, hits = self._pending.get(entry, (0.0, 0))
            self._pending[entry] = (now if now > accessed else accessed, hits + 1)

    def of(self, entry: int) -> tuple[float, int] | None:
        """Return the last access and the hits of an entry that are not written yet."""
        return self._pending.get(entry)

    def batch(self, size: int) -> dict[int, tuple[float, int]]:
        """Return up to `size` touches to write. They stay here until `written` names them."""
        with self._lock:
            return dict(islice(self._pending.items(), size))

    def written(self, touches: dict[int, tuple[float, int]]) -> None:
        """Forget touches that are committed; what came on top since then stays."""
        with self._lock:
            for entry, (_, hits) in touches.items():
                now_pending = self._pending.get(entry)
                if now_pending is None:
                    continue
                if now_pending[1] <= hits:
                    del self._pending[entry]
                else:
                    self._pending[entry] = (now_pending[0], now_pending[1] - hits)

    def forget(self) -> None:
        """Drop everything: the index these ids belong to is gone."""
        with self._lock:
            self._pending.clear()
