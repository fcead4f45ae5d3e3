"""Pages and CSV of lineage and coverage: what is empty is named, and texts are escaped."""

import csv
import io
from typing import Any

from exchange.cli.report.pages import coverage_csv, coverage_html, lineage_csv, lineage_html

EVIL = "<script>=1</script>"
COVERAGE: dict[str, Any] = {
    "resources": 3,
    "departments": [
        {"department": "d1", "name": "民政局", "division": "330100", "resources": 3, "themes": {"health": 3}},
        {"department": "d2", "name": EVIL, "division": "330200", "resources": 0, "themes": {}},
    ],
    "themes": [
        {"theme": "health", "zh": "健康保障", "en": "health", "resources": 3},
        {"theme": "prices", "zh": "价格监管", "en": "prices", "resources": 0},
    ],
    "divisions": [{"division": "330100", "resources": 3}, {"division": "330200", "resources": 0}],
    "empty": {
        "departments": ["d2"],
        "themes": ["prices"],
        "divisions": ["330200"],
        "department_themes": [["d1", "prices"], ["d2", "health"], ["d2", "prices"]],
        "division_themes": [["330200", "health"]],
    },
}
LINEAGE: dict[str, Any] = {
    "resource": "residents.v1",
    "title": EVIL,
    "code": "101001/000001",
    "provider": "d1",
    "provider_name": "公安局",
    "state": "published",
    "share_type": "conditional",
    "schemas": [{"version": 1, "schema_id": 7}],
    "entries": 9,
    "lineage": [
        {
            "name": "sex_code",
            "zh": "性别",
            "since_version": 1,
            "last_version": 1,
            "level": "G2",
            "personal": "P",
            "mask": "none",
            "element": "DE001",
            "element_source": True,
            "grants": [{"grant": "g1", "consumer": "d2", "consumer_name": "医保局", "state": "active", "mask": "drop"}],
        }
    ],
    "grants": [
        {
            "grant": "g1",
            "consumer": "d2",
            "consumer_name": "医保局",
            "state": "active",
            "purpose": "eligibility",
            "fields": ["sex_code"],
            "masks": {},
            "releases": 2,
            "records": 1_234,
            "first": None,
            "last": None,
        }
    ],
    "batches": [
        {
            "entry": "e1",
            "index": 3,
            "received_at": "2026-11-01",
            "lane": "d1/a/residents.v1",
            "sequence": 4,
            "records": 5,
            "schema_ids": [7],
            "positions": [[0, 0, 4]],
            "drawn_complete": True,
            "drawn": [
                {
                    "grant": "g1",
                    "consumer": "d2",
                    "consumer_name": "",
                    "records": 5,
                    "first_entry": "e2",
                    "first_at": "2026-11-02",
                }
            ],
            "erased": [{"erasure": "x", "entry": "e3", "at": "2026-11-03", "destroyed_in_all": 1}],
        }
    ],
}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_coverage_marks_empty_cells_and_names_what_has_none() -> None:
    page = coverage_html(COVERAGE)
    assert page.count('class="empty"') == 3
    assert "价格监管" in page.partition("没有资源的主题")[2]
    assert "<script>" not in page
    cells = [row for row in rows(coverage_csv(COVERAGE)) if row["kind"] == "cell"]
    assert [(row["department"], row["theme"], row["resources"]) for row in cells] == [
        ("d1", "health", "3"), ("d1", "prices", "0"), ("d2", "health", "0"), ("d2", "prices", "0"),
    ]  # fmt: skip


def test_the_lineage_has_fields_grants_and_batches_with_who_drew_them() -> None:
    page = lineage_html(LINEAGE)
    assert "<script>" not in page
    for text in ("公安局", "DE001 数源 source", "医保局 (drop)", "1,234", "d1/a/residents.v1 #4", "d2 5", "e3"):
        assert text in page
    kinds = [row["kind"] for row in rows(lineage_csv(LINEAGE))]
    assert kinds == ["field", "field granted", "grant", "batch", "batch drawn", "batch erasure"]
    [field, *_] = rows(lineage_csv(LINEAGE))
    assert (field["field"], field["source"], field["element"]) == ("sex_code", "公安局", "DE001")
