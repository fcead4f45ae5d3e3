"""An old backup brings back neither a grant that was ended, nor a request that was withdrawn, nor a signature.

The log says what happened since; a read of a grant, which names its version too, hides none of it.
"""

from dataclasses import replace
from typing import Any

import pytest

from exchange.access.grants.memory import MemoryAccessStore
from exchange.access.grants.row_mac import RowMac
from exchange.backup.gap import Gap
from exchange.backup.replay import Replay, Stores
from exchange.control.requests.stored import StoredRequests
from exchange.requests.life_cycle import advance
from exchange.requests.model import Event, Office, RequestState
from exchange.requests.store import MemoryRequests
from registry.database.unit_of_work import MemoryDatabase
from schemas.access import Action, Grant, GrantState
from schemas.audit import GrantRef
from tests.kit.cases.grants import GRANT, NOW, a_draft, a_grant
from tests.kit.cases.requests import LI, SUN, act, in_state, terms

S, A = GrantState, Action


def restored(grant: Grant, *logged: Action, version: int = 3) -> tuple[Grant, list[str]]:
    """Return a grant of the backup after the replay of acts since, and what the replay recorded."""
    database = MemoryDatabase()
    recorded: list[str] = []
    access = MemoryAccessStore(RowMac(b"k" * 32))
    gap = Gap()
    for action in logged:
        read = {"at": 1, "decision": "allow", "action": str(action), "grant": {"id": grant.id, "version": version}}
        gap.read(read, known=False)

    def record(_work: Any, action: Action, _resource: str, _data: Any, _grant: GrantRef | None, entry: str) -> str:
        recorded.append(str(action))
        return entry

    unused: Any = None
    memory: Any = access
    recorder: Any = record
    with database.begin() as work:
        access.put(work, grant, entry_id="e", at=NOW)
        stores = Stores(identity=unused, proposals=unused, access=memory)
        Replay(work, stores, recorder, NOW)._grants(gap, everything=False)
        return access.get(work, grant.id), recorded


@pytest.mark.parametrize("ended", [A.GRANT_TERMINATE, A.GRANT_COMPLETE, A.GRANT_END_BY_AGREEMENT])
@pytest.mark.parametrize("then", [(), (A.GRANT_READ,)], ids=["", "read"])
def test_a_grant_that_was_ended_stays_ended_though_it_was_read_since(ended: Action, then: tuple[Action, ...]) -> None:
    grant, recorded = restored(a_grant(), ended, *then)
    assert grant.state is S.TERMINATED
    assert recorded == [A.GRANT_SUSPEND, A.GRANT_TERMINATE]


def test_a_grant_that_was_only_read_goes_on() -> None:
    assert restored(a_grant(), A.GRANT_READ)[0].state is S.ACTIVE


@pytest.mark.parametrize("state", [S.SUBMITTED, S.SUPPLEMENT, S.COUNTERSIGNED, S.IN_DISPUTE])
@pytest.mark.parametrize("closed", [A.REQUEST_WITHDRAW, A.REQUEST_LAPSE])
def test_a_request_that_was_withdrawn_or_lapsed_is_closed(state: GrantState, closed: Action) -> None:
    grant, recorded = restored(a_draft(state=state), closed)
    assert (grant.state, recorded) == (S.WITHDRAWN, [A.REQUEST_WITHDRAW])


@pytest.mark.parametrize("state", [S.COUNTERSIGNED, S.APPROVED])
def test_an_agreement_of_which_a_signature_may_be_withdrawn_does_not_come_back(state: GrantState) -> None:
    grant, _ = restored(a_draft(state=state, approved_by=LI.id, confirmed_by=SUN.id), A.GRANT_WITHDRAW_SIGNATURE)
    assert grant.state is S.WITHDRAWN


def test_the_signature_of_an_officer_does_not_come_back() -> None:
    request = a_draft(state=S.SUBMITTED, confirmed_by=SUN.id, together_with=("g2",))
    grant, recorded = restored(request, A.GRANT_WITHDRAW_SIGNATURE)
    assert (grant.state, grant.confirmed_by, grant.together_with) == (S.SUBMITTED, None, ())
    assert recorded == [A.GRANT_WITHDRAW_SIGNATURE]


@pytest.mark.parametrize("state", [S.SUBMITTED, S.SUPPLEMENT, S.COUNTERSIGNED, S.APPROVED, S.IN_DISPUTE, S.REJECTED])
def test_a_request_of_which_the_log_knows_nothing_newer_stays(state: GrantState) -> None:
    request = a_draft(state=state, confirmed_by=SUN.id)
    assert restored(request) == (request, [])
    assert restored(request, A.GRANT_CONFIRM, version=request.version) == (request, [])


def test_a_request_that_was_filed_again_or_refused_stays_open() -> None:
    for action in (A.REQUEST_RESUBMIT, A.GRANT_REJECT, A.REQUEST_DISPUTE):
        assert restored(a_draft(state=S.SUBMITTED), action)[0].state is S.SUBMITTED


def test_a_stored_request_has_no_signature_that_its_grant_does_not_name() -> None:
    unused: Any = None
    requests = StoredRequests(MemoryRequests(), unused)
    both = advance(in_state(RequestState.COUNTERSIGNED, id=GRANT, sensitive=True), act(Event.COUNTERSIGN), terms())
    offices = [one.office for one in both.signatures]
    assert offices == [Office.HEAD, Office.SECURITY_OFFICER]
    signed = a_grant(state=S.COUNTERSIGNED, approved_by=LI.id, confirmed_by=both.signatures[1].account)
    named: list[tuple[dict[str, Any], list[Office]]] = [
        ({}, offices),
        ({"confirmed_by": None}, [Office.HEAD]),
        ({"approved_by": None}, [Office.SECURITY_OFFICER]),
        ({"state": S.SUBMITTED, "approved_by": None, "confirmed_by": None}, []),
        ({"approved_by": signed.confirmed_by, "confirmed_by": LI.id}, []),
    ]
    with MemoryDatabase().begin() as work:
        requests.put(work, both)
        for changes, left in named:
            found = requests.of(work, replace(signed, **changes))
            assert [one.office for one in found.signatures] == left
