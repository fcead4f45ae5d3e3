"""The scoreboard: links lead to ids, texts are escaped, and a spreadsheet runs none of them."""

import csv
import io
from typing import Any

from exchange.kpi.scoreboard import scoreboard_csv, scoreboard_html, scoreboard_rows, value_text
from schemas.supervision.kpi import Count, Standing, figures_of

ENTRY = "0198c0de-0000-7000-8000-0000000000e7"


def document(name: str = "民政局") -> dict[str, Any]:
    counts = {("refused", "no_clause"): Count(), ("denied", "role_missing"): Count(), ("approved", ""): Count()}
    for index in range(30):
        counts["refused", "no_clause"].add(index, f"{ENTRY[:-2]}{index:02}", 1)
    counts["denied", "role_missing"].add(31, ENTRY, 1_200)
    told = {"": figures_of({}, Standing()), "d1": figures_of(counts, Standing())}
    return {
        "month": "2026-11", "pool": "p", "entries": 40, "until": "2026-11-18T11:06:40+00:00", "over": False,
        "unused_days": 30, "departments": [{"department": one, "figures": figures} for one, figures in told.items()],
        "names": {"d1": name},
    }  # fmt: skip


def test_each_figure_with_entries_links_to_their_ids_and_the_command_for_the_others() -> None:
    page = scoreboard_html(document())
    anchors = {part.partition('"')[0] for part in page.split(' id="')[1:]}
    linked = {part.partition('"')[0] for part in page.split('href="#')[1:]}
    assert linked <= anchors
    assert "d0-denials" in linked
    assert "d0-records_drawn" not in linked
    assert ENTRY in page
    assert "pool report entries refusals_without_clause --month 2026-11 --department d1" in page
    assert page.index("民政局") < page.index("数据主管部门与平台")
    assert "2026-11-18" in page


def test_names_are_escaped_in_the_page_and_neutralised_in_csv() -> None:
    evil = '=cmd()<script>alert("x")</script>'
    page, text = scoreboard_html(document(evil)), scoreboard_csv(document(evil))
    assert "<script>" not in page
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["department_name"] for row in rows if row["department"] == "d1"} == {f"'{evil}"}
    by_reason = [row for row in rows if row["detail"]]
    assert [(row["kpi"], row["detail"], row["value"]) for row in by_reason] == [("denials", "role_missing", "1200")]


def test_a_share_of_nothing_is_no_number() -> None:
    assert value_text({"value": 0, "of": 0}) == "–"
    assert value_text({"value": 1, "of": 3}) == "33.3 % (1/3)"
    assert value_text({"value": 1_234}) == "1,234"
    shown = {row["kpi"]: row["value"] for row in scoreboard_rows(document()) if row["department"] == "民政局"}
    assert (shown["share_rate"], shown["denials"], shown["replied_on_time"]) == ("0.0 % (0/30)", "1,200", "–")


def test_a_month_without_entries_says_so() -> None:
    assert "Nothing was recorded" in scoreboard_html({**document(), "departments": []})
