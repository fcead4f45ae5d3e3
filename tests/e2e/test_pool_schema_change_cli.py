"""`pool-schema diff` and `docs` as their user meets them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from registry.cli.main import app
from schemas import library

GRANT = {
    "id": "g-1",
    "consumer": "tax",
    "state": "active",
    "topic": "population.v1",
    "fields": ["id_number", "full_name", "birth_date"],
    "masks": {"full_name": "name_first"},
    "row_filter": {"op": "prefix", "field": "household_division_code", "value": "3301"},
    "ceiling": "G4",
}


def run(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], input=text, env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def new(tmp_path: Path) -> Path:
    document: dict[str, Any] = json.loads(library.text("population"))
    document["fields"] = [field for field in document["fields"] if field["name"] != "household_division_code"]
    for field in document["fields"]:
        if field["name"] == "full_name":
            field["level"] = "G2"
    path = tmp_path / "new.avsc"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path


def test_a_diff_says_what_changed_for_readers_and_what_needs_approval(new: Path) -> None:
    done = run("diff", "population", new)
    assert done.exit_code == 1, done.output
    assert "full_name" in done.output
    assert "level approval" in done.output
    assert "household_division_code" in done.output
    assert "readers first" in done.output
    assert "grant" not in done.output, "none were given"
    assert run("diff", "population", "base/population").exit_code == 0


def test_a_diff_says_which_grants_it_touches(new: Path, tmp_path: Path) -> None:
    grants = tmp_path / "grants.json"
    grants.write_text(json.dumps([GRANT, GRANT | {"id": "g-2", "state": "expired"}]), encoding="utf-8")
    done = run("diff", "population", new, "--grants", grants)
    assert "1 grant of 2 touched" in done.output
    assert "stopped g-1 of tax: its row filter names household_division_code" in done.output
    found = json.loads(run("diff", "population", new, "--grants", "-", "--json", text=json.dumps([GRANT])).output)
    assert {(item["grant"], item["touch"]) for item in found["grants"]} == {("g-1", "stopped"), ("g-1", "review")}
    assert [change["kind"] for change in found["changes"] if change["approval"]] == ["level"]


def test_what_is_no_list_of_grants_is_refused(new: Path) -> None:
    for text in ("{}", "nonsense", '[{"id": 1}]'):
        assert run("diff", "population", new, "--grants", "-", text=text).exit_code == 2


def test_a_schema_that_is_nowhere(new: Path) -> None:
    done = run("diff", "nothing-v1", new)
    assert done.exit_code == 2
    assert "for a subject, give --url too" in done.stderr
    assert run("register", "s", new).exit_code == 2


def test_the_dictionary_goes_to_a_file_in_the_form_that_its_name_says(tmp_path: Path) -> None:
    for name, start in (("d.html", "<!doctype html>"), ("d.md", "# 数据字典 Data dictionary")):
        done = run("docs", "population", "base/credit", "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    assert run("docs", "population", "--format", "md", "--lang", "en").output.startswith("# Data dictionary\n")
    assert run("docs", "population", "--out", tmp_path / "none" / "d.html").exit_code == 2


def test_a_dropped_tag_is_found_before_it_is_registered(tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(library.text("population"))
    document["fields"][0]["confluent:tags"] = ["PII", "LAW"]
    tagged, untagged = tmp_path / "tagged.avsc", tmp_path / "untagged.avsc"
    tagged.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    document["fields"][0]["confluent:tags"] = ["LAW"]
    untagged.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    name = document["fields"][0]["name"]
    done = run("check", tagged, untagged)
    assert done.exit_code == 1
    assert f"classification lowered: tagged.avsc: the tag 'PII' of {name} is dropped" in done.output
    assert run("check", untagged, tagged).exit_code == 0
    (change,) = json.loads(run("diff", tagged, untagged, "--json").output)["changes"]
    expected = {"kind": "tags", "path": name, "before": "LAW, PII", "after": "LAW", "approval": True}
    assert {key: change[key] for key in expected} == expected


def test_a_file_of_metadata_is_taken_whole_or_refused(tmp_path: Path) -> None:
    """The members of metadata itself, without `metadata` around them, would be registered as none at all."""
    file, metadata = tmp_path / "a.avsc", tmp_path / "metadata.json"
    file.write_text('"int"', encoding="utf-8")
    metadata.write_text('{"tags": {"**.id": ["PII"]}}', encoding="utf-8")
    done = run("register", "s", file, "--metadata", metadata, "--url", "http://127.0.0.1:9")
    assert done.exit_code == 2
    assert "got tags; expected metadata and ruleSet" in done.stderr
