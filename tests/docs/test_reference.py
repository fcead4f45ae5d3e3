"""What the reference must name is named: reason codes, metrics, configuration keys, headers, entry fields."""

import dataclasses
import re
from pathlib import Path

import prometheus_client
import pytest
from pydantic import BaseModel

from connectors.config.config import SECTIONS, allowed_keys
from connectors.port import RejectCode
from exchange import config, metrics
from schemas.access import Actor
from schemas.audit import AuditEntry
from schemas.errors import Reason
from schemas.reason_texts import Language, reason_text
from schemas.record import KeyOccurrence, Mark, Operation
from tests.docs.pages import PAGES, ROOT, anchors, links, name

REFERENCE = ROOT / "docs" / "reference"


def rows(page: str) -> list[list[str]]:
    lines = (REFERENCE / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]


def words(page: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", (REFERENCE / page).read_text(encoding="utf-8")))


def test_every_reason_has_one_row_with_chinese_and_with_something_to_do() -> None:
    found = [row for row in rows("reasons.md") if "<a id" in row[0]]
    codes = [re.sub(r"<[^>]+>", "", row[0]).strip("` ") for row in found]
    assert sorted(codes) == sorted(Reason)
    for row in found:
        assert all(row), row
        assert re.search(r"[\u4e00-\u9fff]", row[1]), row


def test_titles_and_help_of_reasons_are_those_that_programs_show() -> None:
    for row in rows("reasons.md"):
        if "<a id" in row[0]:
            reason = Reason(re.sub(r"<[^>]+>", "", row[0]).strip("` "))
            assert row[1] == reason_text(reason, Language.CHINESE).title, reason
            shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", row[4])
            assert shown == reason_text(reason, Language.ENGLISH).help, reason


def test_every_code_of_the_quarantine_has_a_row() -> None:
    assert set(RejectCode) <= words("reasons.md")


def declared() -> dict[str, prometheus_client.metrics.MetricWrapperBase]:
    found = {}
    for label in metrics.__all__:
        metric = getattr(metrics, label)
        suffix = "_total" if isinstance(metric, prometheus_client.Counter) else ""
        found[metric.describe()[0].name + suffix] = metric
    return found


def test_every_metric_has_a_row_with_its_labels() -> None:
    found = {row[0].strip("`"): row for row in rows("metrics.md") if row[0].startswith("`")}
    assert found.keys() == declared().keys()
    for label, metric in declared().items():
        assert found[label][2] == ", ".join(metric._labelnames), label


@pytest.mark.parametrize("label", metrics.__all__)
def test_who_moves_a_metric_is_as_the_reference_says(label: str) -> None:
    by_name = {id(metric): each for each, metric in declared().items()}
    full = by_name[id(getattr(metrics, label))]
    told = next(row[4] for row in rows("metrics.md") if row[0] == f"`{full}`")
    users = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "exchange").rglob("*.py")
        if re.search(rf"\bmetrics\.{label}\b", file.read_text(encoding="utf-8"))
    }
    assert users == (set() if told == "nothing yet" else set(told.split(", "))), full


def pool_keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= pool_keys(inner, f"{prefix}{key}.")
        elif key not in {"folder", "broker"}:
            found.add(prefix + key)
    return found


def test_every_key_of_the_pool_s_configuration_has_a_row() -> None:
    keys = pool_keys(config.Config) | pool_keys(config.KafkaBroker, "broker.")
    assert keys <= words("configuration.md"), keys - words("configuration.md")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_connector_s_configuration_has_a_row(section: str) -> None:
    known = words("configuration.md")
    last = section.rsplit(".", 1)[-1] if section.count(".") < 2 else ".".join(section.split(".")[1:])
    for key in allowed_keys(SECTIONS[section]):
        if any(re.search(rf"(?:^|\.){key}\.", word) for word in known) or key in {"source", "columns"}:
            continue  # a section: its own keys have rows
        parents = {"", f"{last}.", "into.", "exchange.", f"{section}.", f"{section.removeprefix('publish.')}."}
        parents |= {f"{section.removeprefix(prefix)}." for prefix in ("source.sql.", "source.http.")}
        assert any(f"{parent}{key}" in known for parent in parents), f"{section}: {key}"


def test_every_field_of_an_entry_has_a_row() -> None:
    fields = {each.name for each in dataclasses.fields(AuditEntry)}
    fields |= {f"actor.{each.name}" for each in dataclasses.fields(Actor)}
    assert fields <= words("audit-entry.md"), fields - words("audit-entry.md")


def test_every_header_on_kafka_has_a_row() -> None:
    source = (ROOT / "exchange" / "broker" / "kafka" / "receipts.py").read_text(encoding="utf-8")
    headers = set(re.findall(r'"((?:ce|pool)_[a-z]+)"', source))
    assert {"ce_source", "ce_id", "pool_op"} <= headers
    assert headers <= words("wire.md")


def test_the_mark_byte_is_as_described() -> None:
    assert int(Mark(Operation.VOID, KeyOccurrence.AGAIN)) == 3 + 16 * 2


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_and_tests_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:schemas|registry|exchange|connectors|deploy|tests)/[\w./-]+\.\w+)(?:::\w+)?`", text):
        assert (ROOT / path).exists(), f"{name(page)}: {path}"
    for path, test in re.findall(r"`?(tests/[\w/.-]+\.py)::(\w+)", text):
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{name(page)}: {path}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_speak_of_the_project_alone(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:home|root|Users)/|\bTODO\b|\bFIXME\b", page.read_text(encoding="utf-8"))
