"""Examples in the pages are read by the code that they are for."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from connectors.config import lint
from connectors.config.config import ConnectorConfig
from exchange.api.bodies.catalogue import EntryBody
from exchange.api.bodies.requests import RequestBody
from exchange.api.catalogue.entries import MetadataBody
from exchange.broker.kafka.acls import parse_acls
from exchange.config import Config
from registry.avro.compatibility import Compatibility, find_incompatibilities
from registry.catalogue.code_lists import code_lists
from registry.catalogue.metadata_rules import Stage, faults_of
from registry.cli.main import app as schema_app
from tests.docs.pages import ROOT, Block, blocks

YAMLS = blocks("yaml")
CONNECTORS = [block for block in YAMLS if "connector:" in block.text]
OTHERS = [block for block in YAMLS if block not in CONNECTORS]


def page_of(block: Block) -> str:
    return block.page


def test_there_are_examples_of_every_kind() -> None:
    assert len(CONNECTORS) >= 4
    assert blocks("toml")
    assert blocks("avsc")
    assert OTHERS


@pytest.mark.parametrize("block", CONNECTORS, ids=page_of)
def test_a_connector_s_configuration_passes_lint(block: Block) -> None:
    found = lint.parse_config(block.text)
    assert isinstance(found, ConnectorConfig), [each.told(block.page) for each in found]


@pytest.mark.parametrize("block", blocks("toml"), ids=page_of)
def test_a_pool_s_configuration_is_read(block: Block, tmp_path: Path) -> None:
    text = block.text
    if "pool_id" not in text:  # a section to be added to what `pool init` wrote
        text = f'pool_id = "p"\norigin = "localhost/audit"\ngateway = "localhost:7443"\n{text}'
    (tmp_path / "pool.toml").write_text(text, encoding="utf-8")
    assert Config.load(tmp_path).pool_id


@pytest.mark.parametrize("block", OTHERS, ids=page_of)
def test_a_document_for_the_control_api_is_one(block: Block) -> None:
    document = YAML(typ="safe").load(block.text)
    if "metadata" in document:
        metadata = MetadataBody.model_validate(document["metadata"]).to_metadata().normalized(code_lists())
        assert faults_of(metadata, code_lists(), Stage.REVIEW) == []
    elif "purpose" in document:
        assert RequestBody.model_validate(document).to_draft().fields
    else:
        assert EntryBody.model_validate(document).to_entry("d").title


@pytest.mark.parametrize("block", blocks("avsc"), ids=page_of)
def test_a_schema_passes_lint(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "example.avsc"
    file.write_text(block.text, encoding="utf-8")
    done = CliRunner().invoke(schema_app, ["lint", str(file)])
    assert done.exit_code == 0, done.output


def test_the_second_schema_of_the_how_to_may_follow_the_first() -> None:
    first, second = [block.text for block in blocks("avsc") if block.page == "docs/how-to/register-a-schema.md"]
    assert not find_incompatibilities(second, [(1, first)], Compatibility.BACKWARD, strict=True)


def test_json_in_the_pages_is_json() -> None:
    for block in blocks("json"):
        json.loads(block.text)


def test_the_access_rules_that_ship_can_be_read() -> None:
    assert parse_acls((ROOT / "deploy" / "kafka" / "acls.txt").read_text(encoding="utf-8"))
