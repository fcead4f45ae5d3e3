"""References, contexts, modes, import and contracts; run on the twin and on PostgreSQL."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from registry.avro.compatibility import Compatibility
from registry.subjects.model import Content, SchemaReference
from schemas.errors import Reason
from tests.kit.cases.registry import Stores, Subjects, record, refused, service

ADDRESS = json.dumps(
    {
        "type": "record",
        "name": "Address",
        "namespace": "a.b",
        "fields": [
            {"name": "street", "type": "string"},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["HOME", "WORK"]}},
        ],
    }
)


def person(field: str = "home", version: int = 1, subject: str = "address", **more: object) -> Content:
    fields = [
        {"name": field, "type": "a.b.Address"},
        {"name": "other", "type": ["null", "a.b.Address"], "default": None},
        {"name": "kind", "type": ["null", "a.b.Kind"], "default": None},
        *([] if not more else [more]),
    ]
    text = json.dumps({"type": "record", "name": "Person", "namespace": "c", "fields": fields})
    return Content(text=text, references=(SchemaReference("a.b.Address", subject, version),))


# --- references ------------------------------------------------------------------------------------------------


def test_a_reference_is_resolved_kept_and_written_in(subjects: Subjects) -> None:
    address = subjects.register("address", Content(text=ADDRESS))
    found = subjects.register("person", person(version=-1))
    assert found.content.references == (SchemaReference("a.b.Address", "address", 1, address.schema_id),)
    parsed = subjects.parsed_by_id(found.schema_id)
    assert [field.name for field in parsed.fields] == ["home", "other", "kind"]
    assert '"Kind"' in subjects.inlined_text(found.schema_id)
    assert subjects.find_version("person", person()).schema_id == found.schema_id
    assert subjects.register("other", person()).schema_id == found.schema_id


def test_what_does_not_exist_is_no_reference(subjects: Subjects) -> None:
    for content in (person(), replace(person(), references=(SchemaReference("x", "person", 1),))):
        error = refused(Reason.SCHEMA_INVALID, lambda content=content: subjects.register("person", content))
        assert "No schema reference found for subject" in error.message
    subjects.register("address", Content(text=ADDRESS))
    refused(Reason.SCHEMA_INVALID, lambda: subjects.register("person", person(version=2)))
    without = replace(person(), references=())
    refused(Reason.SCHEMA_INVALID, lambda: subjects.register("person", without))


def test_what_is_referred_to_stays(subjects: Subjects) -> None:
    subjects.register("address", Content(text=ADDRESS))
    found = subjects.register("person", person())
    assert subjects.referrer_ids("address", 1) == [found.schema_id]
    error = refused(Reason.SCHEMA_REFERENCED, lambda: subjects.delete("address"))
    assert "{magic=1,keytype=SCHEMA,subject=address,version=1}" in error.message
    refused(Reason.SCHEMA_REFERENCED, lambda: subjects.delete_version("address", 1))
    subjects.delete("person")
    assert subjects.referrer_ids("address", 1) == []
    assert subjects.referrer_ids("address", 1, deleted=True) == [found.schema_id]
    subjects.delete("address")
    refused(Reason.SCHEMA_REFERENCED, lambda: subjects.delete("address", permanent=True))
    subjects.delete("person", permanent=True)
    assert subjects.delete("address", permanent=True) == [1]
    assert subjects.parsed_by_id(found.schema_id).fields, "records with the id are still there to be read"


def test_a_purged_number_that_comes_again_makes_another_id(subjects: Subjects) -> None:
    subjects.register("address", Content(text=ADDRESS))
    first = subjects.register("person", person())
    for name in ("person", "address"):
        subjects.delete(name)
    for name in ("person", "address"):
        subjects.delete(name, permanent=True)
    subjects.register("address", Content(text=ADDRESS.replace("street", "road")))
    again = subjects.register("person", person())
    assert again.schema_id != first.schema_id
    assert "street" in subjects.inlined_text(first.schema_id)
    assert "road" in subjects.inlined_text(again.schema_id)


def test_compatibility_looks_through_references(subjects: Subjects) -> None:
    subjects.register("address", Content(text=ADDRESS))
    subjects.register("person", person())
    subjects.configuration.configure("address", {"compatibility": "NONE"})
    subjects.register("address", Content(text=ADDRESS.replace('"string"', '"int"', 1)))
    error = refused(Reason.SCHEMA_INCOMPATIBLE, lambda: subjects.register("person", person(version=2)))
    assert "street" in error.message


def test_references_within_references(subjects: Subjects) -> None:
    subjects.register("address", Content(text=ADDRESS))
    subjects.register("person", person())
    both = Content(
        text='{"type":"record","name":"Pair","fields":[{"name":"a","type":"c.Person"},{"name":"b","type":"c.Person"}]}',
        references=(SchemaReference("c.Person", "person", 1),),
    )
    found = subjects.register("pair", both)
    assert subjects.parsed_by_id(found.schema_id).fields[0].name == "a"
    refused(Reason.SCHEMA_REFERENCED, lambda: subjects.delete("person"))


# --- contexts --------------------------------------------------------------------------------------------------


def test_a_context_holds_subjects_of_its_own_over_one_space_of_ids(subjects: Subjects) -> None:
    plain = subjects.register("s", record("x"))
    inner = subjects.register(":.police:s", record("x", "y"))
    assert (plain.number, inner.number) == (1, 1)
    assert subjects.register(":.police:t", record("x")).schema_id == plain.schema_id
    assert subjects.subjects() == [":.police:s", ":.police:t", "s"]
    assert subjects.subjects("") == ["s"]
    assert subjects.subjects(":.police:") == [":.police:s", ":.police:t"]
    assert subjects.subjects(":*:s") == [":.police:s", "s"]
    assert subjects.context_names() == [".", ".police"]
    for name in (":.police:", ":x", ":.police:view.a.v1", ":.police:__GLOBAL"):
        refused(Reason.SUBJECT_INVALID, lambda name=name: subjects.register(name, record("x")))


def test_a_context_s_settings_stand_between_the_subject_s_and_everybody_s(subjects: Subjects) -> None:
    config = subjects.configuration
    config.configure(":.police:", {"compatibility": "NONE"})
    config.set_mode(":.police:", "READONLY")
    assert config.level(":.police:s") is Compatibility.NONE
    assert config.level("s") is Compatibility.BACKWARD
    refused(Reason.SUBJECT_READ_ONLY, lambda: subjects.register(":.police:s", record("x")))
    config.set_mode(":.police:s", "READWRITE")
    subjects.register(":.police:s", record("x"))
    config.set_mode("", "READONLY_OVERRIDE")
    refused(Reason.SUBJECT_READ_ONLY, lambda: subjects.register(":.police:s", record("y")))
    config.reset_mode("", recursive=True)
    assert config.mode(":.police:s") == "READWRITE"


def test_references_without_a_context_are_to_the_same(subjects: Subjects) -> None:
    subjects.register(":.police:address", Content(text=ADDRESS))
    found = subjects.register(":.police:person", person())
    assert found.content.references[0].subject == ":.police:address"
    refused(Reason.SCHEMA_INVALID, lambda: subjects.register("person", person()))


# --- import ----------------------------------------------------------------------------------------------------


def test_an_import_keeps_ids_and_versions(subjects: Subjects) -> None:
    subjects.configuration.set_mode("", "IMPORT")
    assert subjects.register("s", record("x"), schema_id=700, number=3).schema_id == 700
    assert subjects.register("s", record("y"), schema_id=702, number=5).number == 5
    assert subjects.register("s", record("x"), schema_id=700, number=3).number == 3
    assert subjects.version_numbers("s") == [3, 5]
    refused(Reason.ID_TAKEN, lambda: subjects.register("s", record("z"), schema_id=700, number=6))
    refused(Reason.ID_TAKEN, lambda: subjects.register("s", record("z"), schema_id=704, number=5))
    refused(Reason.SUBJECT_NOT_IN_IMPORT, lambda: subjects.register("s", record("z")))
    twin = subjects.register("t", record("x"), schema_id=701)
    assert twin.schema_id == 701, "elsewhere one content had two ids, and records carry either"
    assert subjects.by_id(701).content == subjects.by_id(700).content
    subjects.configuration.set_mode("", "READWRITE")
    refused(Reason.SUBJECT_NOT_IN_IMPORT, lambda: subjects.register("s", record("q"), schema_id=900))
    assert subjects.register("u", record("new")).schema_id > 702
    assert subjects.register("v", record("x")).schema_id == 700


def test_import_wants_an_empty_scope(subjects: Subjects) -> None:
    subjects.register("s", record("x"))
    for scope in ("s", ""):
        refused(Reason.SUBJECT_READ_ONLY, lambda scope=scope: subjects.configuration.set_mode(scope, "IMPORT"))
    assert subjects.configuration.set_mode("t", "IMPORT") == "IMPORT"
    assert subjects.configuration.set_mode("s", "IMPORT", force=True) == "IMPORT"


def test_import_and_registration_at_once_share_no_id(stores: Stores) -> None:
    importing, registering = service(stores, Compatibility.NONE), service(stores, Compatibility.NONE)
    importing.configuration.set_mode("i", "IMPORT")
    barrier = threading.Barrier(2)

    def bring() -> list[int]:
        barrier.wait()
        return [
            importing.register("i", record("i", name=f"I{n}"), schema_id=n * 3 + 5, number=n).schema_id
            for n in range(1, 20)
        ]

    def make() -> list[int]:
        barrier.wait()
        return [registering.register("r", record("r", name=f"R{n}")).schema_id for n in range(40)]

    meaning: dict[int, str] = {}
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(make), pool.submit(bring)]
        made = futures[0].result()
        failure = futures[1].exception()
    # An id that was given here meanwhile is refused there.
    assert failure is None or getattr(failure, "reason", None) is Reason.ID_TAKEN
    assert len(set(made)) == 40
    for subject in ("i", "r"):
        for number in registering.version_numbers(subject) if subject in registering.subjects() else []:
            found = registering.version(subject, number)
            assert meaning.setdefault(found.schema_id, found.content.text) == found.content.text


# --- contracts -------------------------------------------------------------------------------------------------


def test_defaults_go_below_and_overrides_above_what_is_submitted(subjects: Subjects) -> None:
    subjects.configuration.configure(
        "s",
        {
            "defaultMetadata": {"properties": {"owner": "nobody", "retention": "5y"}},
            "overrideMetadata": {"properties": {"office": "公安局"}, "tags": {"**.x": ["PII"]}},
            "overrideRuleSet": {"domainRules": [{"name": "a", "kind": "CONDITION", "mode": "WRITE"}]},
        },
    )
    given = replace(record("x"), metadata='{"properties": {"owner": "李"}}')
    found = subjects.register("s", given)
    assert json.loads(found.content.metadata or "") == {
        "properties": {"owner": "李", "retention": "5y", "office": "公安局"},
        "tags": {"**.x": ["PII"]},
    }
    assert json.loads(found.content.rule_set or "")["domainRules"][0]["name"] == "a"
    assert subjects.register("s", given) == found
    assert subjects.find_version("s", given).number == 1
    assert subjects.version_with_properties("s", {"owner": "李"}).number == 1
    refused(Reason.VERSION_UNKNOWN, lambda: subjects.version_with_properties("s", {"owner": "王"}))


def test_only_versions_of_one_group_are_compared(subjects: Subjects) -> None:
    subjects.configuration.configure("s", {"compatibilityGroup": "major"})
    first = Content(text='"int"', metadata='{"properties": {"major": "1"}}')
    subjects.register("s", first)
    second = Content(text='"string"', metadata='{"properties": {"major": "2"}}')
    assert subjects.register("s", second).number == 2
    third = Content(text='"boolean"', metadata='{"properties": {"major": "2"}}')
    refused(Reason.SCHEMA_INCOMPATIBLE, lambda: subjects.register("s", third))


@pytest.mark.parametrize(
    "changes",
    [
        {"alias": 7},
        {"normalize": "yes"},
        {"defaultMetadata": []},
        {"overrideMetadata": {"properties": {"a": 1}}},
        {"defaultRuleSet": {"domainRules": [{"kind": "CONDITION"}]}},
        {"overrideRuleSet": {"domainRules": [{"name": "a", "mode": "UPGRADE"}]}},
        {"compatibility": 3},
    ],
)
def test_a_configuration_of_another_form_is_refused(subjects: Subjects, changes: dict[str, object]) -> None:
    with pytest.raises(Exception, match=r"got|Invalid ruleset"):
        subjects.configuration.configure("s", changes)
    assert subjects.configuration.effective("s") == {"compatibility": "BACKWARD"}


def test_new_schemas_are_validated_unless_a_subject_says_otherwise(subjects: Subjects) -> None:
    lax = Content(text='{"type":"record","name":"R","fields":[{"name":"x","type":"int","default":"one"}]}')
    refused(Reason.SCHEMA_INVALID, lambda: subjects.register("s", lax))
    subjects.configuration.configure("s", {"validateNewSchemas": False})
    found = subjects.register("s", lax)
    assert subjects.parsed_by_id(found.schema_id).fields[0].name == "x"
    refused(Reason.SCHEMA_INVALID, lambda: subjects.register("t", lax))


# --- other types -----------------------------------------------------------------------------------------------

JSON_SCHEMA = '{"type": "object", "properties": {"x": {"type": "string"}}}'
PROTO = 'syntax = "proto3"; // a comment\nmessage M { string x = 1; }\n'


@pytest.mark.parametrize(
    ("kind", "text", "same", "other"),
    [
        ("JSON", JSON_SCHEMA, '{"properties":{"x":{"type":"string"}},"type":"object"}', '{"type":"object"}'),
        ("PROTOBUF", PROTO, 'syntax="proto3";message M{string x=1;}', PROTO.replace("1", "2")),
    ],
)
def test_json_and_protobuf_are_kept_and_found(subjects: Subjects, kind: str, text: str, same: str, other: str) -> None:
    found = subjects.register("s", Content(text=text, schema_type=kind))
    assert subjects.by_id(found.schema_id).content.text == text
    assert subjects.find_version("s", Content(text=same, schema_type=kind)).number == 1
    assert subjects.register("s", Content(text=same, schema_type=kind)).number == 1
    error = refused(Reason.SCHEMA_INVALID, lambda: subjects.register("s", Content(text=other, schema_type=kind)))
    assert "set the subject's compatibility to NONE" in error.message
    refused(Reason.SCHEMA_INCOMPATIBLE, lambda: subjects.register("s", Content(text='"int"')))
    subjects.configuration.configure("s", {"compatibility": "NONE"})
    assert subjects.register("s", Content(text=other, schema_type=kind)).number == 2


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("JSON", "{"),
        ("JSON", "[]"),
        ("JSON", '{"type": "text"}'),
        ("JSON", "[" * 1_000_000),
        ("PROTOBUF", ""),
        ("PROTOBUF", "message M {"),
        ("PROTOBUF", "hello"),
        ("PROTOBUF", '"' + "a" * 500_000),
        ("PROTOBUF", "message M " + "{" * 100_000),
        ("THRIFT", "struct S {}"),
    ],
)
def test_what_is_no_schema_of_its_type_is_refused(subjects: Subjects, kind: str, text: str) -> None:
    error = None
    try:
        subjects.register("s", Content(text=text, schema_type=kind))
    except Exception as caught:  # noqa: BLE001 - which it is, is asserted below
        error = caught
    assert getattr(error, "reason", None) in {Reason.SCHEMA_INVALID, Reason.SCHEMA_UNSAFE}
