"""A registry is taken out and put into another: every id keeps its meaning, whatever happened before."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.client.admin import RegistryAdminClient
from registry.rest.app import create
from registry.schemas_topic.records import Version, fold, read_lines, reserved_subject, schema_record, write_line
from registry.schemas_topic.transfer import export_snapshot, import_snapshot, records_of
from registry.subjects.fingerprint import content_key
from registry.subjects.model import Content, SchemaReference
from schemas.errors import ConflictError, PoolError
from tests.kit.cases.registry import Subjects, memory_store
from tests.kit.share import count
from tests.kit.world.registry_served import RecordingAccessControl, identify

TEXTS = ['"int"', '{"type": "int"}', '"long"', '{"type": "int", "zh": "年"}', '"string"']


def registry() -> Subjects:
    subjects = Subjects(memory_store())
    subjects.configuration.configure("", {"compatibility": "NONE"})
    return subjects


@contextmanager
def remote(subjects: Subjects) -> Iterator[RegistryAdminClient]:
    with TestClient(create(subjects.services, RecordingAccessControl(), subjects.database, identify=identify)) as http:
        made = RegistryAdminClient("http://registry")
        made._http.close()
        made._http = http
        yield made


def copied(source: Subjects, target: Subjects) -> list[str]:
    """Copy through text, as a file would hold it."""
    with remote(source) as old, remote(target) as new:
        lines = "".join(map(write_line, records_of(export_snapshot(old)))).splitlines()
        return import_snapshot(new, fold(read_lines(lines))).refused


def ids(subjects: Subjects) -> dict[int, Content]:
    return {number: subjects.by_id(number).content for number in range(1, subjects.highest_id() + 1)}


def meanings(subjects: Subjects) -> dict[int, bytes]:
    """Return what each id means; of several texts that mean the same, another one may be the first after a copy."""
    return {number: content_key(content, json.loads(content.text)) for number, content in ids(subjects).items()}


def versions(subjects: Subjects) -> set[tuple[str, int, int, bool]]:
    return {(one.subject, one.number, one.schema_id, one.deleted) for one in subjects.all_versions(deleted=True)}


ACTS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "purge"]), st.sampled_from("ab"), st.sampled_from(TEXTS)),
    max_size=14,
)


def play(subjects: Subjects, acts: list[tuple[str, str, str]]) -> None:
    for act, subject, text in acts:
        try:
            if act == "put":
                subjects.register(subject, Content(text=text))
            elif act == "delete":
                subjects.delete(subject)
            else:
                subjects.delete(subject, permanent=True)
        except PoolError:
            continue


@given(before=ACTS, after=ACTS)
@pytest.mark.counted
@settings(max_examples=count(8, 4))
def test_no_id_means_two_schemas_after_any_history(
    before: list[tuple[str, str, str]], after: list[tuple[str, str, str]]
) -> None:
    source, target = registry(), registry()
    play(source, before)
    known, held = meanings(source), versions(source)
    assert copied(source, target) == []
    assert meanings(target) == known
    assert versions(target) == held
    assert copied(source, target) == [], "again changes nothing"
    assert versions(target) == held
    play(target, after)
    later = meanings(target)
    assert {number: later[number] for number in known} == known, "an id keeps its meaning whatever comes after"


def test_a_purged_id_is_not_given_to_another_schema() -> None:
    source, target = registry(), registry()
    source.register("a", Content(text='"int"'))
    source.register("b", Content(text='"long"'))
    source.delete("b")
    source.delete("b", permanent=True)
    with remote(source) as old:
        assert (reserved_subject(2), 1) in export_snapshot(old).versions
    copied(source, target)
    assert target.register("c", Content(text='"string"')).schema_id == 3
    assert target.register("d", Content(text='"long"')).schema_id == 2
    assert target.subjects(deleted=True) == ["a", "c", "d"]


def test_references_metadata_settings_and_other_types_go_along() -> None:
    source, target = registry(), registry()
    part = '{"type": "record", "name": "Part", "fields": [{"name": "n", "type": "int"}]}'
    whole = '{"type": "record", "name": "Whole", "fields": [{"name": "p", "type": "Part"}]}'
    source.register("z-part", Content(text=part, metadata=json.dumps({"properties": {"owner": "x"}})))
    source.register("a-whole", Content(text=whole, references=(SchemaReference("Part", "z-part", 1),)))
    source.register("json", Content(text='{"type": "object"}', schema_type="JSON"))
    source.register(":.police:own", Content(text='"int"'))
    source.configuration.configure("json", {"compatibility": "FULL", "normalize": True})
    source.configuration.set_mode("z-part", "READONLY")
    assert copied(source, target) == []
    assert ids(target) == ids(source)
    assert versions(target) == versions(source)
    assert target.configuration.own_configuration("json") == source.configuration.own_configuration("json")
    assert target.configuration.mode("z-part") == "READONLY"
    assert target.configuration.mode("a-whole") == "READWRITE"


def test_a_subject_keeps_the_mode_that_it_had_at_the_receiving_registry() -> None:
    source, target = registry(), registry()
    source.register("frozen", Content(text='"int"'))
    target.configuration.set_mode("frozen", "READONLY")
    assert copied(source, target) == []
    assert versions(target) == versions(source)
    assert target.configuration.mode("frozen") == "READONLY"


def test_what_contradicts_the_receiving_registry_is_named_and_the_rest_goes_on() -> None:
    source, target = registry(), registry()
    source.register("a", Content(text='"int"'))
    source.register("b", Content(text='"long"'))
    target.register("x", Content(text='"string"'))
    refused = copied(source, target)
    assert len(refused) == 1
    assert refused[0].startswith("version 1 of a: ")
    assert target.by_id(1).content.text == '"string"'
    assert target.version("b", 1).schema_id == 2


def test_a_topic_that_contradicts_itself_is_not_put_at_all() -> None:
    lines = [
        Version(subject=name, number=1, schema_id=1, schema=text) for name, text in (("a", '"int"'), ("b", '"long"'))
    ]
    target = registry()
    with remote(target) as new, pytest.raises(ConflictError, match="stands for two schemas"):
        import_snapshot(new, fold(map(schema_record, lines)))
    assert target.subjects() == []


def test_a_prefix_takes_its_subjects_alone() -> None:
    source = registry()
    for name in ("pop-a", "pop-b", "tax"):
        source.register(name, Content(text='"int"'))
    with remote(source) as old:
        assert {place[0] for place in export_snapshot(old, prefix="pop").versions} == {"pop-a", "pop-b"}


def test_versions_of_what_is_an_alias_over_there_are_refused_by_name() -> None:
    source, target = registry(), registry()
    source.register("a", Content(text='"int"'))
    source.register("b", Content(text='"long"'))
    target.configuration.configure("a", {"alias": "b"})
    (refused,) = copied(source, target)
    assert refused.startswith('versions of a: got "mode" for a, an alias')
    assert versions(target) == {("b", 1, 2, False)}
    assert target.configuration.mode("a") == "READWRITE"


@pytest.mark.parametrize("mode", ["READONLY", "READWRITE"])
def test_the_settings_of_all_contexts_do_not_replace_those_of_the_default_one_unseen(mode: str) -> None:
    """A topic of Confluent's may have both; here they are one scope."""
    lines = [
        '{"keytype":"MODE","subject":null,"magic":0}\t{"mode":"READWRITE"}',
        f'{{"keytype":"MODE","subject":":.__GLOBAL:","magic":0}}\t{{"mode":"{mode}"}}',
        '{"keytype":"CONFIG","subject":":.__GLOBAL:","magic":0}\t{"compatibilityLevel":"FULL"}',
    ]
    target = registry()
    with remote(target) as new:
        refused = import_snapshot(new, fold(read_lines(lines))).refused
    assert [one.partition(" of :.__GLOBAL:")[0] for one in refused] == (["mode"] if mode == "READONLY" else [])
    assert target.configuration.mode("") == "READWRITE"
    assert target.configuration.level("any") == "FULL"
