"""The monthly report, and events for a SIEM, from the files of a signed log."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exchange.audit.oversight.monthly_report import month_bounds, monthly_report
from exchange.audit.oversight.report_csv import report_csv
from exchange.audit.oversight.report_html import report_html
from exchange.audit.oversight.siem import SiemCursor, event_of, json_line, signed_events, syslog_line
from exchange.audit.verify import verify_files
from schemas.access import Action, Actor, ActorKind, Role
from schemas.audit import Decision
from schemas.errors import CorruptError, InvalidError, Reason
from tests.kit.cases.audit import CONSUMER, OWNER, PROVIDER, READER, START, LogWorld, memory_world

MONTH = "2026-11"
NOW = datetime(2026, 12, 2, tzinfo=UTC)
HOSTILE = '=cmd|"/c calc"!A1'
OTHER = Actor(kind=ActorKind.MACHINE, id="sink", department=PROVIDER, role=Role.CONNECTOR, certificate="2c")


@pytest.fixture
def log(tmp_path: Path) -> LogWorld:
    """A log with 600 fillers, a grant, two publications, three releases, refusals, an erasure, one act of October."""
    log = LogWorld(memory_world(), tmp_path / "log")
    make, ledger = log.world.make, log.world.ledger()
    log.fill(ledger, 600)
    october = month_bounds(MONTH)[0] - 1
    denied = {"decision": Decision.DENY, "reason": Reason.QUOTA_EXHAUSTED, "resource": "population.v1"}
    log.world.write(
        ledger,
        make.publish(1),
        make.publish(2),
        make.grant(3, "cc" * 32),
        make.fetch(0, 10),
        make.fetch(10, 30),
        make.fetch(10, 30, again=True),
        make.make(Action.FETCH, **denied),
        make.make(Action.FETCH, **denied, data={"folded": 41, "since": START}),
        make.make(Action.FETCH, actor=OTHER, decision=Decision.DENY, reason=Reason.GRANT_EXPIRED),
        make.make(Action.ERASURE_CONFIRM, actor=OWNER, data={"reason": "why"}),
        make.make(Action.GRANT_SUSPEND, actor=OWNER, resource=HOSTILE, data={"reason": "secret words", "state": "s"}),
        make.make(Action.USER_ADD, actor=OWNER, at=october, resource="someone"),
    )
    log.sequencer().step()
    return log


def report_of(log: LogWorld, **changes: Any) -> dict[str, Any]:
    names = {CONSUMER: "人社局 <b>", PROVIDER: "公安局"}
    given: dict[str, Any] = {"key": log.signer.key, "month": MONTH, "now": NOW, "names": names}
    return monthly_report(log.folder, **(given | changes))


def test_a_month_begins_and_ends_at_utc_8() -> None:
    first, last = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=one) for one in month_bounds("2026-12"))
    assert (first.isoformat(), last.isoformat()) == ("2026-11-30T16:00:00+00:00", "2026-12-31T16:00:00+00:00")
    for text in ("2026", "2026-13", "12-2026", ""):
        with pytest.raises(InvalidError):
            month_bounds(text)


def test_the_report_sums_a_month(log: LogWorld) -> None:
    report = report_of(log)
    [drawn] = report["drawn"]
    assert (drawn["consumer"], drawn["provider"], drawn["resource"]) == (CONSUMER, PROVIDER, "population.v1")
    assert (drawn["grant"], drawn["purpose"]) == ("g-1", "social-insurance")
    assert (drawn["releases"], drawn["records"], drawn["repeated"]) == (3, 50, 20)
    assert [(row["name"], row["records"]) for row in report["consumers"]] == [("人社局 <b>", 50)]
    assert [(row["batches"], row["records"]) for row in report["published"]] == [(2, 20)]
    assert [(row["reason"], row["refusals"]) for row in report["refusals"]] == [
        ("quota_exhausted", 42),
        ("grant_expired", 1),
    ]
    acts = [act["action"] for act in report["rights"]["acts"]]
    assert acts == [Action.GRANT_PROVISION, Action.GRANT_SUSPEND], "that of October is in another month"
    assert [act["actor"] for act in report["erasures"]["acts"]] == ["owner"]
    integrity = report["integrity"]
    assert (integrity["whole"], integrity["size"], integrity["gaps"]) == (True, 612, 0)
    assert not integrity["compared_with_kept_checkpoint"]
    assert report["over"]
    october = report_of(log, month="2026-10")
    assert october["drawn"] == []
    assert [act["action"] for act in october["rights"]["acts"]] == [Action.USER_ADD]


def test_the_page_answers_who_drew_most_what_was_refused_and_whether_the_log_is_whole(log: LogWorld) -> None:
    page = report_html(report_of(log, since=log.note()))
    answers = re.sub(r"<[^>]+>", "", page[page.index('class="answers"') : page.index("</div>")])
    assert "人社局 &lt;b&gt;, 50 / 50 条记录 records (100 %)" in answers
    assert "43 次 times; 最多 most often quota_exhausted (42)" in answers
    assert "完整 whole · 612 / 612" in answers
    assert "compared with a checkpoint kept outside" in page
    assert "NOT compared" not in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=|url\(", page), "it needs nothing else"
    assert page.count("<table") == page.count("</table>")


def test_a_changed_log_is_not_whole_and_its_entries_are_not_counted(log: LogWorld) -> None:
    bundle = next(iter((log.folder / "tile" / "entries").glob("002.p/*")))
    bundle.write_bytes(bundle.read_bytes().replace(b"social-insurance", b"social-insurancE", 1))
    report = report_of(log)
    assert not report["integrity"]["whole"]
    assert report["integrity"]["counts"] == dict(verify_files(log.folder, key=log.signer.key).counts)
    assert report["drawn"][0]["releases"] == 2
    page = report_html(report)
    assert "NOT whole" in page
    assert "NOT WHOLE: DO NOT TRUST IT" in page


def test_csv_is_safe_from_formulas_and_has_every_figure(log: LogWorld) -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(report_of(log)))))
    drawn = next(row for row in rows if row["section"] == "drawn")
    assert (drawn["records"], drawn["provider"], drawn["purpose"]) == ("50", PROVIDER, "social-insurance")
    assert {row["section"] for row in rows} == {
        "report",
        "drawn",
        "published",
        "refused",
        "rights",
        "erasures",
        "integrity",
    }
    assert [row["resource"] for row in rows if "cmd" in row["resource"]] == ["'" + HOSTILE]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]
    assert next(row["value"] for row in rows if row["action"] == "whole") == "True"


def test_events_come_once_in_the_order_of_the_log_and_go_on_behind_the_cursor(log: LogWorld, tmp_path: Path) -> None:
    cursor = SiemCursor(tmp_path / "cursor")
    sent: list[dict[str, Any]] = []
    for origin, behind, events in signed_events(log.folder, log.signer.key, cursor):
        sent += events
        cursor.write(origin, behind)
        if behind == 512:
            break  # as if killed: what follows comes at the next start
    sent += [one for _, _, events in signed_events(log.folder, log.signer.key, cursor) for one in events]
    assert [one["index"] for one in sent] == list(range(612))
    again = [one for _, _, events in signed_events(log.folder, log.signer.key, cursor) for one in events]
    assert again == sent[512:], "without a new cursor they come again: at least once"
    with pytest.raises(InvalidError):
        SiemCursor(cursor.file).read("another.log")
    cursor.write("pool.example.gov/audit", 613)
    with pytest.raises(CorruptError, match="were removed"):
        next(signed_events(log.folder, log.signer.key, cursor))


def test_an_event_that_the_log_did_not_sign_is_not_sent(log: LogWorld, tmp_path: Path) -> None:
    bundle = log.folder / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes().replace(b"population.v1", b"popuLation.v1", 1))
    events = signed_events(log.folder, log.signer.key, SiemCursor(tmp_path / "cursor"))
    assert next(events)[1] == 256
    with pytest.raises(CorruptError, match="256 to 511"):
        next(events)


def test_an_event_says_who_did_what_and_nothing_of_a_case_or_in_free_text(log: LogWorld) -> None:
    with log.world.log.placed(600) as leaves:
        entries = [json.loads(one.leaf) for one in leaves]
    lines = [
        form(event_of("log", 600 + k, entry)) for k, entry in enumerate(entries) for form in (syslog_line, json_line)
    ]
    assert not [line for line in lines if "2026-001" in line or "secret words" in line or "delivered" in line]
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in lines)
    fetched = next(line for line in lines if line.startswith("<") and Action.FETCH in line)
    header = (
        r"<109>1 20\d\d-\d\d-\d\dT[\d:]{8}\.\d{6}Z test-pool pool 603 exchange:records:fetch \[pool@32473 index=\"603\""
    )
    assert re.match(header, fetched), fetched
    assert f'actor="{READER.id}"' in fetched


def test_structured_data_is_escaped(log: LogWorld) -> None:
    entry = json.loads(json.dumps({"at": START, "id": "x", "action": "a b", "decision": "deny", "pool": "p ö"}))
    entry |= {"resource": 'a"b]c\\d\n<109>1 forged', "reason": "r"}
    line = syslog_line(event_of("log", 1, entry))
    assert r'resource="a\"b\]c\\d <109>1 forged"' in line
    assert line.startswith("<108>1 ")
    assert " p__ pool 1 a_b [" in line or " p_ pool 1 a_b [" in line
    assert line.count("\n") == 1
