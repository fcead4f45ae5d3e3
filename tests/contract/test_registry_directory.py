"""Departments, catalogue and governance over both stores, and the stores as parts of other transactions."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from registry.avro.compatibility import Compatibility
from registry.database.unit_of_work import PostgresDatabase, connection_of
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.model import (
    CatalogueEntry,
    Department,
    DepartmentStatus,
    EntryState,
    GovernmentLevel,
    ShareType,
)
from registry.postgres import tables
from registry.subjects.model import GLOBAL, Content
from schemas import library
from schemas.access import Level
from schemas.errors import ConflictError, InvalidError, Reason, UnavailableError
from schemas.names import ResourceName, Topic
from tests.kit.cases.registry import (
    AT,
    OTHER_USCC,
    TOPIC,
    USCC,
    Stores,
    Subjects,
    directory,
    memory_store,
    postgres_store,
    postgres_stores,
    record,
    refused,
    service,
)


def entry(code: str = "101001/000001", **facts: object) -> CatalogueEntry:
    known = {
        "topic": TOPIC,
        "title": "自然人基础信息",
        "provider": "0195-0000",
        "code": code,
        "share_type": ShareType.CONDITIONAL,
        "share_scope": "各级政务部门",
        "use_purpose": "履行法定职责",
        "level": Level.G4,
    }
    return CatalogueEntry(**(known | facts))  # type: ignore[arg-type]


def joined(stores: Stores) -> tuple[Departments, Catalogue, Department]:
    departments, catalogue = directory(stores)
    department = departments.register(
        uscc=USCC, name="某市公安局", short_name="公安局", level=GovernmentLevel.CITY, division_code="520100"
    )
    return departments, catalogue, department


def test_from_its_draft_on_a_resources_subject_takes_classified_schemas_only(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores)
    catalogue.create(entry())
    error = refused(Reason.SCHEMA_UNCLASSIFIED, lambda: subjects.register(TOPIC.subject, record("x")))
    assert "$.fields[0] (x)" in error.message
    subjects.register("population.v2-value", record("x"))
    subjects.register(TOPIC.subject, Content(text=library.text("population")))


def test_lowering_is_refused_against_every_version_deleted_ones_too(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores, Compatibility.NONE)
    catalogue.create(entry())
    full = json.loads(library.text("population"))
    without = {**full, "key": [], "fields": [item for item in full["fields"] if item["name"] != "id_number"]}
    without["subject"] = [item for item in full["subject"] if item["id"] != "id_number"]
    back = json.loads(library.text("population"))
    next(item for item in back["fields"] if item["name"] == "id_number").update(level="G1", personal="N", sensitive="N")
    subjects.register(TOPIC.subject, Content(text=json.dumps(full)))
    subjects.register(TOPIC.subject, Content(text=json.dumps(without)))
    subjects.delete_version(TOPIC.subject, 1)
    error = refused(
        Reason.CLASSIFICATION_LOWERED, lambda: subjects.register(TOPIC.subject, Content(text=json.dumps(back)))
    )
    assert "version 1: $.fields[1] (id_number)" in error.message


# --- departments and catalogue ---------------------------------------------------------------------------------


def test_a_department_keeps_its_id_through_renaming_and_merger(stores: Stores) -> None:
    departments, _, police = joined(stores)
    other = departments.register(
        uscc=OTHER_USCC, name="某市民政局", short_name="民政局", level=GovernmentLevel.CITY, division_code="520100"
    )
    renamed = departments.rename(police.id, name="某市公安总局", short_name="公安总局", version=1)
    assert departments.get(police.id) == renamed
    merged = departments.merge(police.id, into=other.id, version=2)
    assert (merged.id, merged.version, merged.status) == (police.id, 3, DepartmentStatus.MERGED)
    assert [item.name for _, item in departments.history(police.id)] == ["某市公安局", "某市公安总局", "某市公安总局"]
    assert departments.history(police.id)[0][0] == AT
    assert departments.all() == [merged, other]
    refused(Reason.VERSION_CONFLICT, lambda: departments.rename(police.id, name="x", short_name="x", version=1))
    refused(Reason.REQUEST_INVALID, lambda: departments.merge(other.id, into=police.id, version=1))
    refused(Reason.DEPARTMENT_UNKNOWN, lambda: departments.get("0195-none"))


def test_a_credit_code_belongs_to_one_department(stores: Stores) -> None:
    departments, _, police = joined(stores)
    facts = {"name": "乙", "short_name": "乙", "level": GovernmentLevel.CITY, "division_code": "520100"}
    refused(Reason.ALREADY_EXISTS, lambda: departments.register(uscc=USCC, **facts))
    other = departments.register(uscc=OTHER_USCC, **facts)
    refused(
        Reason.ALREADY_EXISTS,
        lambda: departments.rename(other.id, name="乙", short_name="乙", uscc=USCC, version=1),
    )
    assert departments.get(other.id) == other
    refused(Reason.VERSION_CONFLICT, lambda: stores.departments.save(police, AT))


def test_an_entry_goes_from_draft_to_published_to_archived(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores)
    drafted = catalogue.create(entry())
    refused(
        Reason.SUBJECT_UNKNOWN,
        lambda: catalogue.publish(TOPIC, subjects.services.lookup.full_classification, version=1),
    )
    subjects.register(TOPIC.subject, Content(text=library.text("population")))
    published = catalogue.publish(TOPIC, subjects.services.lookup.full_classification, version=1)
    assert published == replace(drafted, state=EntryState.PUBLISHED, version=2) == catalogue.get(TOPIC)
    refused(
        Reason.TRANSITION_NOT_ALLOWED,
        lambda: catalogue.publish(TOPIC, subjects.services.lookup.full_classification, version=2),
    )
    refused(Reason.REQUEST_INVALID, lambda: catalogue.change(replace(published, level=Level.G3)))
    changed = catalogue.change(replace(published, title="自然人信息"))
    refused(Reason.VERSION_CONFLICT, lambda: catalogue.archive(TOPIC, version=2))
    archived = catalogue.archive(TOPIC, version=changed.version)
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: catalogue.change(archived))
    assert [item.state for _, item in catalogue.history(TOPIC)] == [
        EntryState.DRAFT,
        EntryState.PUBLISHED,
        EntryState.PUBLISHED,
        EntryState.ARCHIVED,
    ]
    assert catalogue.all() == [archived]
    assert catalogue.provided_by(archived.provider) == [archived.topic]
    assert catalogue.provided_by("another") == []


def test_what_was_registered_before_the_draft_is_looked_at_when_publishing(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores)
    subjects.register(TOPIC.subject, record("x"))
    catalogue.create(entry())
    refused(
        Reason.SCHEMA_UNCLASSIFIED,
        lambda: catalogue.publish(TOPIC, subjects.services.lookup.full_classification, version=1),
    )


def test_an_entry_below_the_level_of_its_fields_is_not_published(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores)
    catalogue.create(entry(level=Level.G3))
    subjects.register(TOPIC.subject, Content(text=library.text("population")))
    error = refused(
        Reason.REQUEST_INVALID,
        lambda: catalogue.publish(TOPIC, subjects.services.lookup.full_classification, version=1),
    )
    assert "G3" in error.message
    assert "G4" in error.message


def test_names_codes_and_providers_do_not_clash(stores: Stores) -> None:
    departments, catalogue, police = joined(stores)
    other = departments.register(
        uscc=OTHER_USCC, name="乙", short_name="乙", level=GovernmentLevel.CITY, division_code="520100"
    )
    catalogue.create(entry())
    refused(Reason.ALREADY_EXISTS, lambda: catalogue.create(entry()))
    second = Topic(TOPIC.name, 2)
    refused(Reason.REQUEST_INVALID, lambda: catalogue.create(entry("101001/000002", topic=second)))
    refused(Reason.REQUEST_INVALID, lambda: catalogue.create(entry(topic=second, provider=other.id)))
    refused(Reason.REQUEST_INVALID, lambda: catalogue.create(entry(topic=Topic(ResourceName("persons"), 1))))
    refused(Reason.DEPARTMENT_UNKNOWN, lambda: catalogue.create(entry(topic=second, provider="0195-none")))
    assert catalogue.create(entry(topic=second)).topic == second
    departments.abolish(police.id, version=1)
    refused(Reason.DEPARTMENT_INACTIVE, lambda: catalogue.create(entry(topic=Topic(TOPIC.name, 3))))


def test_many_change_one_entry_and_one_wins(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    drafted = catalogue.create(entry())

    def change(number: int) -> bool:
        try:
            catalogue.change(replace(drafted, title=f"标题{number}"))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(change, range(8))) == 1
    assert catalogue.get(TOPIC).version == 2


# --- PostgreSQL alone ------------------------------------------------------------------------------------------


@pytest.mark.postgres
def test_changes_join_another_transaction_and_go_with_it(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    stores = postgres_stores(engine)
    subjects = service(stores)
    departments = directory(stores)[0].part

    def broken() -> None:
        with stores.subjects.database.begin() as work:
            subjects.services.registration.register(work, "a-value", record("x"))
            departments.register(
                work,
                uscc=USCC,
                name="某市公安局",
                short_name="公安局",
                level=GovernmentLevel.CITY,
                division_code="520100",
            )
            assert subjects.services.lookup.version_numbers(work, "a-value") == [1]
            assert subjects.subjects() == [], "nothing is seen outside before the commit"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    refused(Reason.SUBJECT_UNKNOWN, lambda: subjects.version_numbers("a-value"))
    assert stores.departments.all() == []


@pytest.mark.postgres
def test_registrations_need_one_connection_each(database: sa.URL) -> None:
    small = sa.create_engine(database, pool_size=1, max_overflow=0, pool_timeout=5)
    tables.metadata.create_all(small)
    subjects = service(postgres_stores(small))
    subjects.configuration.configure(GLOBAL, {"compatibility": "FULL_TRANSITIVE"})
    for fields in (["x"], ["x", "y"], ["x", "y", "z"]):
        subjects.register("a-value", record(*fields))
    assert subjects.delete("a-value") == [1, 2, 3]
    small.dispose()


@pytest.mark.postgres
def test_a_commit_that_the_server_refuses_has_not_happened_and_one_without_an_answer_may_have(
    engine: sa.Engine,
) -> None:
    def refuse(code: str) -> None:
        with PostgresDatabase(engine).begin() as work:
            connection_of(work).exec_driver_sql(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$;"
                "CREATE TABLE refused (n int);"
                "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON refused DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION refuse();"
                "INSERT INTO refused VALUES (1)"
            )

    refused(Reason.DISK_FULL, lambda: refuse("53100"))
    refused(Reason.OUTCOME_UNKNOWN, lambda: refuse("57P01"))


@pytest.mark.postgres
def test_a_database_that_is_away_is_unavailable(engine: sa.Engine) -> None:
    away = sa.create_engine(engine.url.set(port=1, host="127.0.0.1", query={}))
    subjects = postgres_store(away)
    with pytest.raises(UnavailableError) as caught:
        subjects.versions("a-value")
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE


@pytest.mark.postgres
def test_twin_and_postgresql_tell_the_same_story(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    stories = []
    for store in (memory_store(), postgres_store(engine)):
        subjects = Subjects(store, level=Compatibility.NONE)
        for step in range(40):
            name = f"s{step % 3}-value"
            try:
                if step % 7 == 6:
                    subjects.delete_version(name, None)
                elif step % 11 == 10:
                    subjects.delete(name)
                else:
                    subjects.register(name, record("x", name=f"R{step * step % 9}"))
            except (ConflictError, InvalidError):
                continue
        stories.append([(item, store.versions(item[0])) for item in store.subjects()])
    assert stories[0] == stories[1]
