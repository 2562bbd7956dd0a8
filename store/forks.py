"""Forks: an SQLite connection must not be used in a child, nor left lying there.

SQLite keeps what locks a process has on a file in that process's memory. A child inherits that
memory but not the locks, so that even a new connection of its own would believe it holds what it
doesn't, and the parent could remove the WAL under it. So: nobody is inside SQLite while the
process forks, and the child's first act, while its parent still holds the real locks, is to close
what it inherited. A store opened before a fork is closed in the child; the child opens its own.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """What has to be at rest while the process forks."""

    def before_fork(self) -> None:
        """Wait until no thread is at work, and keep it so."""

    def after_fork_in_parent(self) -> None:
        """Let work go on."""

    def after_fork_in_child(self) -> None:
        """Close what was inherited."""


_known: WeakSet[Forkable] = WeakSet()
_at_rest: list[Forkable] = []


def register(one: Forkable) -> None:
    """Have `one` told of every fork from now on."""
    _known.add(one)


def unregister(one: Forkable) -> None:
    """Stop telling `one`."""
    _known.discard(one)


def _before() -> None:
    _at_rest.extend(_known)
    for one in _at_rest:
        one.before_fork()


def _in_parent() -> None:
    while _at_rest:
        _at_rest.pop().after_fork_in_parent()


def _in_child() -> None:
    while _at_rest:
        _at_rest.pop().after_fork_in_child()
    _known.clear()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
