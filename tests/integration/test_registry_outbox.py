"""The outbox: what the registry holds, and what the topic of schemas says, are the same, whatever happened."""

import json

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.postgres import tables
from registry.postgres.outbox import PostgresOutbox
from registry.postgres.subjects import PostgresSubjects
from registry.schemas_topic.outbox import MemoryOutbox, PublishedSubjects, snapshot_records
from registry.schemas_topic.records import Snapshot, fold, is_kept_id
from registry.subjects.configuration import Configuration
from registry.subjects.lookup import Subjects
from registry.subjects.memory import MemorySubjects
from registry.subjects.model import Content
from registry.subjects.store import SubjectStore
from schemas.errors import PoolError

TEXTS = ['"int"', '{"type": "int"}', '"long"', '{"type": "int", "zh": "年"}', '"string"']
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "drop one", "purge one", "delete", "purge", "configure", "mode", "view"]),
        st.sampled_from("ab"),
        st.sampled_from(TEXTS),
    ),
    max_size=25,
)


def service(store: SubjectStore) -> Subjects:
    subjects = Subjects(store, Configuration(store), governed=lambda _: False)
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


def told_is_held(told: Snapshot, store: SubjectStore) -> None:
    held = {(one.subject, one.number): (one.schema_id, one.deleted) for one in store.listed()}
    assert held == {
        place: (one.schema_id, one.deleted) for place, one in told.versions.items() if not is_kept_id(place[0])
    }
    assert {one.schema_id for one in told.versions.values()} == set(range(1, store.highest_id() + 1)), "every id"
    assert told.contradictions() == []
    for place, one in told.versions.items():
        if not is_kept_id(place[0]):
            assert one.schema == store.text(*place), "with the text of the version itself"
    configs = {name: json.loads(one.config) for name, one in store.configured().items() if one.config}
    assert {name: config.get("alias") for name, config in configs.items()} == {
        name: config.get("alias") for name, config in told.configs.items()
    }
    assert {name: one.mode for name, one in store.configured().items() if one.mode} == told.modes


@given(acts=ACTS)
@settings(max_examples=60, deadline=None)
def test_the_topic_says_what_the_registry_holds(acts: list[tuple[str, str, str]]) -> None:
    store, outbox = MemorySubjects(), MemoryOutbox()
    play(service(PublishedSubjects(store, outbox)), acts)
    told_is_held(fold(record for _, record in outbox.waiting(10_000)), store)
    told_is_held(fold(snapshot_records(store)), store)


def test_what_is_refused_is_not_told() -> None:
    store, outbox = MemorySubjects(), MemoryOutbox()
    subjects = service(PublishedSubjects(store, outbox))
    before = len(outbox.waiting(100))
    with pytest.raises(PoolError):
        subjects.register("a", Content(text="nonsense"))
    with pytest.raises(PoolError):
        subjects.delete("a")
    assert len(outbox.waiting(100)) == before


@pytest.mark.postgres
def test_in_postgresql_change_and_record_are_one_transaction(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    store, outbox = PostgresSubjects(engine), PostgresOutbox(engine)
    published = PublishedSubjects(store, outbox)
    subjects = service(published)
    play(subjects, [("put", "a", text) for text in TEXTS] + [("view", "", TEXTS[0]), ("drop one", "a", "")])
    told_is_held(fold(record for _, record in outbox.waiting(1_000)), store)
    count = len(outbox.waiting(1_000))

    def broken() -> None:
        with published.change("a") as change:
            change.purge([1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert len(outbox.waiting(1_000)) == count
    numbers = [number for number, _ in outbox.waiting(3)]
    outbox.sent(numbers)
    assert len(outbox.waiting(1_000)) == count - 3
    outbox.fill()
    told_is_held(fold(record for _, record in outbox.waiting(1_000)), store)


@pytest.mark.postgres
def test_one_process_at_a_time_has_the_turn(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    first, second = PostgresOutbox(engine), PostgresOutbox(sa.create_engine(engine.url, poolclass=sa.pool.NullPool))
    with first.turn() as mine:
        assert mine
        with second._engine.connect() as connection:
            taken = connection.execute(
                sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            ).scalar_one()
    assert taken == 1
    with second.turn() as mine:
        assert mine, "given back at the end"
