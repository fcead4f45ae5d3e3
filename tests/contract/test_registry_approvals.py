"""Taking a classification back takes two people; one contract for both stores."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from registry.governance.approvals import VALID, Approval, Approvals, ApprovalState, ApprovalStore, MemoryApprovals
from registry.postgres import tables
from registry.postgres.approvals import PostgresApprovals
from registry.subjects.model import Content
from schemas.access import Actor, ActorKind, Role
from schemas.errors import ConflictError, Reason
from tests.kit.cases.registry import Committing, Store, Subjects, memory_store, postgres_store, refused
from tests.kit.row_tags import row_tags

EDITOR = Actor(kind=ActorKind.HUMAN, id="li.editor", department="d1", role=Role.CATALOGUE_EDITOR)
OFFICER = Actor(kind=ActorKind.HUMAN, id="wang.officer", department="d1", role=Role.SECURITY_OFFICER)
PROGRAM = Actor(kind=ActorKind.MACHINE, id="ci", department="d1", role=Role.CONNECTOR)
AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
SUBJECT = "population.v1-value"


def person(level: str, mask: str = "keep_3_4", *, doc: str = "") -> Content:
    return Content(
        text=f"""{{"type": "record", "name": "Person", "zh": "人员", "doc": "{doc}", "fields": [
            {{"name": "id", "type": "string", "zh": "号码", "level": "{level}", "personal": "D", "sensitive": "N",
              "mask": "{mask}"}}]}}"""
    )


class Clock:
    def __init__(self) -> None:
        self.now = AT

    def __call__(self) -> datetime:
        return self.now


class World:
    def __init__(self, store: ApprovalStore, subjects: Store) -> None:
        database = subjects.database
        self.clock = Clock()
        self.persons: dict[str, str] = {}  # account → staff number, where it is not the account's name
        ids = (f"0195-{number:04d}" for number in range(1000))
        self.store = Committing(store, database)
        approvals = Approvals(
            store,
            clock=self.clock,
            new_id=lambda: next(ids),
            persons=lambda _, names: {one: self.persons.get(one, one) for one in names},
        )
        self.approvals: Any = Committing(approvals, database)
        self.subjects = Subjects(subjects, governed=lambda _: True, approved=approvals.consume)

    def ask(self, content: Content, reason: str = "登记时定级过高") -> Approval:
        fingerprint, findings = self.subjects.lowered_classification(SUBJECT, content)
        return self.approvals.ask(
            EDITOR, subject=SUBJECT, fingerprint=fingerprint, text=content.text, findings=findings, reason=reason
        )


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield World(MemoryApprovals(), memory_store())
        return
    engine: sa.Engine = request.getfixturevalue("engine")
    tables.metadata.create_all(engine)
    yield World(PostgresApprovals(row_tags()), postgres_store(engine))


def test_a_lowered_level_is_registered_once_another_person_approves(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    error = refused(Reason.CLASSIFICATION_LOWERED, lambda: world.subjects.register(SUBJECT, person("G3")))
    assert '"level" falls from G4 to G3' in error.message
    assert "POST /approvals" in error.message
    asked = world.ask(person("G3"))
    assert asked.state is ApprovalState.ASKED
    refused(Reason.CLASSIFICATION_LOWERED, lambda: world.subjects.register(SUBJECT, person("G3")))
    approved = world.approvals.decide(OFFICER, asked.id, approve=True, answer="同意")
    assert (approved.state, approved.decided_by) == (ApprovalState.APPROVED, OFFICER.id)
    assert world.subjects.register(SUBJECT, person("G3")).number == 2
    assert world.approvals.get(asked.id).state is ApprovalState.USED


def test_an_approval_is_good_for_one_registration(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    world.approvals.decide(OFFICER, world.ask(person("G3")).id, approve=True)
    world.subjects.register(SUBJECT, person("G3"))
    world.subjects.delete_version(SUBJECT, 2)
    refused(Reason.CLASSIFICATION_LOWERED, lambda: world.subjects.register(SUBJECT, person("G3")))


def test_an_approval_is_good_for_its_schema_alone(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    world.approvals.decide(OFFICER, world.ask(person("G3")).id, approve=True)
    for other in (person("G2"), person("G3", "none"), person("G3", doc="Another.")):
        refused(Reason.CLASSIFICATION_LOWERED, partial(world.subjects.register, SUBJECT, other))


def test_an_approval_does_not_cover_what_came_in_between(world: World) -> None:
    world.subjects.register(SUBJECT, person("G3", "keep_3_4"))
    world.approvals.decide(OFFICER, world.ask(person("G2")).id, approve=True)
    world.subjects.register(SUBJECT, person("G4", "drop"))
    error = refused(Reason.CLASSIFICATION_LOWERED, lambda: world.subjects.register(SUBJECT, person("G2")))
    assert "version 2" in error.message


def test_an_approval_ends_after_its_time(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    world.approvals.decide(OFFICER, world.ask(person("G3")).id, approve=True)
    world.clock.now = AT + VALID
    refused(Reason.CLASSIFICATION_LOWERED, lambda: world.subjects.register(SUBJECT, person("G3")))
    assert world.ask(person("G3")).state is ApprovalState.ASKED, "it may be asked for again"


def test_a_failed_registration_does_not_use_an_approval_up(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    broken = Content(text=person("G3").text.replace('"string"', '"int"'))
    asked = world.ask(broken)
    world.approvals.decide(OFFICER, asked.id, approve=True)
    refused(Reason.SCHEMA_INCOMPATIBLE, lambda: world.subjects.register(SUBJECT, broken))
    assert world.approvals.get(asked.id).state is ApprovalState.APPROVED


def test_who_asked_does_not_decide_and_a_program_does_not_either(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    asked = world.ask(person("G3"))
    refused(Reason.SAME_PERSON, lambda: world.approvals.decide(EDITOR, asked.id, approve=True))
    same = replace(EDITOR, role=Role.DATA_AUTHORITY, department="")
    refused(Reason.SAME_PERSON, lambda: world.approvals.decide(same, asked.id, approve=True))
    refused(Reason.ROLE_FORBIDDEN, lambda: world.approvals.decide(PROGRAM, asked.id, approve=True))
    assert world.approvals.get(asked.id).state is ApprovalState.ASKED


def test_one_person_under_two_accounts_does_not_decide_and_an_unknown_person_does_not_either(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    asked = world.ask(person("G3"))
    world.persons = {EDITOR.id: "017", OFFICER.id: "017"}
    refused(Reason.SAME_PERSON, lambda: world.approvals.decide(OFFICER, asked.id, approve=True))
    for unknown in (EDITOR.id, OFFICER.id):
        world.persons = {unknown: ""}
        refused(Reason.PERSON_UNKNOWN, lambda: world.approvals.decide(OFFICER, asked.id, approve=True))
    world.persons = {}
    assert world.approvals.decide(OFFICER, asked.id, approve=True).state is ApprovalState.APPROVED


def test_what_is_decided_stays_decided(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    asked = world.ask(person("G3"))
    refused(Reason.REQUEST_INVALID, lambda: world.approvals.decide(OFFICER, asked.id, approve=False))
    world.approvals.decide(OFFICER, asked.id, approve=False, answer="理由不足")
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: world.approvals.decide(OFFICER, asked.id, approve=True))
    refused(Reason.CLASSIFICATION_LOWERED, lambda: world.subjects.register(SUBJECT, person("G3")))
    assert world.ask(person("G3")).id != asked.id, "another request may be made"


def test_of_many_deciders_one_decides(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    asked = world.ask(person("G3"))

    def decide(number: int) -> bool:
        try:
            world.approvals.decide(
                replace(OFFICER, id=f"officer-{number}"), asked.id, approve=number % 2 == 0, answer="-"
            )
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(decide, range(8))) == 1


def test_what_cannot_be_asked(world: World) -> None:
    world.subjects.register(SUBJECT, person("G3"))
    refused(Reason.REQUEST_INVALID, lambda: world.ask(person("G4")))
    refused(Reason.REQUEST_INVALID, lambda: world.ask(person("G2"), reason="  "))
    asked = world.ask(person("G2"))
    error = refused(Reason.ALREADY_EXISTS, lambda: world.ask(person("G2")))
    assert error.details["approval"] == asked.id
    refused(Reason.NOT_FOUND, lambda: world.approvals.get("none"))


def test_requests_are_found_by_subject_and_state(world: World) -> None:
    world.subjects.register(SUBJECT, person("G4"))
    first, second = world.ask(person("G3")), world.ask(person("G2"))
    world.approvals.decide(OFFICER, first.id, approve=True)
    assert [one.id for one in world.approvals.find(subject=SUBJECT)] == [first.id, second.id]
    assert [one.id for one in world.approvals.find(state=ApprovalState.ASKED)] == [second.id]
    assert world.approvals.find(subject="other") == []
    assert world.approvals.get(first.id).decided_at == AT
    assert first.to_json()["findings"] == list(first.findings)
    assert timedelta(days=30) == VALID


@pytest.mark.postgres
def test_the_database_itself_knows_that_there_are_two_people(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    world = World(PostgresApprovals(row_tags()), postgres_store(engine))
    world.subjects.register(SUBJECT, person("G4"))
    asked = world.ask(person("G3"))
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(sa.update(tables.approval).values(decided_by=asked.asked_by, state="approved"))


@pytest.mark.postgres
def test_a_list_names_a_damaged_request_and_shows_the_others(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    world = World(PostgresApprovals(row_tags()), postgres_store(engine))
    world.subjects.register(SUBJECT, person("G4"))
    first, second = world.ask(person("G3")), world.ask(person("G2"))
    with engine.begin() as connection:
        connection.execute(sa.update(tables.approval).where(tables.approval.c.id == first.id).values(because="x"))
    damaged, whole = world.approvals.find()
    assert damaged.document() == {"id": first.id, "status": "damaged"}
    assert whole == second
