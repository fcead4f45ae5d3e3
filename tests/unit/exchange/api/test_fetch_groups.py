"""Group commit of long polls: what waits at one moment is fetched together, and what is left out is fetched alone."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from exchange.api.admission.fair_queue import Flow
from exchange.api.long_poll import FetchGroups
from exchange.authorization.request_context import RequestContext
from exchange.records.group_fetch import FetchCall, Outcome
from exchange.records.release import Release, empty_release
from schemas.errors import Reason, RefusedError, UnavailableError
from schemas.names import Topic
from tests.kit.cases.grants import a_connector

TOPIC, OTHER = Topic.parse("people.v1"), Topic.parse("permits.v1")


def call(grant_id: str, department: str = "") -> FetchCall:
    actor = a_connector()
    return FetchCall(
        actor=replace(actor, department=department) if department else actor,
        call=RequestContext(trace="0" * 32),
        grant_id=grant_id,
        position=b"",
        max_records=0,
        max_bytes=0,
    )


def release(grant_id: str, how: str) -> Release:
    return empty_release(0, f"{grant_id} {how}".encode(), caught_up=True)


class Gateway:
    """Fetches that note how they were done; the first group waits until it is let go."""

    def __init__(self, outcome: Callable[[str], Outcome] = lambda grant_id: release(grant_id, "together")) -> None:
        self.outcome = outcome
        self.groups: list[list[str]] = []
        self.alone: list[str] = []
        self.flows: list[Flow] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def together(self, calls: Sequence[FetchCall]) -> Iterator[Mapping[int, Outcome]]:
        self.groups.append([one.grant_id for one in calls])
        for index, one in enumerate(calls):
            yield {index: self.outcome(one.grant_id)}

    def one(self, one: FetchCall) -> Release:
        self.alone.append(one.grant_id)
        if one.grant_id.startswith("first"):
            self.begun.set()
            self.go_on.wait()
        return release(one.grant_id, "alone")

    def run(self, what: Callable[[FetchGroups], Any], *, max_waiting: int = 1_000) -> Any:
        async def main() -> Any:
            async def in_thread(flow: Flow, work: Callable[..., Any], *arguments: Any) -> Any:
                self.flows.append(flow)
                return await asyncio.to_thread(work, *arguments)

            return await what(FetchGroups(self.together, self.one, in_thread, max_waiting=max_waiting))

        return asyncio.run(main())


async def fetch(groups: FetchGroups, *grants: str) -> list[Any]:
    calls = [groups.fetch(TOPIC, call(grant_id)) for grant_id in grants]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return [one.next_position.decode() if isinstance(one, Release) else one for one in answers]


def test_one_that_wakes_alone_is_fetched_alone() -> None:
    gateway = Gateway()
    assert gateway.run(lambda groups: fetch(groups, "a")) == ["a alone"]
    assert gateway.groups == []


def test_those_that_wake_at_one_moment_are_fetched_together_and_in_groups_of_a_bounded_size() -> None:
    gateway = Gateway()
    grants = [f"g{number}" for number in range(200)]
    assert gateway.run(lambda groups: fetch(groups, *grants)) == [f"{one} together" for one in grants]
    assert sorted(one for group in gateway.groups for one in group) == sorted(grants)
    assert {len(group) for group in gateway.groups} == {64, 8}
    assert gateway.alone == []


def test_what_a_group_leaves_out_is_fetched_alone_and_an_error_is_raised_for_its_own_call() -> None:
    gateway = Gateway(
        lambda grant_id: {"b": None, "c": UnavailableError(Reason.OUTCOME_UNKNOWN, "lost")}.get(
            grant_id, release(grant_id, "together")
        )
    )
    first, second, third, fourth = gateway.run(lambda groups: fetch(groups, "a", "b", "c", "d"))
    assert (first, second, fourth) == ("a together", "b alone", "d together")
    assert isinstance(third, UnavailableError)


def test_a_group_that_fails_half_way_fails_nobody() -> None:
    gateway = Gateway()

    def fails(grant_id: str) -> Outcome:
        if grant_id == "b":
            raise RefusedError(Reason.GRANT_UNKNOWN, "a defect of the group")
        return release(grant_id, "together")

    gateway.outcome = fails
    assert gateway.run(lambda groups: fetch(groups, "a", "b", "c")) == ["a together", "b alone", "c alone"]


def test_a_caller_that_has_gone_is_in_no_group() -> None:
    gateway = Gateway()

    async def main(groups: FetchGroups) -> Any:
        tasks = [asyncio.create_task(groups.fetch(TOPIC, call(one))) for one in ("a", "gone", "c")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = gateway.run(main)
    assert gateway.groups == [["a", "c"]]
    assert isinstance(answers[1], asyncio.CancelledError)


def test_no_more_calls_wait_than_may() -> None:
    gateway = Gateway()
    answers = gateway.run(lambda groups: fetch(groups, "a", "b", "c"), max_waiting=2)
    assert answers[:2] == ["a together", "b together"]
    assert answers[2].reason is Reason.OVERLOADED
    assert gateway.run(lambda groups: fetch(groups, "a"), max_waiting=1) == ["a alone"]


def test_a_topic_does_not_wait_for_another() -> None:
    gateway = Gateway()

    async def main(groups: FetchGroups) -> Any:
        waiting = [asyncio.create_task(groups.fetch(TOPIC, call("first"))) for _ in range(1)]
        await asyncio.to_thread(gateway.begun.wait)
        other = await groups.fetch(OTHER, call("other"))
        gateway.go_on.set()
        return other, await waiting[0]

    other, first = gateway.run(main)
    assert (other.next_position, first.next_position) == (b"other alone", b"first alone")
    assert not gateway.groups


@pytest.mark.parametrize("size", [1, 5])
def test_nothing_is_kept_of_what_is_done(size: int) -> None:
    gateway = Gateway()

    async def main(groups: FetchGroups) -> Any:
        await fetch(groups, *(f"g{number}" for number in range(size)))
        await asyncio.sleep(0.01)
        return groups._waiting, groups._groups, groups._tasks

    assert gateway.run(main) == ({}, {}, set())


def test_departments_take_turns_in_a_group_and_a_mixed_group_takes_the_topic_s_turn() -> None:
    gateway = Gateway()

    async def main(groups: FetchGroups) -> Any:
        many = [groups.fetch(TOPIC, call(f"many-{number}", "many")) for number in range(300)]
        few = [groups.fetch(TOPIC, call(f"few-{number}", "few")) for number in range(8)]
        return await asyncio.gather(*many, *few)

    gateway.run(main)
    assert sum(one.startswith("few") for one in gateway.groups[0]) == 8  # though they came last
    assert {gateway.flows[0].department, gateway.flows[-1].department} == {f"topic {TOPIC}", "many"}


def test_how_many_wait_is_counted_by_department() -> None:
    gateway = Gateway()

    async def main(groups: FetchGroups) -> Any:
        calls = [groups.fetch(TOPIC, call(f"a{number}", "many")) for number in range(5)]
        calls.append(groups.fetch(TOPIC, call("b", "few")))
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = gateway.run(main, max_waiting=3)
    assert [isinstance(one, UnavailableError) for one in answers] == [False, False, False, True, True, False]
