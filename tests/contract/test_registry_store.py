"""What every store of the registry keeps true; run on the twin and on PostgreSQL."""

import json
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.avro.compatibility import Compatibility
from registry.database.unit_of_work import Reader
from registry.subjects.model import GLOBAL, Content, SchemaReference, Settings
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from tests.kit.cases.registry import Stores, Subjects, memory_stores, record, refused, service


def test_one_content_has_one_id_under_every_subject(subjects: Subjects) -> None:
    first = subjects.register("a-value", record("x"))
    second = subjects.register("b-value", record("x"))
    third = subjects.register("b-value", record("x", "y"))
    assert (first.schema_id, first.number) == (1, 1)
    assert (second.schema_id, second.number) == (1, 1)
    assert (third.schema_id, third.number) == (2, 2)


def test_what_a_rolled_back_transaction_read_is_forgotten(subjects: Subjects) -> None:
    """An id that was never committed may come to stand for another schema, or for none."""
    lookup, registration, database = subjects.services.lookup, subjects.services.registration, subjects.database
    address = '{"type":"record","name":"A","fields":[{"name":"x","type":"int"}]}'
    subjects.register("a-value", Content(text=address))
    reference = SchemaReference("A", "a-value", 1)

    def read(work: Reader, schema_id: int) -> tuple[str, str]:
        return lookup.by_id(work, schema_id).content.text, json.loads(lookup.inlined_text(work, schema_id))["type"]

    with suppress(KeyError), database.begin() as work:
        array = Content(text='{"type":"array","items":"A"}', references=(reference,))
        schema_id = registration.register(work, "b-value", array).schema_id
        assert read(work, schema_id) == (array.text, "array")
        raise KeyError
    refused(Reason.SCHEMA_UNKNOWN, lambda: subjects.by_id(schema_id))
    with database.begin() as work:
        content = Content(text='{"type":"map","values":"A"}', references=(reference,))
        registered = registration.register(work, "b-value", content)
        before = read(work, registered.schema_id)
    with database.read() as reader:
        assert read(reader, registered.schema_id) == before
    assert before == (content.text, "map")


def test_what_a_transaction_read_is_cached_once_it_is_committed(
    stores: Stores, subjects: Subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup, database = subjects.services.lookup, subjects.database
    schema_id = service(stores).register("a-value", record("x")).schema_id
    with database.begin() as work:
        found = lookup.by_id(work, schema_id)
        assert lookup.by_id(work, schema_id) is found
    monkeypatch.delattr(type(stores.subjects.part), "schema")
    with database.read() as reader:
        assert lookup.by_id(reader, schema_id) is found


def test_registering_again_gives_the_same_version(subjects: Subjects) -> None:
    first = subjects.register("a-value", record("x"))
    subjects.register("a-value", record("x", "y"))
    assert subjects.register("a-value", record("x")) == first
    assert subjects.version_numbers("a-value") == [1, 2]


def test_writing_it_differently_is_the_same_schema_and_each_version_keeps_its_own_text(subjects: Subjects) -> None:
    short, long = Content(text='"int"'), Content(text='{ "type" : "int" }')
    assert subjects.register("a-value", short).schema_id == subjects.register("b-value", long).schema_id
    assert subjects.by_id(1).content.text == '"int"'
    assert subjects.version("b-value", 1).content.text == '{ "type" : "int" }'
    assert subjects.find_version("b-value", short).content.text == '{ "type" : "int" }'


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
    assert again.version_numbers("a-value") == [1]


def test_an_id_never_given_is_unknown(subjects: Subjects) -> None:
    for schema_id in (0, -1, 1, 2**31 - 1):
        refused(Reason.SCHEMA_UNKNOWN, lambda number=schema_id: subjects.by_id(number))


def test_a_refused_registration_leaves_nothing(stores: Stores, subjects: Subjects) -> None:
    subjects.register("a-value", Content(text='"int"'))
    refused(Reason.SCHEMA_INCOMPATIBLE, lambda: subjects.register("a-value", Content(text='"string"')))
    assert subjects.version_numbers("a-value") == [1]
    refused(Reason.SCHEMA_UNKNOWN, lambda: subjects.find_version("a-value", Content(text='"string"')))

    def fail_late() -> None:
        with stores.subjects.change("new-value") as change:
            change.add_content(1, b"k" * 32, b"s" * 32, Content(text='"long"'))
            change.configure(Settings(config="{}", mode="READONLY"))
            raise LookupError

    with pytest.raises(LookupError):
        fail_late()
    assert stores.subjects.versions("new-value") == []
    assert stores.subjects.settings("new-value") == Settings()
    assert stores.subjects.subjects() == [("a-value", True)]


def test_a_version_that_is_there_is_never_written_over(stores: Stores) -> None:
    long = Content(text='"long"')
    with stores.subjects.change("a-value") as change:
        schema = change.add_content(1, b"k" * 32, b"s" * 32, long)
        again = change.add_content(2, b"k" * 32, b"s" * 32, Content(text='{"type":"long"}'))
        assert again == schema, "one content, one id, and the text that came first"

    def take() -> None:
        with stores.subjects.change("a-value") as change:
            change.add_content(1, b"l" * 32, b"s" * 32, Content(text='"int"'))

    def take_known() -> None:
        with stores.subjects.change("a-value") as change:
            change.add_version(2, schema, '"int"')

    refused(Reason.VERSION_CONFLICT, take)
    refused(Reason.VERSION_CONFLICT, take_known)
    assert [stores.subjects.version_text("a-value", number) for number in (1, 2)] == ['"long"', '{"type":"long"}']
    assert [item.schema_id for item in stores.subjects.versions("a-value")] == [schema.id] * 2
    assert stores.subjects.schema(schema.id) == schema


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
        assert subjects.version_numbers(name) == sorted(number for found in contents for number in found)
        assert subjects.version_numbers(name) == list(range(1, 13))


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["register", "delete", "purge", "delete_version", "purge_version"]),
        st.sampled_from(["a-value", "b-value"]),
        st.integers(0, 4),
    ),
    max_size=25,
)


