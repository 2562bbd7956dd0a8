"""Flights as a playbook: what the upstream and the clients do, in order, and the state after it.

Plain asyncio, no sockets: each script is run on a real event loop, and after every script the
table must be empty and no task left. A state is read from `repr`, which is part of the promise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from llm_cache.exchange.flights import WINDOW_BYTES, Flight, FlightFailed, Flights, Follower

KEY, OTHER = b"k" * 32, b"o" * 32


class Upstream:
    """Plays one answer: every step is given by the test, the flight does it at once."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[Callable[[Flight], Awaitable[None] | None]] = asyncio.Queue()
        self.ended: list[str] = []
        """How each run ended: `done`, `cancelled`, or the exception."""

    async def __call__(self, flight: Flight) -> None:
        try:
            while True:
                step = await self.steps.get()
                waiting = step(flight)
                if waiting is not None:
                    await waiting
                if flight.ended:
                    self.ended.append("done")
                    return
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        except Exception as error:
            self.ended.append(repr(error))
            raise

    async def does(self, *steps: Callable[[Flight], Awaitable[None] | None]) -> None:
        for step in steps:
            self.steps.put_nowait(step)
        await settled()


def head(status: int = 200) -> Callable[[Flight], None]:
    return lambda flight: flight.begin(status, [])


def sends(data: bytes) -> Callable[[Flight], None]:
    return lambda flight: flight.publish(data)


def lands(flight: Flight) -> None:
    flight.land()


def breaks(flight: Flight) -> None:
    flight.fail("cut")


async def settled() -> None:
    """Let every task that can go on do so: some rounds of the loop, no clock."""
    for _ in range(20):
        await asyncio.sleep(0)


async def read(follower: Follower) -> bytes:
    """What one client does: wait for the head, take everything."""
    with follower:
        await follower.head()
        taken = b""
        while data := await follower.next():
            taken += data
        return taken


@pytest.fixture
def reported() -> list[BaseException]:
    """The errors a flight didn't expect."""
    return []


@pytest.fixture
async def flights(reported: list[BaseException]) -> AsyncIterator[Flights]:
    table = Flights(reported.append)
    yield table
    await settled()
    assert len(table) == 0
    assert table.joinable(KEY) is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


async def test_an_answer_reaches_who_asked_and_the_table_is_empty(
    flights: Flights, upstream: Upstream
) -> None:
    flight = flights.start(KEY, upstream)
    client = asyncio.create_task(read(flight.follow()))
    await settled()
    assert repr(flight) == "<Flight flying status=0 chunks=0 followers=1>"
    await upstream.does(head())
    assert repr(flight) == "<Flight flying status=200 chunks=0 followers=1>"
    await upstream.does(sends(b"one "), sends(b"two"))
    assert repr(flight) == "<Flight flying status=200 chunks=2 followers=1>"
    assert flights.joinable(KEY) is flight
    assert flights.joinable(OTHER) is None
    await upstream.does(lands)
    assert await client == b"one two"
    assert repr(flight) == "<Flight landed status=200 chunks=2 followers=0>"
    assert upstream.ended == ["done"]


async def test_a_late_joiner_gets_the_beginning_at_once_and_then_every_chunk_live(
    flights: Flights, upstream: Upstream
) -> None:
    flight = flights.start(KEY, upstream)
    first = asyncio.create_task(read(flight.follow()))
    await upstream.does(head(), sends(b"a"), sends(b"b"))
    with flight.follow() as late:
        await late.head()
        assert await late.next() == b"ab"
        coming = asyncio.create_task(late.next())
        await settled()
        assert not coming.done()
        await upstream.does(sends(b"c"))
        assert coming.done()
        assert await coming == b"c"
        await upstream.does(lands)
        assert await late.next() == b""
    assert await first == b"abc"


async def test_a_flight_that_landed_is_read_to_its_end_by_who_followed_it(
    flights: Flights, upstream: Upstream
) -> None:
    flight = flights.start(KEY, upstream)
    slow = flight.follow()
    await upstream.does(head(), sends(b"a"), sends(b"b"), lands)
    assert flights.joinable(KEY) is None
    assert await read(slow) == b"ab"


