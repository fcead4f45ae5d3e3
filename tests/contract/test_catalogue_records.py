"""Catalogue records and their procedure, over the stores in memory and in PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.catalogue.life_cycle import EntryEvent, ProcedureState
from registry.catalogue.metadata import Metadata
from registry.catalogue.procedure import Step
from registry.catalogue.record import CatalogueRecord, EntryAct, LegalChange, RetirementNotice
from registry.catalogue.record_json import record_document, record_from_document
from registry.catalogue.store import RecordQuery
from registry.database.damaged_row import DamagedRow
from registry.directory.model import CatalogueEntry, EntryState, ShareType
from registry.postgres import tables
from schemas.access import Actor, ActorKind, Level, Role
from schemas.errors import PoolError, Reason
from schemas.names import ResourceName, Topic
from tests.kit.cases.procedure import (
    AUTHORITY,
    AUTHORITY_2,
    EDITOR,
    FILED,
    HEAD,
    LABOUR,
    OF_LABOUR,
    PERSONS,
    POLICE,
    E,
    Room,
    S,
    refused,
    room,
)
from tests.kit.cases.registry import AT, TOPIC


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest) -> Iterator[Room]:
    if request.param == "memory":
        yield room()
        return
    engine = request.getfixturevalue("engine")
    tables.metadata.create_all(engine)
    yield room(engine)


def test_a_draft_gets_the_next_code_of_its_class_and_its_entry(place: Room) -> None:
    first = place.describe()
    assert (first.state, first.version, first.code) == (S.DRAFT, 1, "101001/000001")
    entry = place.entry()
    assert (entry.title, entry.code, entry.state, entry.level) == (
        "自然人基础信息",
        first.code,
        EntryState.DRAFT,
        Level.G4,
    )
    second = place.describe(Topic(ResourceName("households"), 1))
    assert second.code == "101001/000002"
    assert place.describe(Topic(TOPIC.name, 2)).code == first.code, "majors of one resource have one code"
    assert place.describe(Topic(ResourceName("firms"), 1), class_code="102001").code == "102001/000001"
    given = place.describe(Topic(ResourceName("named"), 1), code="101001/000077")
    assert given.code == "101001/000077"
    assert place.describe(Topic(ResourceName("next"), 1)).code == "101001/000078"
    refused(Reason.REQUEST_INVALID, lambda: place.describe(Topic(TOPIC.name, 3), class_code="102001"))


def test_a_draft_with_faults_is_refused_with_all_of_them(place: Room) -> None:
    error = refused(Reason.REQUEST_INVALID, lambda: place.describe(title="", share_scope="", theme="x"))
    assert error.details.keys() == {"title", "share_scope", "theme"}
    assert "809 Art. 15" in error.details["share_scope"]
    refused(Reason.RESOURCE_UNKNOWN, place.record)


def test_an_entry_goes_through_both_reviews_into_force_and_to_its_end(place: Room) -> None:
    place.describe(pia_id="")
    error = refused(Reason.REQUEST_INVALID, lambda: place.apply(E.SUBMIT, EDITOR))
    assert error.details.keys() == {"pia_id"}, "Art. 13"
    place.describe()
    assert place.apply(E.SUBMIT, EDITOR).state is S.DEPT_REVIEW
    refused(Reason.REQUEST_INVALID, lambda: place.apply(E.RETURN, HEAD))
    assert place.apply(E.RETURN, HEAD, reason="摘要不清").state is S.DRAFT
    place.apply(E.SUBMIT, EDITOR)
    assert place.apply(E.APPROVE, HEAD).state is S.AUTHORITY_REVIEW
    assert place.entry().state is EntryState.DRAFT
    published = place.apply(E.PUBLISH, AUTHORITY)
    assert (published.state, published.in_force) == (S.PUBLISHED, published.version)
    assert place.entry().state is EntryState.PUBLISHED
    refused(Reason.REQUEST_INVALID, lambda: place.apply(E.SUSPEND, HEAD, reason="x"))
    assert place.apply(E.SUSPEND, HEAD, **FILED).state is S.SUSPENDED
    assert place.entry().state is EntryState.SUSPENDED
    refused(Reason.ROLE_MISSING, lambda: place.apply(E.RESUME, HEAD, reason="x"))
    assert place.apply(E.RESUME, AUTHORITY, reason="整改完成").state is S.PUBLISHED
    assert place.entry().state is EntryState.PUBLISHED
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: place.apply(E.RETIRE, AUTHORITY, reason="x"))
    announced = place.apply(E.ANNOUNCE, HEAD, **FILED, from_day=date(2026, 6, 1), consumers=["b", "a", "b"])
    assert announced.notice is not None
    assert (announced.state, announced.notice.consumers) == (S.PUBLISHED, ("a", "b"))
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: place.apply(E.RETIRE, AUTHORITY, reason="before the day"))
    past = AT.date() - timedelta(days=1)
    refused(Reason.REQUEST_INVALID, lambda: place.apply(E.ANNOUNCE, HEAD, **FILED, from_day=past))
    place.apply(E.ANNOUNCE, HEAD, **FILED, from_day=AT.date())
    assert place.apply(E.RETIRE, AUTHORITY, reason="x").state is S.ARCHIVED
    assert place.entry().state is EntryState.ARCHIVED
    events = [one.act.event for one in place.versions()]
    assert events == [E.DESCRIBE, E.DESCRIBE, E.SUBMIT, E.RETURN, E.SUBMIT, E.APPROVE, E.PUBLISH, E.SUSPEND, E.RESUME,
                      E.ANNOUNCE, E.ANNOUNCE, E.RETIRE]  # fmt: skip
    assert [one.version for one in place.versions()] == [*range(1, 13)]


def test_what_was_published_stays_in_force_while_it_is_updated(place: Room) -> None:
    published = place.published()
    refused(Reason.REQUEST_INVALID, lambda: place.apply(E.CHANGE, EDITOR, reason="三定方案调整"))
    tomorrow = date(2026, 3, 3)
    refused(Reason.REQUEST_INVALID, lambda: place.apply(E.CHANGE, EDITOR, reason="x", changed_on=tomorrow))
    opened = place.apply(E.CHANGE, EDITOR, reason="三定方案调整", changed_on=date(2026, 2, 27))
    assert opened.change == LegalChange(on=date(2026, 2, 27))
    place.apply(E.EXTEND, AUTHORITY, reason="情况复杂")
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: place.apply(E.EXTEND, AUTHORITY, reason="再次"))
    place.describe(title="自然人信息")
    assert place.entry().title == "自然人基础信息", "not before it is published"
    with place.database.read() as reader:
        in_force = place.procedure.in_force(reader, place.record())
    assert in_force == published
    refused(Reason.ROLE_MISSING, lambda: place.apply(E.SUBMIT, EDITOR))
    sent = place.apply(E.SUBMIT, HEAD)
    assert sent.change == LegalChange(on=date(2026, 2, 27), extended=True, resubmitted_at=AT)
    assert place.apply(E.RETURN, AUTHORITY, reason="x").state is S.DRAFT
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: place.apply(E.WITHDRAW, EDITOR))
    place.apply(E.SUBMIT, EDITOR)
    place.apply(E.APPROVE, HEAD)
    assert place.entry().state is EntryState.PUBLISHED
    again = place.apply(E.PUBLISH, AUTHORITY)
    assert (again.in_force, again.change) == (again.version, None)
    assert place.entry().title == "自然人信息"


def test_two_reviews_are_of_two_persons(place: Room) -> None:
    place.describe()
    place.apply(E.SUBMIT, EDITOR)
    one_person = PERSONS | {"head": PERSONS["editor"]}
    refused(Reason.SAME_PERSON, lambda: place.apply(E.APPROVE, HEAD, persons=one_person))
    refused(Reason.PERSON_UNKNOWN, lambda: place.apply(E.APPROVE, HEAD, persons={}))
    place.apply(E.APPROVE, HEAD)
    for other in ("editor", "head"):
        same = PERSONS | {"authority": PERSONS[other]}
        refused(Reason.SAME_PERSON, lambda same=same: place.apply(E.PUBLISH, AUTHORITY, persons=same))
    assert place.record().state is S.AUTHORITY_REVIEW
    place.apply(E.PUBLISH, AUTHORITY)
    place.apply(E.ANNOUNCE, HEAD, **FILED, from_day=date(2026, 6, 1))
    same = PERSONS | {"authority": PERSONS["head"]}
    refused(Reason.SAME_PERSON, lambda: place.apply(E.RETIRE, AUTHORITY, reason="x", persons=same))


def test_another_department_and_a_program_change_nothing(place: Room) -> None:
    place.describe()
    refused(Reason.NOT_PROVIDER, lambda: place.describe(actor=replace(OF_LABOUR, role=Role.CATALOGUE_EDITOR)))
    place.apply(E.SUBMIT, EDITOR)
    refused(Reason.NOT_PROVIDER, lambda: place.apply(E.APPROVE, OF_LABOUR))
    refused(Reason.ROLE_MISSING, lambda: place.apply(E.APPROVE, replace(HEAD, kind=ActorKind.MACHINE)))
    refused(Reason.TRANSITION_NOT_ALLOWED, place.describe)
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: place.apply(E.PUBLISH, AUTHORITY))
    assert len(place.versions()) == 2, "what is refused leaves no version"


def test_a_draft_that_was_never_in_force_is_withdrawn(place: Room) -> None:
    place.describe()
    assert place.apply(E.WITHDRAW, EDITOR).state is S.WITHDRAWN
    assert place.entry().state is EntryState.ARCHIVED
    for event in EntryEvent:
        if event is not E.DESCRIBE:
            refused(
                Reason.TRANSITION_NOT_ALLOWED,
                lambda event=event: place.apply(
                    event, AUTHORITY, **FILED, changed_on=date(2026, 1, 1), from_day=AT.date()
                ),
            )


def legacy(place: Room, state: EntryState) -> None:
    entry = CatalogueEntry(
        topic=TOPIC,
        title="人口",
        provider=POLICE,
        code="101001/000009",
        share_type=ShareType.UNCONDITIONAL,
        level=Level.G4,
    )
    with place.database.begin() as work:
        place.catalogue.create(work, entry)
        if state is EntryState.PUBLISHED:
            place.catalogue.publish(work, TOPIC, lambda _reader, _subject: [], version=1)


def test_an_entry_from_before_gets_its_metadata_as_a_draft_or_by_an_update(place: Room) -> None:
    legacy(place, EntryState.PUBLISHED)
    refused(Reason.NOT_FOUND, place.record)
    refused(Reason.TRANSITION_NOT_ALLOWED, place.describe)
    refused(Reason.NOT_FOUND, lambda: place.apply(E.SUBMIT, EDITOR))
    opened = place.apply(E.CHANGE, EDITOR, reason="补全元数据", changed_on=date(2026, 3, 1))
    assert (opened.state, opened.in_force, opened.code) == (S.UPDATING, 1, "101001/000009")
    assert opened.metadata.title == "人口"
    error = refused(Reason.REQUEST_INVALID, lambda: place.apply(E.SUBMIT, HEAD))
    assert {"theme", "items", "pia_id"} <= error.details.keys()
    refused(Reason.REQUEST_INVALID, lambda: place.describe(class_code="102001"))
    place.describe()
    place.apply(E.SUBMIT, HEAD)
    assert place.apply(E.PUBLISH, AUTHORITY).code == "101001/000009"
    assert place.entry().share_type is ShareType.CONDITIONAL


def test_a_draft_from_before_gets_its_metadata(place: Room) -> None:
    legacy(place, EntryState.DRAFT)
    assert place.describe().code == "101001/000009"
    assert place.entry().title == "自然人基础信息"


def test_lists_are_by_topic_and_of_one_department_and_state(place: Room) -> None:
    names = [f"r{number:02}" for number in range(7)]
    for name in names:
        place.describe(Topic(ResourceName(name), 1))
    place.describe(Topic(ResourceName("theirs"), 1), replace(OF_LABOUR, role=Role.CATALOGUE_EDITOR))
    place.apply(E.SUBMIT, EDITOR, Topic(ResourceName("r03"), 1))

    def page(**query: Any) -> list[str]:
        with place.database.read() as reader:
            found = place.procedure.store.page(reader, RecordQuery(**query))
        return [str(one.topic.name) for one in found if not isinstance(one, DamagedRow)]

    assert page() == [*names, "theirs"]
    assert page(provider=POLICE, limit=3) == names[:3]
    assert page(provider=POLICE, after=Topic(ResourceName("r02"), 1)) == names[3:]
    assert page(state=S.DEPT_REVIEW) == ["r03"]
    assert page(state=S.DEPT_REVIEW, provider=LABOUR) == []


def test_of_two_who_save_one_version_one_is_told(place: Room) -> None:
    record = place.describe()
    with place.database.begin() as work:
        place.procedure.store.save(work, replace(record, version=2))

    def late() -> None:
        with place.database.begin() as work:
            place.procedure.store.save(work, replace(record, version=2))

    refused(Reason.VERSION_CONFLICT, late)


def test_what_fails_leaves_nothing(place: Room) -> None:
    place.describe()

    def broken() -> None:
        with place.database.begin() as work:
            step = Step(event=E.SUBMIT, actor=EDITOR, at=AT, entry_id="e", persons=PERSONS)
            place.procedure.apply(work, TOPIC, step)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert place.record().state is S.DRAFT
    assert len(place.versions()) == 1


moments = st.datetimes(timezones=st.just(UTC))
words = st.text(max_size=12)


@given(
    st.builds(
        CatalogueRecord,
        topic=st.just(TOPIC),
        provider=words,
        code=words,
        state=st.sampled_from(ProcedureState),
        metadata=st.builds(Metadata, title=words),
        version=st.integers(1, 9),
        in_force=st.integers(0, 9),
        signed_by=st.lists(words, max_size=3).map(tuple),
        change=st.none() | st.builds(LegalChange, on=st.dates(), resubmitted_at=st.none() | moments),
        notice=st.none()
        | st.builds(
            RetirementNotice,
            at=moments,
            by=words,
            reason=words,
            filing=words,
            from_day=st.dates(),
            consumers=st.lists(words, max_size=2).map(tuple),
        ),
        act=st.builds(EntryAct, event=st.sampled_from(EntryEvent), by=words, at=moments, entry=words),
    )
)
def test_a_record_is_read_as_it_was_written(record: CatalogueRecord) -> None:
    assert record_from_document(record_document(record)) == record


ACTORS = (EDITOR, replace(EDITOR, id="editor-2"), HEAD, AUTHORITY, AUTHORITY_2, OF_LABOUR)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EntryEvent), st.sampled_from(ACTORS)), max_size=40))
def test_whoever_tries_whatever_nothing_is_in_force_without_two_reviews(
    acts: list[tuple[EntryEvent, Actor]],
) -> None:
    place = room()
    for event, actor in acts:
        try:
            if event is E.DESCRIBE:
                place.describe(actor=actor)
            else:
                place.apply(event, actor, **FILED, changed_on=date(2026, 1, 1), from_day=AT.date())
        except PoolError:
            continue
    versions = place.versions()
    signed: list[CatalogueRecord] = []
    for one in versions:
        if one.act.event is E.PUBLISH:
            assert signed[-1].state is S.AUTHORITY_REVIEW, "the head has consented last"
            assert one.act.by not in {signed[-1].act.by, *signed[-1].described_by, *signed[-1].signed_by}
        signed.append(one)
    if versions:
        last = versions[-1]
        entry = place.entry()
        expected = {
            S.SUSPENDED: EntryState.SUSPENDED,
            S.ARCHIVED: EntryState.ARCHIVED,
            S.WITHDRAWN: EntryState.ARCHIVED,
        }
        in_force = EntryState.PUBLISHED if last.in_force else EntryState.DRAFT
        assert entry.state is expected.get(last.state, in_force), "the gateway serves what is in force"