@given(acts=ACTS)
@settings(max_examples=150)
def test_no_history_makes_an_id_mean_two_contents(acts: list[tuple[str, str, int]]) -> None:
    stores = memory_stores()
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
    assert subjects.version_numbers("a-value") == [1]
    assert subjects.version("a-value", None).number == 1
    assert subjects.version_numbers("a-value", deleted=True) == [1, 2]
    assert subjects.version_numbers("a-value", deleted_only=True) == [2]
    assert subjects.version("a-value", 2, deleted=True).deleted
    refused(Reason.VERSION_UNKNOWN, lambda: subjects.version("a-value", 2))
    refused(Reason.SCHEMA_UNKNOWN, lambda: subjects.find_version("a-value", record("x", "y")))
    assert subjects.find_version("a-value", record("x", "y"), deleted=True).number == 2
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
    assert [(item.subject, item.number) for item in subjects.versions_by_schema_id(1)] == [("a-value", 1)]
    assert [(item.subject, item.number) for item in subjects.versions_by_schema_id(1, deleted=True)] == [
        ("a-value", 1),
        ("b-value", 1),
    ]
    refused(Reason.SCHEMA_UNKNOWN, lambda: subjects.versions_by_schema_id(7))


# --- settings --------------------------------------------------------------------------------------------------


def test_a_subjects_level_wins_over_the_global_one_and_that_over_the_default(subjects: Subjects) -> None:
    config = subjects.configuration
    assert config.level("a-value") is Compatibility.BACKWARD
    config.configure(GLOBAL, {"compatibility": "full"})
    assert config.level("a-value") is Compatibility.FULL
    config.configure("a-value", {"compatibility": "NONE", "normalize": True})
    config.configure("a-value", {"compatibility": "FORWARD"})
    assert config.own_configuration("a-value") == {"compatibility": "FORWARD", "normalize": True}
    assert config.reset("a-value")["compatibility"] == "FORWARD"
    assert config.level("a-value") is Compatibility.FULL
    refused(Reason.COMPATIBILITY_NOT_SET, lambda: config.own_configuration("a-value"))
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
    assert subjects.find_version("a-value", record("x")).number == 1
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
