"""What proposals keep true, on the memory twin and on PostgreSQL; and who may confirm one."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.identity.postgres_proposals import PostgresProposals, metadata
from exchange.identity.proposals import (
    MemoryProposals,
    Proposal,
    ProposalKind,
    ProposalState,
    ProposalStore,
    check_confirmation,
    has_officer,
)
from exchange.identity.store import Account
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.access import Actor, Role
from schemas.errors import Reason
from tests.kit.cases.grants import CONSUMER, NOW, PROVIDER, a_person
from tests.kit.row_tags import row_tags

DAY = timedelta(days=1)


def a_proposal(number: int = 1, **changes: Any) -> Proposal:
    return replace(
        Proposal(
            id=f"0198-{number:04}",
            kind=ProposalKind.ACCOUNT,
            department=CONSUMER,
            subject="wang.hr",
            role=Role.SHARING_OFFICE_HEAD,
            person="HR-1",
            digest=b"d" * 32,
            proposed_by="chen.da",
            proposed_at=NOW,
            expires_at=NOW + DAY,
        ),
        **changes,
    )


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def stored(request: pytest.FixtureRequest) -> Iterator[tuple[ProposalStore, Database]]:
    if request.param == "memory":
        yield MemoryProposals(), MemoryDatabase()
        return
    engine: sa.Engine = request.getfixturevalue("engine")
    metadata.create_all(engine)
    yield PostgresProposals(row_tags()), PostgresDatabase(engine)


def test_a_proposal_is_given_back_and_found_newest_first(stored: tuple[ProposalStore, Database]) -> None:
    store, database = stored
    invitation = a_proposal(2, kind=ProposalKind.INVITATION, role=None, person="", digest=b"", subject="")
    other = a_proposal(3, department="", role=Role.AUDITOR)
    with database.begin() as work:
        for one in (a_proposal(), invitation, other):
            store.add(work, one)
    with database.begin() as work:
        assert store.get(work, invitation.id) == invitation
        assert store.get(work, "none") is None
        assert list(store.find(work, limit=9)) == [other, invitation, a_proposal()]
        assert list(store.find(work, department=CONSUMER, limit=1)) == [invitation]
        assert list(store.find(work, department="", limit=9)) == [other]
        assert list(store.find(work, state=ProposalState.CONFIRMED, limit=9)) == []


def test_a_proposal_is_decided_once(stored: tuple[ProposalStore, Database]) -> None:
    store, database = stored
    with database.begin() as work:
        store.add(work, a_proposal())
    confirmed = a_proposal(state=ProposalState.CONFIRMED, decided_by="li.hr", decided_at=NOW, reason="")

    def fail_in_the_end() -> None:
        with database.begin() as work:
            assert store.decide(work, confirmed)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_end()
    with database.begin() as work:
        assert store.decide(work, confirmed)
        assert not store.decide(work, replace(confirmed, state=ProposalState.REFUSED))
    with database.begin() as work:
        assert store.get(work, confirmed.id) == confirmed
        assert not store.decide(work, a_proposal(7, state=ProposalState.REFUSED))


@pytest.mark.postgres
def test_the_database_itself_knows_that_there_are_two_persons(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    store, database = PostgresProposals(row_tags()), PostgresDatabase(engine)
    with database.begin() as work:
        store.add(work, a_proposal())
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(sa.text("UPDATE identity_proposal SET state = 'confirmed', decided_by = proposed_by"))


def an_account(name: str, role: Role, department: str = "", **changes: Any) -> Account:
    return replace(
        Account(
            name=name,
            role=role,
            department=department,
            digest=name.encode().ljust(32),
            created_by="root",
            created_at=NOW,
            person=f"staff-{name}",
            expires_at=NOW + DAY,
        ),
        **changes,
    )


AUTHORITY, SECOND = a_person(Role.DATA_AUTHORITY, "", "chen.da"), a_person(Role.DATA_AUTHORITY, "", "zhou.da")
OFFICER = a_person(Role.SECURITY_OFFICER, CONSUMER, "li.hr")
OTHER = a_person(Role.SECURITY_OFFICER, PROVIDER, "sun.ps")
COLLEAGUE = a_person(Role.SECURITY_OFFICER, CONSUMER, "wu.hr")


def refusal(
    proposer: Actor, by: Actor, *, officer: bool, revoked: bool = False, same: bool = False, **changes: Any
) -> Reason | None:
    account = an_account(proposer.id, proposer.role, proposer.department, revoked_at=NOW if revoked else None)
    persons = {proposer.id: "1", by.id: "1" if same else "2"}
    decision = check_confirmation(
        a_proposal(proposed_by=proposer.id, **changes), by, proposer=account, persons=persons, officer=officer
    )
    return None if decision is None else decision.reason


INVITATION: dict[str, Any] = {"kind": ProposalKind.INVITATION, "role": None}


def test_a_department_s_own_officer_is_one_of_the_two() -> None:
    assert refusal(AUTHORITY, OFFICER, officer=True) is None
    assert refusal(OFFICER, AUTHORITY, officer=True) is None
    assert refusal(OFFICER, COLLEAGUE, officer=True) is None
    assert refusal(AUTHORITY, SECOND, officer=True) is Reason.OTHER_DEPARTMENT
    assert refusal(AUTHORITY, OTHER, officer=True) is Reason.OTHER_DEPARTMENT


def test_two_authorities_make_a_department_s_first_officer_and_the_pool_s_accounts() -> None:
    assert refusal(AUTHORITY, SECOND, officer=False) is None
    assert refusal(AUTHORITY, SECOND, officer=False, department="", role=Role.AUDITOR) is None


def test_an_invitation_is_confirmed_in_the_department_alone() -> None:
    assert refusal(AUTHORITY, OFFICER, officer=True, **INVITATION) is None
    for officer in (True, False):
        assert refusal(AUTHORITY, SECOND, officer=officer, **INVITATION) is Reason.OTHER_DEPARTMENT
        assert refusal(OFFICER, AUTHORITY, officer=officer, **INVITATION) is Reason.OTHER_DEPARTMENT


def test_one_person_never_signs_twice() -> None:
    assert refusal(AUTHORITY, AUTHORITY, officer=False) is Reason.SAME_PERSON
    assert refusal(AUTHORITY, OFFICER, officer=True, same=True) is Reason.SAME_PERSON
    decision = check_confirmation(
        a_proposal(), OFFICER, proposer=an_account("chen.da", Role.DATA_AUTHORITY), persons={"li.hr": "2"}, officer=True
    )
    assert decision is not None
    assert decision.reason is Reason.PERSON_UNKNOWN


def test_what_a_revoked_account_proposed_is_not_confirmed() -> None:
    assert refusal(AUTHORITY, OFFICER, officer=True, revoked=True) is Reason.CERTIFICATE_REVOKED


def test_an_officer_who_could_not_sign_is_none() -> None:
    officer = an_account("li.hr", Role.SECURITY_OFFICER, CONSUMER)
    assert has_officer([officer], CONSUMER, NOW)
    assert not has_officer([officer], PROVIDER, NOW)
    for cannot in (
        replace(officer, revoked_at=NOW),
        replace(officer, expires_at=NOW),
        replace(officer, person=""),
        replace(officer, role=Role.SHARING_OFFICE_HEAD),
    ):
        assert not has_officer([cannot], CONSUMER, NOW)
