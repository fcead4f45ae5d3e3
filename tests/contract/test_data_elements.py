"""Data elements and their one source, over the stores in memory and in PostgreSQL."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import pytest
import sqlalchemy as sa

from registry.catalogue.elements import Claim, DataElement, ElementUse, check_source, duplicates, sources_of
from registry.catalogue.metadata import DataItem
from registry.database.damaged_row import DamagedRow
from registry.postgres import tables
from schemas.errors import ConflictError, InvalidError, PoolError, Reason
from schemas.names import ResourceName, Topic
from tests.kit.cases.catalogue import metadata
from tests.kit.cases.procedure import (
    AUTHORITY,
    EDITOR,
    FILED,
    HEAD,
    LABOUR,
    OF_LABOUR,
    POLICE,
    E,
    Room,
    refused,
    room,
)

DE = DataElement(code="DE00001", zh="公民身份号码", en="Identity number", type="text", length=18)
SOURCE = (DataItem(name="公民身份号码", type="text", element="DE00001", source=True),)
REFERENCE = (DataItem(name="公民身份号码", type="text", element="DE00001"),)
OURS, THEIRS = Topic(ResourceName("ours"), 1), Topic(ResourceName("theirs"), 1)
THEIR_EDITOR = replace(EDITOR, id="their-editor", department=LABOUR)
PERSONS = {"editor": "1", "head": "3", "authority": "4", "of-labour": "6", "their-editor": "7"}


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest) -> Iterator[Room]:
    if request.param == "memory":
        yield room()
        return
    engine: sa.Engine = request.getfixturevalue("engine")
    tables.metadata.create_all(engine)
    yield room(engine)


def define(place: Room, element: DataElement = DE) -> None:
    with place.database.begin() as work:
        place.elements.save(work, element)


def reviewed(place: Room, topic: Topic, items: tuple[DataItem, ...]) -> None:
    """Bring an entry as far as the authority's review: ours of the police, theirs of the other department."""
    editor, head = (EDITOR, HEAD) if topic == OURS else (THEIR_EDITOR, OF_LABOUR)
    place.describe(topic, editor, items=items)
    place.apply(E.SUBMIT, editor, topic, persons=PERSONS)
    place.apply(E.APPROVE, head, topic, persons=PERSONS)


def publish(place: Room, topic: Topic) -> None:
    place.apply(E.PUBLISH, AUTHORITY, topic, persons=PERSONS)


def claims(place: Room) -> list[Claim]:
    with place.database.read() as reader:
        return [*place.elements.claims(reader, "DE00001")]


def test_an_element_that_is_not_in_the_dictionary_is_a_fault_at_the_review(place: Room) -> None:
    place.describe(OURS, items=REFERENCE)
    error = refused(Reason.REQUEST_INVALID, lambda: place.apply(E.SUBMIT, EDITOR, OURS))
    assert error.details.keys() == {"items[0].element"}
    define(place)
    place.apply(E.SUBMIT, EDITOR, OURS)


def test_a_second_source_is_refused_until_the_authority_names_the_lead(place: Room) -> None:
    define(place)
    reviewed(place, OURS, SOURCE)
    reviewed(place, THEIRS, SOURCE)
    publish(place, OURS)
    assert claims(place) == [Claim("DE00001", OURS, POLICE)]
    refused(Reason.ELEMENT_CONTESTED, lambda: publish(place, THEIRS))
    assert claims(place) == [Claim("DE00001", OURS, POLICE)], "what is refused claims nothing"
    define(place, replace(DE, version=2, lead=POLICE))
    refused(Reason.ELEMENT_HAS_LEAD, lambda: publish(place, THEIRS))
    with place.database.begin() as work:
        place.elements.drop_claims(work, "DE00001", but=LABOUR)
        place.elements.save(work, replace(DE, version=3, lead=LABOUR))
    publish(place, THEIRS)
    assert claims(place) == [Claim("DE00001", THEIRS, LABOUR)]


def test_a_reference_claims_nothing_and_two_majors_of_one_department_may(place: Room) -> None:
    define(place)
    reviewed(place, OURS, SOURCE)
    publish(place, OURS)
    reviewed(place, THEIRS, REFERENCE)
    publish(place, THEIRS)
    second = Topic(OURS.name, 2)
    place.describe(second, items=SOURCE)
    place.apply(E.SUBMIT, EDITOR, second)
    place.apply(E.APPROVE, HEAD, second)
    place.apply(E.PUBLISH, AUTHORITY, second)
    assert [claim.topic for claim in claims(place)] == [OURS, second]


