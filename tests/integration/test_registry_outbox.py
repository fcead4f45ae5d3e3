"""The outbox: what the registry holds, and what the topic of schemas says, are the same, whatever happened."""

import json

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.database.unit_of_work import PostgresDatabase
from registry.postgres import tables
from registry.postgres.outbox import PostgresOutbox
from registry.postgres.subjects import PostgresSubjects
from registry.schemas_topic.outbox import MemoryOutbox, snapshot_records
from registry.schemas_topic.records import Snapshot, fold, is_reserved_id
from registry.subjects.model import Content
from schemas.errors import PoolError
from tests.kit.cases.registry import Committing, Store, Subjects, memory_store, postgres_store, with_outbox
from tests.kit.row_tags import row_tags

TEXTS = ['"int"', '{"type": "int"}', '"long"', '{"type": "int", "zh": "年"}', '"string"']
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "drop one", "purge one", "delete", "purge", "configure", "mode", "view"]),
        st.sampled_from("ab"),
        st.sampled_from(TEXTS),
    ),
    max_size=25,
)


def service(store: Store) -> Subjects:
    subjects = Subjects(store, governed=lambda _: False)
    subjects.configuration.configure("", {"compatibility": "NONE"})
    return subjects


def play(subjects: Subjects, acts: list[tuple[str, str, str]]) -> None:
    for number, (act, subject, text) in enumerate(acts):
        try:
            match act:
                case "put":
                    subjects.register(subject, Content(text=text))
                case "drop one" | "purge one":
                    subjects.delete_version(subject, 1, permanent=act == "purge one")
                case "delete" | "purge":
                    subjects.delete(subject, permanent=act == "purge")
                case "configure":
                    subjects.configuration.configure(subject, {"alias": text})
                case "mode":
                    subjects.configuration.set_mode(subject, "READWRITE")
                case "view":
                    subjects.register_view(f"g{number}", 1, text)
        except PoolError:
            continue


def told_is_held(told: Snapshot, store: Store) -> None:
    held = {(one.subject, one.number): (one.schema_id, one.deleted) for one in store.all_versions()}
    assert held == {
        place: (one.schema_id, one.deleted) for place, one in told.versions.items() if not is_reserved_id(place[0])
    }
    assert {one.schema_id for one in told.versions.values()} == set(range(1, store.highest_id() + 1)), "every id"
    assert told.contradictions() == []
    for place, one in told.versions.items():
        if not is_reserved_id(place[0]):
            assert one.schema == store.version_text(*place), "with the text of the version itself"
    configs = {name: json.loads(one.config) for name, one in store.all_settings().items() if one.config}
    assert {name: config.get("alias") for name, config in configs.items()} == {
        name: config.get("alias") for name, config in told.configs.items()
    }
    assert {name: one.mode for name, one in store.all_settings().items() if one.mode} == told.modes


@given(acts=ACTS)
@settings(max_examples=60)
def test_the_topic_says_what_the_registry_holds(acts: list[tuple[str, str, str]]) -> None:
    store = memory_store()
    outbox = Committing(MemoryOutbox(), store.database)
    play(service(with_outbox(store, outbox.part)), acts)
    told_is_held(fold(record for _, record in outbox.pending(10_000)), store)
    with store.database.read() as reader:
        told_is_held(fold(snapshot_records(store.part, reader)), store)


def test_what_is_refused_is_not_told() -> None:
    store = memory_store()
    outbox = Committing(MemoryOutbox(), store.database)
    subjects = service(with_outbox(store, outbox.part))
    before = len(outbox.pending(100))
    with pytest.raises(PoolError):
        subjects.register("a", Content(text="nonsense"))
    with pytest.raises(PoolError):
        subjects.delete("a")
    assert len(outbox.pending(100)) == before


@pytest.mark.postgres
def test_in_postgresql_change_and_record_are_one_transaction(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    store = postgres_store(engine)
    outbox = Committing(PostgresOutbox(PostgresSubjects(row_tags())), store.database)
    published = with_outbox(store, outbox.part)
    subjects = service(published)
    play(subjects, [("put", "a", text) for text in TEXTS] + [("view", "", TEXTS[0]), ("drop one", "a", "")])
    told_is_held(fold(record for _, record in outbox.pending(1_000)), store)
    count = len(outbox.pending(1_000))

    def broken() -> None:
        with published.change("a") as change:
            change.purge([1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert len(outbox.pending(1_000)) == count
    numbers = [number for number, _ in outbox.pending(3)]
    outbox.remove(numbers)
    assert len(outbox.pending(1_000)) == count - 3
    outbox.fill()
    told_is_held(fold(record for _, record in outbox.pending(1_000)), store)


@pytest.mark.postgres
def test_one_process_at_a_time_has_the_turn(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    outbox = PostgresOutbox(PostgresSubjects(row_tags()))
    first, second = PostgresDatabase(engine), PostgresDatabase(sa.create_engine(engine.url, poolclass=sa.pool.NullPool))
    with first.begin() as work:
        assert outbox.try_lock(work)
        with second.begin() as other:
            assert not outbox.try_lock(other)
    with second.begin() as work:
        assert outbox.try_lock(work)
