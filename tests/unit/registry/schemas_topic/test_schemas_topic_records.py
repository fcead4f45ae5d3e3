"""Records of a `_schemas` topic: read as other registries write them, written so that compaction keeps its word."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from registry.cli.main import app
from registry.schemas_topic.records import (
    Record,
    Version,
    config_record,
    fold,
    is_reserved_id,
    mode_record,
    read_lines,
    reserved_id,
    schema_record,
    write_line,
)
from schemas.errors import InvalidError

# As Confluent's registry 7.9 and Karapace 5 write them.
FOREIGN = """\
{"keytype":"NOOP","magic":0}\tnull
{"keytype":"SCHEMA","subject":"a-value","version":1,"magic":1}\t{"subject":"a-value","version":1,"id":1,"schema":"\\"int\\"","deleted":false}
{"keytype":"SCHEMA","subject":"a-value","version":2,"magic":1}\t{"subject":"a-value","version":2,"id":2,"references":[],"schema":"\\"long\\"","deleted":false}
{"keytype":"SCHEMA","subject":"b-value","version":1,"magic":1}\t{"subject":"b-value","version":1,"id":3,"schemaType":"JSON","schema":"{}","deleted":true}
{"keytype":"SCHEMA","subject":"c-value","version":1,"magic":1}\t{"subject":"c-value","version":1,"id":1,"schema":"\\"int\\"","deleted":false}
{"keytype":"CONFIG","subject":null,"magic":0}\t{"compatibilityLevel":"FULL"}
{"keytype":"CONFIG","subject":"a-value","magic":0}\t{"compatibilityLevel":"NONE","alias":"b-value"}
{"keytype":"MODE","subject":"a-value","magic":0}\t{"mode":"READONLY"}
{"keytype":"DELETE_SUBJECT","subject":"c-value","magic":0}\t{"subject":"c-value","version":1}
{"keytype":"SCHEMA","subject":"d-value","version":1,"magic":1}\t{"subject":"d-value","version":1,"id":4,"schema":"\\"x\\"","deleted":false}
{"keytype":"CLEAR_SUBJECT","subject":"d-value","magic":0}\t{"subject":"d-value"}
"""


def version(subject: str = "a", number: int = 1, schema_id: int = 1, schema: str = '"int"', **more: object) -> Version:
    return Version(subject=subject, number=number, schema_id=schema_id, schema=schema, **more)  # type: ignore[arg-type]


def test_what_other_registries_write_is_read() -> None:
    found = fold(read_lines(FOREIGN.splitlines()))
    assert {place: (one.schema_id, one.deleted) for place, one in found.versions.items()} == {
        ("a-value", 1): (1, False),
        ("a-value", 2): (2, False),
        ("b-value", 1): (3, True),
        ("c-value", 1): (1, True),
    }
    assert found.versions["b-value", 1].rest == {"schemaType": "JSON"}
    assert found.configs == {
        "": {"compatibilityLevel": "FULL"},
        "a-value": {"compatibilityLevel": "NONE", "alias": "b-value"},
    }
    assert found.modes == {"a-value": "READONLY"}
    assert found.contradictions() == []


def test_keys_have_the_bytes_that_other_registries_write() -> None:
    keys = [line.partition("\t")[0] for line in FOREIGN.splitlines()]
    assert schema_record(version("a-value", 1)).key == keys[1]
    assert config_record("", None).key == keys[5]
    assert config_record("a-value", {"compatibility": "NONE"}).key == keys[6]
    assert mode_record("a-value", "READONLY") == Record(keys[7], '{"mode":"READONLY"}')


def test_a_record_goes_through_a_line_and_back() -> None:
    records = [
        schema_record(version(schema='{"type":"enum","name":"E","symbols":["甲"]}', rest={"metadata": {"tags": {}}})),
        schema_record(version(deleted=True)),
        config_record("", {"compatibility": "FULL"}),
        config_record("a", None),
        mode_record("a", None),
    ]
    assert [*read_lines("".join(map(write_line, records)).splitlines())] == records
    assert json.loads(records[2].value or "") == {"compatibilityLevel": "FULL"}
    assert records[3].value is None


def test_later_records_win_and_tombstones_take_away() -> None:
    first, gone = schema_record(version()), Record(schema_record(version()).key, None)
    found = fold([first, config_record("a", {"compatibility": "NONE"}), gone, config_record("a", None)])
    assert found.versions == {}
    assert found.configs == {}


def test_an_id_of_two_schemas_is_told() -> None:
    written_otherwise = version("d", schema='{"type": "int"}')
    more = (
        version("b", schema='"long"'),
        version("c", schema_id=2),
        written_otherwise,
        version("e", schema="none", schema_id=3),
    )
    found = fold(map(schema_record, (version("a"), *more)))
    (text,) = found.contradictions()
    assert "the id 1 stands for two schemas: version 1 of a, and version 1 of b" in text


def test_versions_come_after_what_they_refer_to() -> None:
    rest = {"references": [{"name": "B", "subject": "b", "version": 1}]}
    found = fold(map(schema_record, (version("a", schema_id=1, rest=rest), version("b", schema_id=2))))
    assert [one.subject for one in found.in_dependency_order()] == ["b", "a"]
    for missing in ({"subject": "a", "version": 1}, {"subject": "gone", "version": 1}):
        with pytest.raises(InvalidError, match="refers to what is not there"):
            fold([schema_record(version(rest={"references": [{"name": "x"} | missing]}))]).in_dependency_order()


def test_an_id_without_a_version_is_kept_under_a_subject_of_its_own() -> None:
    kept = reserved_id(42, version(schema_id=42))
    assert (kept.subject, kept.deleted, kept.schema_id) == (":.ids:42", True, 42)
    assert is_reserved_id(kept.subject)
    assert not is_reserved_id("ids:42")


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "{}",
        "[]",
        '{"key":{"keytype":"OTHER"},"value":{}}',
        '{"key":{"keytype":"SCHEMA","subject":"a","version":1},"value":{}}',
        '{"key":{"keytype":"SCHEMA","subject":"a","version":"1"},"value":null}',
        '{"key":{"keytype":"SCHEMA","subject":"a","version":1},"value":{"id":0,"schema":"x"}}',
        '{"key":{"keytype":"MODE","subject":"a"},"value":{"mode":1}}',
        '{"key":[],"value":null}',
        '{"key":"{","value":null}',
    ],
)
def test_what_is_no_record_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(InvalidError, match=r"(?:line|record) 2 is no"):
        fold(read_lines([write_line(schema_record(version())), line]))


def test_a_text_may_hold_what_else_ends_a_line(tmp_path: Path) -> None:
    """U+2028 and its like stand raw in JSON; only a line feed ends a record."""
    held = "".join(chr(code) for code in (0x85, 0x2028, 0x2029, 0x0B, 0x1C))
    text = json.dumps({"type": "fixed", "name": "F", "size": 1, "doc": held}, ensure_ascii=False)
    record = {"key": {"keytype": "SCHEMA", "subject": "a", "version": 1, "magic": 1}}
    value = {"subject": "a", "version": 1, "id": 1, "schema": text, "deleted": False}
    file = tmp_path / "schemas.jsonl"
    file.write_text(json.dumps({**record, "value": value}, ensure_ascii=False) + "\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["import", str(file), "--dry-run"])
    assert (done.exit_code, "1 version" in done.output) == (0, True), done.output
