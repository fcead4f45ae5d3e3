"""The request of a grant: as it is stored, and of a grant of before as its row tells it."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from exchange.access.decision.policy import Resource
from exchange.control.requests.stored import StoredRequests, request_of
from exchange.requests.model import Mode, Office, RequestState
from exchange.requests.store import MemoryRequests
from registry.database.unit_of_work import MemoryDatabase
from registry.directory.model import ShareType
from schemas.access import GrantState
from schemas.identifiers import uuid7
from tests.kit.cases.grants import a_grant
from tests.kit.cases.requests import in_state


def stored() -> StoredRequests:
    attributes: Any = SimpleNamespace(
        resource_of=lambda _, topic: Resource(topic=topic, provider="p", published=True, share_type="unconditional"),
    )
    return StoredRequests(MemoryRequests(), attributes)


@pytest.mark.parametrize("state", sorted(set(GrantState)))
def test_every_grant_of_before_has_a_request_in_its_state(state: GrantState) -> None:
    grant = a_grant(state=state, confirmed_by="sun.ps")
    request = request_of(grant, share_type=ShareType.CONDITIONAL, level=None)
    assert request.state is RequestState(state.value)
    assert (request.id, request.consumer, request.provider) == (grant.id, grant.consumer, grant.provider)
    assert (request.requested_by, request.use_until, request.mode) == (grant.requested_by, grant.expires, Mode.SERVICE)
    assert request.level is grant.ceiling
    assert Office.SECURITY_OFFICER in {one.office for one in request.signatures}
    assert (request.rectify_until is not None) is (state is GrantState.SUSPENDED)


def test_when_a_request_of_before_was_received_its_id_says() -> None:
    moment = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
    grant = a_grant(id=uuid7(int(moment.timestamp()) * 1_000_000))
    found = request_of(grant, share_type=ShareType.CONDITIONAL, level=None).received_at
    assert found is not None
    assert abs((found - moment).total_seconds()) < 1
    old = a_grant(id="g1")
    assert request_of(old, share_type=ShareType.CONDITIONAL, level=None).received_at == old.not_before


def test_a_stored_request_is_the_one_that_counts_and_follows_the_state_of_its_grant() -> None:
    requests = stored()
    db = MemoryDatabase()
    request = in_state(RequestState.ACTIVE, id="g1", resource=str(a_grant().topic))
    active, suspended = (a_grant(id="g1", state=one) for one in (GrantState.ACTIVE, GrantState.SUSPENDED))
    with db.begin() as work:
        before = requests.of(work, active)
        requests.put(work, request)
        assert requests.of(work, active) == request
        followed = requests.of(work, suspended)
    assert before.share_type is ShareType.UNCONDITIONAL
    assert before.level is active.ceiling
    assert followed == replace(request, state=RequestState.SUSPENDED, rectify_until=suspended.expires)


def test_many_are_read_together() -> None:
    requests = stored()
    with MemoryDatabase().begin() as work:
        requests.put(work, in_state(RequestState.ACTIVE, id="g1"))
        found = requests.some(work, [a_grant(id="g1"), a_grant(id="g2")])
    assert found.keys() == {"g1", "g2"}
