"""Contracts of the Open Data Contract Standard: what goes out comes back, and others are understood."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from registry.avro.parser import parse
from registry.cli.main import app
from registry.governance.classification import read_classification
from registry.reports.odcs import from_contract, to_contract
from registry.subjects.fingerprint import canonical_text
from schemas import library
from schemas.errors import InvalidError, Reason

FOREIGN = """
apiVersion: v3.0.2
kind: DataContract
id: 53581432-6c55-4ba2-a65f-72344a91553a
name: seller payments
version: 1.1.0
status: active
description: {purpose: Views built on top of the seller tables.}
schema:
  - name: tbl
    physicalType: table
    description: Payments.
    properties:
      - {name: rcvr_id, primaryKey: true, primaryKeyPosition: 2, logicalType: string, physicalType: varchar(18), required: true, classification: restricted}
      - {name: txn_ref_dt, primaryKey: true, primaryKeyPosition: 1, logicalType: date, physicalType: date, required: true, businessName: 交易日期, classification: public}
      - {name: amount, logicalType: number, physicalType: double, tags: [finance]}
      - {name: n, logicalType: integer}
      - {name: at, logicalType: timestamp}
      - name: lines
        logicalType: array
        items: {logicalType: object, properties: [{name: sku, logicalType: string, required: true}]}
customProperties:
  - {property: owner, value: 财政局}
"""  # noqa: E501
# What v3.1.0 allows and demands of the parts that are written.
CONTRACT = {"apiVersion", "kind", "id", "name", "version", "status", "schema", "customProperties"}
ELEMENT = {"name", "physicalType", "description", "businessName", "tags", "customProperties"}
OBJECT = ELEMENT | {"logicalType", "physicalName", "properties"}
PROPERTY = ELEMENT | {"logicalType", "required", "primaryKey", "primaryKeyPosition", "classification"}
LOGICAL = {"string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"}

NESTED = json.dumps(
    {
        "type": "record",
        "namespace": "a.b",
        "name": "R",
        "aliases": ["a.b.Old"],
        "zh": "人",
        "level": "G3",
        "fields": [
            {"name": "home", "type": {"type": "record", "name": "Home", "fields": [{"name": "x", "type": "int"}]}},
            {"name": "work", "type": ["null", "Home"], "default": None, "aliases": ["job"], "order": "ignore"},
            {"name": "many", "type": {"type": "array", "items": "Home"}, "default": []},
            {"name": "code", "type": {"type": "enum", "name": "E", "symbols": ["A"]}, "confluent:tags": ["PII"]},
            {"name": "money", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "n", "type": "int", "default": 0, "check": {"rule": "x", "when": {"code": ["A"]}}},
        ],
    }
).replace('"check": {"rule": "x", "when": {"code": ["A"]}}', '"standard": ["GB 1", "GB 2"]')


@pytest.mark.parametrize("text", [*map(library.text, library.names()), NESTED])
def test_what_goes_out_comes_back(text: str) -> None:
    parsed = parse(text)
    contract = to_contract(parsed, subject="s-value", version=3, properties={"owner": "x"})
    again, metadata = from_contract(json.loads(json.dumps(contract)))
    assert canonical_text(json.loads(again)) == canonical_text(parsed.json)
    assert metadata == {"properties": {"owner": "x"}}


@pytest.mark.parametrize("text", [*map(library.text, library.names()), NESTED])
def test_a_contract_has_the_members_of_the_standard(text: str) -> None:
    contract = to_contract(parse(text), subject="s-value")
    assert {"version", "apiVersion", "kind", "id", "status"} <= contract.keys() <= CONTRACT
    (element,) = contract["schema"]
    assert element.keys() <= OBJECT
    for item in element["properties"]:
        assert item.keys() <= PROPERTY
        assert item["logicalType"] in LOGICAL
        assert isinstance(item["physicalType"], str)
        assert all(each.keys() == {"property", "value"} for each in item.get("customProperties", ()))


def test_the_classification_is_where_readers_of_contracts_look() -> None:
    (element,) = to_contract(parse(library.text("population")), subject="population.v1-value")["schema"]
    item = next(each for each in element["properties"] if each["name"] == "id_number")
    assert (item["classification"], item["businessName"], item["primaryKeyPosition"]) == ("G4", "公民身份号码", 1)
    assert {"property": "personal", "value": "D"} in item["customProperties"]


def test_a_contract_from_elsewhere_becomes_a_schema() -> None:
    text, metadata = from_contract(YAML(typ="safe").load(FOREIGN), levels={"restricted": "G3"})
    parsed = parse(text)
    fields = {field.name: field for field in parsed.fields}
    assert parsed.key == ("txn_ref_dt", "rcvr_id")
    assert fields["txn_ref_dt"].type == {"type": "int", "logicalType": "date"}
    assert fields["amount"].type == ["null", "double"]
    assert fields["amount"].default is None
    assert fields["n"].type == ["null", "long"]
    assert fields["at"].type[1]["logicalType"] == "timestamp-micros"
    assert fields["lines"].type[1]["items"]["fields"][0]["type"] == "string"
    assert fields["rcvr_id"].attributes["level"] == "G3"
    assert fields["txn_ref_dt"].attributes["classification"] == "public", "a word that nobody explained stays a word"
    assert fields["txn_ref_dt"].attributes["zh"] == "交易日期"
    assert metadata == {"properties": {"owner": "财政局"}}
    assert read_classification(parsed.json)[1], "and lint says what is missing"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Other"},
        {"apiVersion": "v2.2.2"},
        {"schema": []},
        {"schema": [{"name": "a"}, {"name": "b"}]},
        {"schema": "x"},
        {"schema": [{"name": "a", "properties": [{"name": "x", "logicalType": "magic"}]}]},
        {"schema": [{"name": "a", "properties": [1]}]},
        {"schema": [{"name": "a", "properties": [{"logicalType": "string"}]}]},
        {"schema": [{"name": "a", "properties": [{"name": "x", "physicalType": "{nonsense"}]}]},
    ],
)
def test_what_is_no_contract_is_refused(change: dict[str, Any]) -> None:
    document = YAML(typ="safe").load(FOREIGN) | change
    with pytest.raises(InvalidError) as caught:
        from_contract(document)
    assert caught.value.reason is Reason.REQUEST_INVALID


def test_a_contract_that_gives_no_schema_says_which_field() -> None:
    document = YAML(typ="safe").load(FOREIGN)
    document["schema"][0]["properties"][0]["name"] = "收款人"
    with pytest.raises(InvalidError) as caught:
        from_contract(document)
    assert caught.value.reason is Reason.SCHEMA_INVALID


def test_the_commands(tmp_path: Path) -> None:
    contract, back, metadata = tmp_path / "c.yaml", tmp_path / "b.avsc", tmp_path / "m.json"
    runner = CliRunner()
    assert runner.invoke(app, ["contract", "export", "population", "--out", str(contract)]).exit_code == 0
    assert "公民身份号码" in contract.read_text(encoding="utf-8")
    done = runner.invoke(
        app, ["contract", "import", str(contract), "--out", str(back), "--metadata-out", str(metadata)]
    )
    assert done.exit_code == 0, done.output
    assert runner.invoke(app, ["diff", "population", str(back)]).exit_code == 0
    assert json.loads(metadata.read_text()) == {"metadata": {}}
    contract.write_text("a: [")
    assert runner.invoke(app, ["contract", "import", str(contract)]).exit_code == 2
    assert runner.invoke(app, ["contract", "import", str(contract), "--level", "public=G9"]).exit_code == 2