def test_a_claim_ends_with_the_entry_or_by_its_update(place: Room) -> None:
    define(place)
    reviewed(place, OURS, SOURCE)
    publish(place, OURS)
    place.apply(E.CHANGE, EDITOR, OURS, reason="x", changed_on=date(2026, 3, 1))
    place.describe(OURS, items=REFERENCE)
    place.apply(E.SUBMIT, HEAD, OURS)
    assert claims(place), "the version before is in force"
    publish(place, OURS)
    assert claims(place) == []
    place.apply(E.CHANGE, EDITOR, OURS, reason="x", changed_on=date(2026, 3, 1))
    place.describe(OURS, items=SOURCE)
    place.apply(E.SUBMIT, HEAD, OURS)
    publish(place, OURS)
    assert claims(place)
    place.apply(E.ANNOUNCE, HEAD, OURS, **FILED, from_day=date(2026, 3, 2))
    place.apply(E.RETIRE, AUTHORITY, OURS, reason="x")
    assert claims(place) == []


@pytest.mark.postgres
def test_of_two_publications_at_once_one_is_the_source(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    place = room(engine)
    define(place)
    reviewed(place, OURS, SOURCE)
    reviewed(place, THEIRS, SOURCE)
    outcomes: list[str] = []
    together = threading.Barrier(2)

    def run(topic: Topic) -> None:
        together.wait()
        try:
            publish(place, topic)
            outcomes.append("published")
        except PoolError as error:
            outcomes.append(str(error.reason))

    threads = [threading.Thread(target=run, args=(topic,)) for topic in (OURS, THEIRS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["element_contested", "published"]
    assert len(claims(place)) == 1


def test_elements_are_listed_by_code_and_saved_one_version_after_another(place: Room) -> None:
    for number in (3, 1, 2):
        define(place, replace(DE, code=f"DE{number}"))
    with place.database.read() as reader:
        found = place.elements.page(reader, after="DE1", limit=1)
        assert [one.code for one in found if not isinstance(one, DamagedRow)] == ["DE2"]
        assert place.elements.get(reader, "DE9") is None
    refused(Reason.VERSION_CONFLICT, lambda: define(place, replace(DE, code="DE1")))
    refused(Reason.VERSION_CONFLICT, lambda: define(place, replace(DE, code="DE1", version=3)))
    define(place, replace(DE, code="DE1", version=2, zh="身份号码"))
    with place.database.read() as reader:
        current = place.elements.get(reader, "DE1")
    assert current is not None
    assert (current.version, current.zh) == (2, "身份号码")


@pytest.mark.parametrize(
    "change", [{"code": "a b"}, {"zh": ""}, {"type": "varchar"}, {"length": 0}, {"personal": "X"}, {"unit": "x" * 401}]
)
def test_an_element_of_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        replace(DE, **change)  # type: ignore[arg-type]


def test_the_lead_may_publish_beside_another_s_claim_and_nobody_else() -> None:
    claim = Claim("DE00001", OURS, POLICE)
    check_source(DE, POLICE, [claim])
    check_source(replace(DE, lead=LABOUR), LABOUR, [claim])
    with pytest.raises(ConflictError):
        check_source(DE, LABOUR, [claim])


def test_the_report_names_contested_elements_sources_beside_the_lead_and_items_of_one_name() -> None:
    whole = metadata(items=(*SOURCE, DataItem(name="姓名", type="text")))
    assert sources_of(whole) == ["DE00001"]
    entries = [(OURS, POLICE, whole), (THEIRS, LABOUR, whole)]
    contested, names = duplicates([DE], entries)
    assert (contested.kind, contested.element, contested.name) == ("contested", "DE00001", "公民身份号码")
    assert [*contested.entries] == [(OURS, POLICE), (THEIRS, LABOUR)]
    assert (names.kind, names.name) == ("same_name", "姓名")
    against, _ = duplicates([replace(DE, lead=POLICE)], entries)
    assert (against.kind, [*against.entries]) == ("against_lead", [(THEIRS, LABOUR)])
    assert duplicates([replace(DE, lead=POLICE)], entries[:1]) == []


def test_the_fields_that_name_an_element_are_those_of_each_newest_schema(place: Room) -> None:
    with place.database.begin() as work:
        place.elements.replace_uses(work, "b.v1-value", 1, [("DE1", "x"), ("DE1", "in.y"), ("DE2", "z")])
        place.elements.replace_uses(work, "a.v1-value", 3, [("DE1", "x")])
        place.elements.replace_uses(work, "b.v1-value", 2, [("DE1", "x"), ("DE1", "w")])
    with place.database.read() as reader:
        everything = place.elements.uses(reader, "DE1")
        assert everything == [
            ElementUse("a.v1-value", "x", 3), ElementUse("b.v1-value", "w", 2), ElementUse("b.v1-value", "x", 2)
        ]  # fmt: skip
        assert place.elements.uses(reader, "DE2") == []
        assert place.elements.uses(reader, "DE1", limit=1) == everything[:1]
        assert place.elements.uses(reader, "DE1", after=("b.v1-value", "w")) == everything[2:]

    def broken() -> None:
        with place.database.begin() as work:
            place.elements.replace_uses(work, "a.v1-value", 4, [])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    with place.database.read() as reader:
        assert place.elements.uses(reader, "DE1") == everything
