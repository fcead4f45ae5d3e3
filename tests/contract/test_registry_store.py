"""What every store of the registry keeps true; run on the twin and on PostgreSQL."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import tables
from registry.catalogue import Catalogue
from registry.compatibility import Compatibility
from registry.departments import Departments
from registry.directory import Department, DepartmentStatus, Entry, EntryState, GovernmentLevel, ShareType
from registry.memory import MemoryCatalogue, MemoryDepartments, MemorySubjects
from registry.postgres import PostgresSubjects, joining
from registry.postgres_directory import PostgresCatalogue, PostgresDepartments
from registry.settings import Configuration
from registry.store import GLOBAL, CatalogueStore, Content, DepartmentStore, Settings, SubjectStore
from registry.subjects import Subjects
from schemas import library
from schemas.access import Level
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError, UnavailableError
from schemas.names import ResourceName, Topic

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
TOPIC = Topic(ResourceName("population"), 1)
USCC = "11520000000000019J"
OTHER_USCC = "11520000000000027D"


@dataclass
class Stores:
    subjects: SubjectStore
    departments: DepartmentStore
    catalogue: CatalogueStore


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    if request.param == "memory":
        yield Stores(MemorySubjects(), MemoryDepartments(), MemoryCatalogue())
        return
    engine = request.getfixturevalue("engine")
    tables.metadata.create_all(engine)
    yield Stores(PostgresSubjects(engine), PostgresDepartments(engine), PostgresCatalogue(engine))


@pytest.fixture
def subjects(stores: Stores) -> Subjects:
    return service(stores)


def service(stores: Stores, level: Compatibility = Compatibility.BACKWARD, *, strict: bool = False) -> Subjects:
    catalogue = directory(stores)[1]
    return Subjects(
        stores.subjects,
        Configuration(stores.subjects, level=level),
        governed=catalogue.governs,
        strict=strict,
    )


def directory(stores: Stores) -> tuple[Departments, Catalogue]:
    ids = (f"0195-{number:04d}" for number in range(1000))
    departments = Departments(stores.departments, clock=lambda: AT, new_id=lambda: next(ids))
    return departments, Catalogue(stores.catalogue, departments, clock=lambda: AT)


def record(*fields: str, name: str = "R") -> Content:
    listed = [{"name": field, "type": ["null", "string"], "default": None} for field in fields]
    return Content(text=json.dumps({"type": "record", "name": name, "fields": listed}))


def refused(reason: Reason, act: Callable[[], object]) -> PoolError:
    with pytest.raises(PoolError) as caught:
        act()
    assert caught.value.reason is reason
    return caught.value


# --- ids -------------------------------------------------------------------------------------------------------


def test_one_content_has_one_id_under_every_subject(subjects: Subjects) -> None:
    first = subjects.register("a-value", record("x"))
    second = subjects.register("b-value", record("x"))
    third = subjects.register("b-value", record("x", "y"))
    assert (first.schema_id, first.number) == (1, 1)
    assert (second.schema_id, second.number) == (1, 1)
    assert (third.schema_id, third.number) == (2, 2)


def test_registering_again_gives_the_same_version(subjects: Subjects) -> None:
    first = subjects.register("a-value", record("x"))
    subjects.register("a-value", record("x", "y"))
    assert subjects.register("a-value", record("x")) == first
    assert subjects.versions("a-value") == [1, 2]


def test_writing_it_differently_is_the_same_schema_and_each_version_keeps_its_own_text(subjects: Subjects) -> None:
    short, long = Content(text='"int"'), Content(text='{ "type" : "int" }')
    assert subjects.register("a-value", short).schema_id == subjects.register("b-value", long).schema_id
    assert subjects.by_id(1).content.text == '"int"'
    assert subjects.version("b-value", 1).content.text == '{ "type" : "int" }'
    assert subjects.look_up("b-value", short).content.text == '{ "type" : "int" }'


def test_an_attribute_makes_another_schema(subjects: Subjects) -> None:
    plain = Content(text='{"type":"record","name":"R","fields":[{"name":"x","type":"string"}]}')
    tagged = Content(text='{"type":"record","name":"R","fields":[{"name":"x","type":"string","level":"G4"}]}')
    assert subjects.register("a-value", plain).schema_id != subjects.register("a-value", tagged).schema_id


def test_an_id_outlives_deletion_purge_and_restart(stores: Stores, subjects: Subjects) -> None:
    schema_id = subjects.register("a-value", record("x")).schema_id
    subjects.delete("a-value")
    assert subjects.by_id(schema_id).content == record("x")
    subjects.delete("a-value", permanent=True)
    again = service(stores)
    assert again.by_id(schema_id).content == record("x"), "records that carry the id are still there"
    assert again.register("z-value", record("other")).schema_id != schema_id
    assert again.register("a-value", record("x")).schema_id == schema_id
    assert again.versions("a-value") == [1]


def test_an_id_never_given_is_unknown(subjects: Subjects) -> None:
    for schema_id in (0, -1, 1, 2**31 - 1):
        refused(Reason.SCHEMA_UNKNOWN, lambda number=schema_id: subjects.by_id(number))


def test_a_refused_registration_leaves_nothing(stores: Stores, subjects: Subjects) -> None:
    subjects.register("a-value", Content(text='"int"'))
    refused(Reason.SCHEMA_INCOMPATIBLE, lambda: subjects.register("a-value", Content(text='"string"')))
    assert subjects.versions("a-value") == [1]
    refused(Reason.SCHEMA_UNKNOWN, lambda: subjects.look_up("a-value", Content(text='"string"')))

    def fail_late() -> None:
        with stores.subjects.change("new-value") as change:
            schema = change.intern(b"k" * 32, b"s" * 32, Content(text='"long"'))
            change.add(1, schema, '"long"')
            change.configure(Settings(config="{}", mode="READONLY"))
            raise LookupError

    with pytest.raises(LookupError):
        fail_late()
    assert stores.subjects.versions("new-value") == []
    assert stores.subjects.settings("new-value") == Settings()
    assert stores.subjects.subjects() == [("a-value", True)]


def test_eight_threads_with_overlapping_schemas_give_one_id_a_content_and_versions_without_a_gap(
    stores: Stores,
) -> None:
    subjects = service(stores, Compatibility.NONE)
    names = [f"s{number}-value" for number in range(4)]
    barrier = threading.Barrier(8)

    def one(worker: int) -> list[tuple[str, int, int, int]]:
        barrier.wait()
        done = []
        for step in range(24):
            number = (worker * 5 + step * 7) % 12
            name = names[(worker + step // 2) % 4]
            found = subjects.register(name, record("x", name=f"R{number}"))
            done.append((name, number, found.schema_id, found.number))
        return done

    with ThreadPoolExecutor(8) as pool:
        results = [item for each in pool.map(one, range(8)) for item in each]
    ids, versions = defaultdict(set), defaultdict(set)
    for name, number, schema_id, version in results:
        ids[number].add(schema_id)
        versions[name, number].add(version)
    assert all(len(found) == 1 for found in ids.values())
    assert len(set.union(*ids.values())) == 12
    assert all(len(found) == 1 for found in versions.values())
    for name in names:
        contents = [found for (subject, _), found in versions.items() if subject == name]
        assert subjects.versions(name) == sorted(number for found in contents for number in found)
        assert subjects.versions(name) == list(range(1, 13))


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["register", "delete", "purge", "delete_version", "purge_version"]),
        st.sampled_from(["a-value", "b-value"]),
        st.integers(0, 4),
    ),
    max_size=25,
)


@given(acts=ACTS)
@settings(max_examples=150, deadline=None)
def test_no_history_makes_an_id_mean_two_contents(acts: list[tuple[str, str, int]]) -> None:
    stores = Stores(MemorySubjects(), MemoryDepartments(), MemoryCatalogue())
    subjects = service(stores, Compatibility.NONE)
    meaning: dict[int, str] = {}
    model: dict[str, dict[int, tuple[int, bool]]] = {"a-value": {}, "b-value": {}}  # number → (content, deleted)
    for act, subject, number in acts:
        held = model[subject]
        try:
            if act == "register":
                content = record("x", name=f"R{number}")
                found = subjects.register(subject, content)
                assert meaning.setdefault(found.schema_id, content.text) == content.text
                live = [key for key, (what, gone) in held.items() if what == number and not gone]
                expected = live[0] if live else max(held, default=0) + 1
                assert found.number == expected
                held[expected] = (number, False)
            elif act == "delete":
                for key in subjects.delete(subject):
                    held[key] = (held[key][0], True)
            elif act == "purge":
                subjects.delete(subject, permanent=True)
                held.clear()
            elif act == "delete_version":
                subjects.delete_version(subject, number)
                held[number] = (held[number][0], True)
            else:
                subjects.delete_version(subject, number, permanent=True)
                del held[number]
        except (InvalidError, ConflictError):
            pass
        assert [item.number for item in stores.subjects.versions(subject)] == sorted(held)
        assert [item.deleted for item in stores.subjects.versions(subject)] == [held[key][1] for key in sorted(held)]
    for schema_id, text in meaning.items():
        assert subjects.by_id(schema_id).content.text == text


# --- deletion --------------------------------------------------------------------------------------------------


def test_a_softly_deleted_version_is_hidden_but_found_if_asked_for(subjects: Subjects) -> None:
    subjects.register("a-value", record("x"))
    subjects.register("a-value", record("x", "y"))
    assert subjects.delete_version("a-value", None) == 2
    assert subjects.versions("a-value") == [1]
    assert subjects.version("a-value", None).number == 1
    assert subjects.versions("a-value", deleted=True) == [1, 2]
    assert subjects.versions("a-value", deleted_only=True) == [2]
    assert subjects.version("a-value", 2, deleted=True).deleted
    refused(Reason.VERSION_UNKNOWN, lambda: subjects.version("a-value", 2))
    refused(Reason.SCHEMA_UNKNOWN, lambda: subjects.look_up("a-value", record("x", "y")))
    assert subjects.look_up("a-value", record("x", "y"), deleted=True).number == 2
    again = subjects.register("a-value", record("x", "y"))
    assert (again.number, again.schema_id) == (3, 2), "the same id, the next number"


def test_deleting_goes_in_two_steps(subjects: Subjects) -> None:
    subjects.register("a-value", record("x"))
    subjects.register("a-value", record("x", "y"))
    refused(Reason.SUBJECT_NOT_DELETED, lambda: subjects.delete("a-value", permanent=True))
    refused(Reason.VERSION_NOT_DELETED, lambda: subjects.delete_version("a-value", 1, permanent=True))
    assert subjects.delete_version("a-value", 1) == 1
    refused(Reason.VERSION_DELETED, lambda: subjects.delete_version("a-value", 1))
    assert subjects.delete_version("a-value", 1, permanent=True) == 1
    refused(Reason.VERSION_UNKNOWN, lambda: subjects.delete_version("a-value", 1, permanent=True))
    assert subjects.delete("a-value") == [2]
    refused(Reason.SUBJECT_DELETED, lambda: subjects.delete("a-value"))
    assert subjects.delete("a-value", permanent=True) == [2]
    refused(Reason.SUBJECT_UNKNOWN, lambda: subjects.delete("a-value", permanent=True))


def test_purging_a_subject_drops_its_settings_and_starts_at_one(subjects: Subjects) -> None:
    subjects.register("a-value", record("x"))
    subjects.register("a-value", record("x", "y"))
    subjects.configuration.configure("a-value", {"compatibility": "NONE"})
    subjects.delete("a-value")
    assert subjects.configuration.level("a-value") is Compatibility.NONE, "a soft deletion keeps them"
    subjects.delete("a-value", permanent=True)
    assert subjects.configuration.level("a-value") is Compatibility.BACKWARD
    assert subjects.register("a-value", record("z")).number == 1


def test_lists_hold_subjects_with_versions_only(subjects: Subjects) -> None:
    subjects.configuration.configure("only-config", {"compatibility": "NONE"})
    subjects.register("b-value", record("x"))
    subjects.register("B-value", record("x"))
    subjects.register("a-value", record("x"))
    subjects.delete("a-value")
    assert subjects.subjects() == ["B-value", "b-value"]
    assert subjects.subjects(deleted=True) == ["B-value", "a-value", "b-value"]
    assert subjects.subjects(deleted_only=True) == ["a-value"]
    assert subjects.subjects("b") == ["b-value"]


def test_uses_of_an_id(subjects: Subjects) -> None:
    subjects.register("b-value", record("x"))
    subjects.register("a-value", record("x"))
    subjects.delete("b-value")
    assert [(item.subject, item.number) for item in subjects.uses(1)] == [("a-value", 1)]
    assert [(item.subject, item.number) for item in subjects.uses(1, deleted=True)] == [("a-value", 1), ("b-value", 1)]
    refused(Reason.SCHEMA_UNKNOWN, lambda: subjects.uses(7))


# --- settings --------------------------------------------------------------------------------------------------


def test_a_subjects_level_wins_over_the_global_one_and_that_over_the_default(subjects: Subjects) -> None:
    config = subjects.configuration
    assert config.level("a-value") is Compatibility.BACKWARD
    config.configure(GLOBAL, {"compatibility": "full"})
    assert config.level("a-value") is Compatibility.FULL
    config.configure("a-value", {"compatibility": "NONE", "normalize": True})
    config.configure("a-value", {"compatibility": "FORWARD"})
    assert config.own("a-value") == {"compatibility": "FORWARD", "normalize": True}
    assert config.reset("a-value")["compatibility"] == "FORWARD"
    assert config.level("a-value") is Compatibility.FULL
    refused(Reason.COMPATIBILITY_NOT_SET, lambda: config.own("a-value"))
    refused(Reason.COMPATIBILITY_INVALID, lambda: config.configure("a-value", {"compatibility": "SIDEWARD"}))


def test_only_the_latest_live_version_counts_unless_transitive(stores: Stores) -> None:
    subjects = service(stores)
    subjects.register("a-value", Content(text='"int"'))
    subjects.register("a-value", Content(text='"long"'))
    subjects.delete_version("a-value", 1)
    subjects.configuration.configure("a-value", {"compatibility": "FORWARD_TRANSITIVE"})
    assert subjects.register("a-value", Content(text='"int"')).number == 3, "version 1 is deleted, 2 reads it"
    error = refused(Reason.SCHEMA_INCOMPATIBLE, lambda: subjects.register("a-value", Content(text='"double"')))
    assert "version 3 cannot read" in error.message
    assert "version 2 cannot read" in error.message


def test_the_strict_rule_refuses_another_scale(stores: Stores) -> None:
    def amount(scale: int) -> Content:
        field = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": scale}
        return Content(text=json.dumps({"type": "record", "name": "R", "fields": [{"name": "amount", "type": field}]}))

    lax, strict = service(stores), service(stores, strict=True)
    lax.register("a-value", amount(2))
    strict.register("b-value", amount(2))
    lax.register("a-value", amount(4))
    error = refused(Reason.SCHEMA_INCOMPATIBLE, lambda: strict.register("b-value", amount(4)))
    assert "$.fields[0].type" in error.message
    assert "decimal(12,4)" in error.message


def test_a_read_only_subject_takes_no_change(subjects: Subjects) -> None:
    subjects.register("a-value", record("x"))
    assert subjects.configuration.set_mode("a-value", "readonly") == "READONLY"
    for act in (
        lambda: subjects.register("a-value", record("x", "y")),
        lambda: subjects.delete("a-value"),
        lambda: subjects.delete_version("a-value", 1),
    ):
        assert isinstance(refused(Reason.SUBJECT_READ_ONLY, act), RefusedError)
    assert subjects.configuration.mode("b-value") == "READWRITE"
    refused(Reason.MODE_NOT_SET, lambda: subjects.configuration.mode("b-value", default_to_global=False))
    refused(Reason.MODE_INVALID, lambda: subjects.configuration.set_mode("a-value", "SIDEWARD"))
    assert subjects.configuration.reset_mode("a-value") == "READONLY"
    subjects.register("a-value", record("x", "y"))


# --- metadata --------------------------------------------------------------------------------------------------


def test_metadata_and_rules_are_kept_as_submitted_and_taken_over_where_left_out(subjects: Subjects) -> None:
    metadata = '{"tags": {"**.x": ["PII"]}, "properties": {"owner": "公安局"}}'
    rules = '{"domainRules": [{"name": "r", "kind": "CONDITION"}]}'
    first = subjects.register("a-value", replace(record("x"), metadata=metadata, rule_set=rules))
    second = subjects.register("a-value", record("x", "y"))
    assert subjects.by_id(second.schema_id).content.metadata == metadata
    assert subjects.version("a-value", 2).content.rule_set == rules
    assert subjects.look_up("a-value", record("x")).number == 1
    bare = subjects.register("b-value", record("x"))
    assert bare.schema_id != first.schema_id, "without metadata it is another contract"
    other = subjects.register("a-value", replace(record("x", "y"), metadata='{"properties": {"owner": "民政局"}}'))
    assert other.number == 3


# --- views -----------------------------------------------------------------------------------------------------


def test_a_view_is_readable_by_id_and_found_nowhere_else(subjects: Subjects) -> None:
    text = record("x").text
    schema_id = subjects.register_view("0195-grant", 1, text)
    assert subjects.register_view("0195-grant", 1, text) == schema_id
    refused(Reason.VERSION_CONFLICT, lambda: subjects.register_view("0195-grant", 1, '"int"'))
    assert subjects.register_view("0195-grant", 2, '"int"') != schema_id, "nothing is owed to the version before"
    assert subjects.by_id(schema_id).content.text == text
    assert subjects.by_id(schema_id).origin == "view.0195-grant.v1"
    assert subjects.subjects(deleted=True) == []
    for name in ("view.0195-grant.v3", "view.x", "", " ", "a\nb", "x" * 501, "__GLOBAL"):
        refused(Reason.SUBJECT_INVALID, lambda subject=name: subjects.register(subject, record("x")))


# --- governance ------------------------------------------------------------------------------------------------


def entry(code: str = "101001/000001", **facts: object) -> Entry:
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
    return Entry(**(known | facts))  # type: ignore[arg-type]


def joined(stores: Stores) -> tuple[Departments, Catalogue, Department]:
    departments, catalogue = directory(stores)
    department = departments.register(
        uscc=USCC, name="某市公安局", short_name="公安局", level=GovernmentLevel.CITY, division_code="520100"
    )
    return departments, catalogue, department


def test_from_its_draft_on_a_resources_subject_takes_classified_schemas_only(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores)
    catalogue.draft(entry())
    error = refused(Reason.SCHEMA_UNCLASSIFIED, lambda: subjects.register(TOPIC.subject, record("x")))
    assert "$.fields[0] (x)" in error.message
    subjects.register("population.v2-value", record("x"))
    subjects.register(TOPIC.subject, Content(text=library.text("population")))


def test_lowering_is_refused_against_every_version_deleted_ones_too(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores, Compatibility.NONE)
    catalogue.draft(entry())
    full = json.loads(library.text("population"))
    without = {**full, "key": [], "fields": [item for item in full["fields"] if item["name"] != "id_number"]}
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
    assert departments.by_uscc(USCC) == renamed
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
    drafted = catalogue.draft(entry())
    refused(Reason.SUBJECT_UNKNOWN, lambda: catalogue.publish(TOPIC, subjects.classified, version=1))
    refused(Reason.RESOURCE_NOT_PUBLISHED, lambda: catalogue.published(TOPIC))
    subjects.register(TOPIC.subject, Content(text=library.text("population")))
    published = catalogue.publish(TOPIC, subjects.classified, version=1)
    assert published == replace(drafted, state=EntryState.PUBLISHED, version=2) == catalogue.published(TOPIC)
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: catalogue.publish(TOPIC, subjects.classified, version=2))
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


def test_what_was_registered_before_the_draft_is_looked_at_when_publishing(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores)
    subjects.register(TOPIC.subject, record("x"))
    catalogue.draft(entry())
    refused(Reason.SCHEMA_UNCLASSIFIED, lambda: catalogue.publish(TOPIC, subjects.classified, version=1))


def test_an_entry_below_the_level_of_its_fields_is_not_published(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    subjects = service(stores)
    catalogue.draft(entry(level=Level.G3))
    subjects.register(TOPIC.subject, Content(text=library.text("population")))
    error = refused(Reason.REQUEST_INVALID, lambda: catalogue.publish(TOPIC, subjects.classified, version=1))
    assert "G3" in error.message
    assert "G4" in error.message


def test_names_codes_and_providers_do_not_clash(stores: Stores) -> None:
    departments, catalogue, police = joined(stores)
    other = departments.register(
        uscc=OTHER_USCC, name="乙", short_name="乙", level=GovernmentLevel.CITY, division_code="520100"
    )
    catalogue.draft(entry())
    refused(Reason.ALREADY_EXISTS, lambda: catalogue.draft(entry()))
    second = Topic(TOPIC.name, 2)
    refused(Reason.REQUEST_INVALID, lambda: catalogue.draft(entry("101001/000002", topic=second)))
    refused(Reason.REQUEST_INVALID, lambda: catalogue.draft(entry(topic=second, provider=other.id)))
    refused(Reason.REQUEST_INVALID, lambda: catalogue.draft(entry(topic=Topic(ResourceName("persons"), 1))))
    refused(Reason.DEPARTMENT_UNKNOWN, lambda: catalogue.draft(entry(topic=second, provider="0195-none")))
    assert catalogue.draft(entry(topic=second)).topic == second
    departments.abolish(police.id, version=1)
    refused(Reason.DEPARTMENT_INACTIVE, lambda: catalogue.draft(entry(topic=Topic(TOPIC.name, 3))))


def test_many_change_one_entry_and_one_wins(stores: Stores) -> None:
    _, catalogue, _ = joined(stores)
    drafted = catalogue.draft(entry())

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
    stores = Stores(PostgresSubjects(engine), PostgresDepartments(engine), PostgresCatalogue(engine))
    subjects = service(stores)
    with engine.connect() as connection:
        transaction = connection.begin()
        with joining(connection):
            subjects.register("a-value", record("x"))
            joined(stores)
            assert subjects.versions("a-value") == [1]
        transaction.rollback()
    refused(Reason.SUBJECT_UNKNOWN, lambda: subjects.versions("a-value"))
    assert stores.departments.all() == []


@pytest.mark.postgres
def test_registrations_need_one_connection_each(database: sa.URL) -> None:
    small = sa.create_engine(database, pool_size=1, max_overflow=0, pool_timeout=5)
    tables.metadata.create_all(small)
    subjects = service(Stores(PostgresSubjects(small), PostgresDepartments(small), PostgresCatalogue(small)))
    subjects.configuration.configure(GLOBAL, {"compatibility": "FULL_TRANSITIVE"})
    for fields in (["x"], ["x", "y"], ["x", "y", "z"]):
        subjects.register("a-value", record(*fields))
    assert subjects.delete("a-value") == [1, 2, 3]
    small.dispose()


@pytest.mark.postgres
def test_a_database_that_is_away_is_unavailable(engine: sa.Engine) -> None:
    away = sa.create_engine(engine.url.set(port=1, host="127.0.0.1", query={}))
    subjects = PostgresSubjects(away)
    with pytest.raises(UnavailableError) as caught:
        subjects.versions("a-value")
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE


@pytest.mark.postgres
def test_twin_and_postgresql_tell_the_same_story(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    stories = []
    for store in (MemorySubjects(), PostgresSubjects(engine)):
        subjects = service(Stores(store, MemoryDepartments(), MemoryCatalogue()), Compatibility.NONE)
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