async def test_a_failed_flight_fails_everyone_after_the_bytes_that_came(
    flights: Flights, upstream: Upstream
) -> None:
    flight = flights.start(KEY, upstream)
    early = flight.follow()
    await upstream.does(head(), sends(b"part"))
    late = flight.follow()
    await upstream.does(breaks)
    assert repr(flight) == "<Flight failed status=200 chunks=1 followers=2>"
    for follower in (early, late):
        with follower:
            await follower.head()
            assert await follower.next() == b"part"
            with pytest.raises(FlightFailed, match="cut"):
                await follower.next()
    assert upstream.ended == ["done"]


async def test_a_flight_that_fails_without_a_head_says_so_in_head(
    flights: Flights, upstream: Upstream
) -> None:
    flight = flights.start(KEY, upstream)
    waiting = asyncio.create_task(read(flight.follow()))
    await settled()
    await upstream.does(breaks)
    with pytest.raises(FlightFailed, match="cut"):
        await waiting
    assert repr(flight) == "<Flight failed status=0 chunks=0 followers=0>"


async def cancelled(task: asyncio.Task[bytes]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_everybody_cancelled_while_waiting_for_the_head_ends_the_call(
    flights: Flights, upstream: Upstream
) -> None:
    flight = flights.start(KEY, upstream)
    clients = [asyncio.create_task(read(flight.follow())) for _ in range(3)]
    await settled()
    for left, client in zip((2, 1, 0), clients, strict=True):
        assert upstream.ended == []
        await cancelled(client)
        assert f"followers={left}" in repr(flight)
    assert flights.joinable(KEY) is None
    await settled()
    assert upstream.ended == ["cancelled"]
    assert repr(flight) == "<Flight failed status=0 chunks=0 followers=0>"


async def test_everybody_cancelled_in_the_middle_of_the_body_ends_the_call(
    flights: Flights, upstream: Upstream
) -> None:
    flight = flights.start(KEY, upstream)
    clients = [asyncio.create_task(read(flight.follow())) for _ in range(2)]
    await upstream.does(head(), sends(b"a"))
    await cancelled(clients[0])
    await settled()
    assert upstream.ended == []
    await cancelled(clients[1])
    await settled()
    assert upstream.ended == ["cancelled"]
    assert repr(flight) == "<Flight failed status=200 chunks=1 followers=0>"


async def test_a_call_nobody_waits_for_before_its_first_step_leaves_no_trace(
    flights: Flights, upstream: Upstream
) -> None:
    flight = flights.start(KEY, upstream)
    with flight.follow():
        pass
    assert flights.joinable(KEY) is None
    await settled()
    assert upstream.ended == []  # not one line of it ran
    assert repr(flight) == "<Flight failed status=0 chunks=0 followers=0>"


async def test_the_next_one_to_ask_an_abandoned_question_starts_anew(
    flights: Flights, upstream: Upstream
) -> None:
    second = Upstream()
    abandoned = flights.start(KEY, upstream)
    with abandoned.follow():
        await upstream.does(head(), sends(b"old"))
    # The first is being given up and hasn't heard of it yet.
    assert flights.joinable(KEY) is None
    flight = flights.start(KEY, second)
    client = asyncio.create_task(read(flight.follow()))
    await second.does(head(), sends(b"new"))
    assert upstream.ended == ["cancelled"]
    assert flights.joinable(KEY) is flight  # the end of the first didn't take it out
    await second.does(lands)
    assert await client == b"new"


async def test_one_who_leaves_harms_nobody(flights: Flights, upstream: Upstream) -> None:
    flight = flights.start(KEY, upstream)
    leader, joiner, stayer = (asyncio.create_task(read(flight.follow())) for _ in range(3))
    await upstream.does(head(), sends(b"a"))
    await cancelled(leader)
    await upstream.does(sends(b"b"))
    await cancelled(joiner)
    await upstream.does(sends(b"c"), lands)
    assert await stayer == b"abc"
    assert upstream.ended == ["done"]


async def test_an_answer_that_is_whole_is_finished_though_nobody_waits(
    flights: Flights, upstream: Upstream
) -> None:
    storing = asyncio.Event()

    def stores(flight: Flight) -> Awaitable[object]:
        flight.whole = True
        return storing.wait()

    flight = flights.start(KEY, upstream)
    with flight.follow():
        await upstream.does(head(), sends(b"a"), stores)
    await settled()
    assert upstream.ended == []
    storing.set()
    await upstream.does(lands)
    assert upstream.ended == ["done"]
    assert repr(flight) == "<Flight landed status=200 chunks=1 followers=0>"


@pytest.mark.parametrize("fault", [RuntimeError("bug"), asyncio.CancelledError()])
async def test_whatever_happens_in_a_flight_it_ends_for_its_followers_and_is_reported(
    flights: Flights, upstream: Upstream, fault: BaseException, reported: list[BaseException]
) -> None:
    def faults(flight: Flight) -> None:
        raise fault

    flight = flights.start(KEY, upstream)
    client = asyncio.create_task(read(flight.follow()))
    await upstream.does(head(), sends(b"a"), faults)
    with pytest.raises(FlightFailed):
        await client
    assert repr(flight) == "<Flight failed status=200 chunks=1 followers=0>"
    await settled()
    assert reported == ([fault] if isinstance(fault, RuntimeError) else [])


async def test_a_flight_that_returns_without_an_end_is_a_failed_one(flights: Flights) -> None:
    async def forgets(flight: Flight) -> None:
        flight.begin(200, [])

    flight = flights.start(KEY, forgets)
    with pytest.raises(FlightFailed, match="without an end"):
        await read(flight.follow())


async def test_flights_without_a_key_are_joined_by_nobody(flights: Flights) -> None:
    upstreams = [Upstream(), Upstream()]
    clients = []
    for upstream in upstreams:
        flight = flights.start(None, upstream)
        clients.append(asyncio.create_task(read(flight.follow())))
    assert len(flights) == 2
    for number, upstream in enumerate(upstreams):
        await upstream.does(head(), sends(b"%d" % number), lands)
    assert [await client for client in clients] == [b"0", b"1"]


async def test_a_flight_no_longer_kept_runs_at_most_a_window_ahead_of_its_slowest_follower(
    flights: Flights, upstream: Upstream
) -> None:
    chunk = bytes(WINDOW_BYTES // 4)
    published = 0

    async def pours(flight: Flight) -> None:
        nonlocal published
        flight.stop_keeping()
        flights.close_to_joiners(flight)
        for _ in range(40):
            flight.publish(chunk)
            published += 1
            await flight.room()
        flight.land()

    flight = flights.start(KEY, upstream)
    with flight.follow() as fast, flight.follow() as slow:
        await upstream.does(head(), pours)
        assert flights.joinable(KEY) is None
        assert published == 5  # the window, and the chunk that went over it
        taken = 0
        while taken < 40 * len(chunk):
            for follower in (fast, slow):
                data = await follower.next()
                assert 0 < len(data) <= WINDOW_BYTES + len(chunk)
                await settled()
            taken += len(data)
            assert published * len(chunk) <= taken + WINDOW_BYTES + len(chunk)
        assert await fast.next() == await slow.next() == b""
    assert upstream.ended == ["done"]


async def test_a_slow_follower_that_leaves_frees_the_others_of_a_flight_not_kept(
    flights: Flights, upstream: Upstream
) -> None:
    chunk = bytes(WINDOW_BYTES)

    async def pours(flight: Flight) -> None:
        flight.stop_keeping()
        for _ in range(10):
            flight.publish(chunk)
            await flight.room()
        flight.land()

    flight = flights.start(None, upstream)
    stuck = flight.follow()
    fast = asyncio.create_task(read(flight.follow()))
    await upstream.does(head(), pours)
    await settled()
    assert not fast.done()
    with stuck:
        pass
    assert len(await fast) == 10 * len(chunk)


async def test_shutdown_gives_up_every_flight_and_its_followers_hear_of_it(
    flights: Flights, upstream: Upstream
) -> None:
    second = Upstream()
    clients = [
        asyncio.create_task(read(flights.start(KEY, upstream).follow())),
        asyncio.create_task(read(flights.start(OTHER, second).follow())),
    ]
    await upstream.does(head(), sends(b"a"))
    await flights.cancel_all()
    for client in clients:
        with pytest.raises(FlightFailed, match="given up"):
            await client
    assert len(flights) == 0
    assert (upstream.ended, second.ended) == (["cancelled"], ["cancelled"])


async def test_shutdown_waits_for_what_is_whole_and_is_being_stored(
    flights: Flights, upstream: Upstream
) -> None:
    stored = asyncio.get_running_loop().create_future()

    async def is_whole(flight: Flight) -> None:
        flight.publish(b"a")
        flight.whole = True
        await stored
        flight.land()

    client = asyncio.create_task(read(flights.start(KEY, upstream).follow()))
    await upstream.does(head(), is_whole)
    ending = asyncio.create_task(flights.cancel_all())
    await settled()
    assert not ending.done()
    stored.set_result(None)
    await ending
    assert await client == b"a"
    assert upstream.ended == ["done"]
