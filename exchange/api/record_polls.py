"""Long polls of records, for every listener: fetch, wait for the topic to grow, fetch again, within the memory budget.

    answer, held = await polls.fetch(FetchCall(…), encode, wait=20.0)
    require_window(answer.release)  immediately before the bytes leave
    held.release()                  after they were written

gRPC and HTTP differ in the bytes that a release becomes, and in nothing before that: decision, view, quota, entry,
bounds and turns are here and behind `exchange.records.fetch`. An answer may have megabytes, so it is encoded in the
thread that fetched it: in the event loop, every other call of the process would wait meanwhile.
"""

import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from exchange import metrics
from exchange.api.admission.reply_budget import ReplyBudget, Reservation, weight_of
from exchange.api.admission.scheduler import FairScheduler, flow_of
from exchange.api.long_poll import FetchGroups, TopicGrowth
from exchange.api.problems import as_pool_error
from exchange.pool import Pool
from exchange.records.group_fetch import FetchCall, Outcome
from exchange.records.reading.scan import MAX_ANSWER_BYTES
from exchange.records.release import Release
from schemas.access import Actor
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic

__all__ = ["LONGEST_WAIT", "Answer", "RecordPolls", "measured", "require_window"]

LONGEST_WAIT: Final = 60.0
"""Seconds of one long poll at most."""

_T = TypeVar("_T")
_WOKEN_BYTES = 1024 * 1024  # of the answer of a poll that had to wait
_REREAD = 5.0  # seconds after which a poll reads again without a wake-up, in case one was lost


@dataclass(frozen=True, slots=True)
class Answer:
    """A release, and the bytes of the answer that has it."""

    release: Release
    encoded: bytes


class RecordPolls:
    """Long polls of one process, on its event loop.

    Args:
        pool: behind it.
        scheduler: of the process.
        topic_growth: of the topics that are polled.
        max_polls: long polls of one department, on one topic, that wait to be fetched.
        max_reply_bytes: memory of all answers.
    """

    def __init__(
        self,
        pool: Pool,
        scheduler: FairScheduler,
        topic_growth: TopicGrowth,
        *,
        max_polls: int,
        max_reply_bytes: int,
    ) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._topic_growth = topic_growth
        self._replies = ReplyBudget(max_reply_bytes)
        self._groups = FetchGroups(self._fetch_together, self._fetch, scheduler.run, max_waiting=max_polls)

    async def fetch(
        self, first: FetchCall, encode: Callable[[Release], bytes], *, wait: float
    ) -> tuple[Answer, Reservation]:
        """Fetch; without records, wait for the topic to grow and fetch again, until the poll's time is over.

        Args:
            first: the fetch.
            encode: makes the bytes of an answer, in a thread.
            wait: seconds, of which `LONGEST_WAIT` count.

        Returns:
            The answer, and the memory that is reserved for it.

        Raises:
            PoolError: what `FetchService.fetch` raises.
        """
        actor = first.actor
        deadline = time.monotonic() + min(wait, LONGEST_WAIT)
        largest = weight_of(min(first.max_bytes or MAX_ANSWER_BYTES, MAX_ANSWER_BYTES))
        answer, held = await self._held(actor, largest, self._run(actor, self._answer, first, encode))
        if len(answer.release) or time.monotonic() >= deadline:
            return answer, held
        with metrics.POLLS_WAITING.track_inprogress():
            return await self._wait(replace(first, position=answer.release.next_position), encode, deadline)

    async def _wait(
        self, first: FetchCall, encode: Callable[[Release], bytes], deadline: float
    ) -> tuple[Answer, Reservation]:
        actor, position = first.actor, first.position
        topic = await self._run(actor, self._pool.fetching.topic_of, actor, first.call, first.grant_id)
        # What woke a poll is little. Nothing is reserved for it, so its answers are small ones.
        woken = replace(first, max_bytes=min(first.max_bytes or _WOKEN_BYTES, _WOKEN_BYTES))
        while True:
            # Before the read, so that records appended after it change the version.
            version = self._topic_growth.watched(topic)
            if version is None:
                version = await self._run(actor, self._topic_growth.version, topic)
            woken = replace(woken, position=position)
            answer, held = await self._held(actor, 0, self._answer_together(topic, woken, encode))
            left = deadline - time.monotonic()
            if len(answer.release) or left <= 0:
                return answer, held
            position = answer.release.next_position
            if answer.release.caught_up:
                await self._topic_growth.wait(topic, version, min(left, _REREAD))

    async def _held(self, actor: Actor, weight: int, fetch: Coroutine[Any, Any, Answer]) -> tuple[Answer, Reservation]:
        """Reserve memory, then fetch; return the answer, and what is held of it."""
        try:
            held = await self._replies.reserve(flow_of(actor), weight)
        except BaseException:
            fetch.close()
            raise
        try:
            answer = await fetch
        except BaseException:
            held.release()
            raise
        released = answer.release
        values = released.values if released.texts is None else released.texts
        held.settle(weight_of(len(values.values), len(released)) if len(released) else 0)
        return answer, held

    def _answer(self, one: FetchCall, encode: Callable[[Release], bytes]) -> Answer:
        released = self._fetch(one)
        return Answer(released, encode(released))

    async def _answer_together(self, topic: Topic, one: FetchCall, encode: Callable[[Release], bytes]) -> Answer:
        released = await self._groups.fetch(topic, one)
        return Answer(released, encode(released))  # in the event loop: what woke a poll is little

    def _fetch_together(self, calls: Sequence[FetchCall]) -> Iterator[Mapping[int, Outcome]]:
        return self._pool.fetching_together.fetch(calls)

    def _fetch(self, one: FetchCall) -> Release:
        return self._pool.fetching.fetch(
            one.actor, one.call, one.grant_id, one.position, one.max_records, one.max_bytes, as_json=one.as_json
        )

    async def _run(self, actor: Actor, work: Callable[..., _T], *arguments: Any) -> _T:
        return await self._scheduler.run(flow_of(actor), work, *arguments)


def require_window(released: Release) -> None:
    """Refuse what may not leave any more, and count what leaves; called immediately before the bytes do.

    Raises:
        UnavailableError: RELEASE_TOO_LATE.
    """
    if time.monotonic() > released.deadline:
        raise UnavailableError(
            Reason.RELEASE_TOO_LATE,
            "the release window passed before the bytes could leave; fetch again from the same position",
            retry_after=0.0,
        )
    metrics.RECORDS_RELEASED.inc(len(released))


@contextmanager
def measured(method: str) -> Iterator[None]:
    """Count a call by its outcome and measure its time."""
    started = time.monotonic()
    outcome = "ok"
    try:
        yield
    except Exception as error:
        outcome = str(as_pool_error(error).reason)
        raise
    finally:
        metrics.CALLS.labels(method, outcome).inc()
        metrics.CALL_SECONDS.labels(method).observe(time.monotonic() - started)
