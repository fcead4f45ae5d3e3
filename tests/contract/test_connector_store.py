"""Lists of connectors and invitations, and reports, over the stores in memory and in PostgreSQL; and their plans."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.audit.memory import MemoryAudit
from exchange.audit.postgres import PostgresReceipts
from exchange.audit.store import ReceiptStore
from exchange.audit.tables import metadata as audit_metadata
from exchange.identity.connectors.postgres import PostgresConnectorStore
from exchange.identity.connectors.status import ConnectorStatus, reason_of, status_of
from exchange.identity.connectors.store import (
    ConnectorKey,
    ConnectorStore,
    EnrolledName,
    MemoryConnectorStore,
    StoredReport,
    invitation_cursor,
    parse_invitation_cursor,
)
from exchange.identity.postgres import PostgresIdentityStore, metadata
from exchange.identity.store import Certificate, MemoryIdentityStore, OneTimeToken
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.connector_report import ConnectorReport, Direction, StreamReport, StreamState
from schemas.errors import InvalidError
from schemas.identifiers import uuid7
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import OffsetRange, Receipt
from tests.kit.row_tags import row_tags

AT = datetime(2026, 5, 4, tzinfo=UTC)
DAY = timedelta(days=1)
KEYS = [(f"d-{n % 3}", f"c-{n}") for n in range(9)]


def a_report(**changes: Any) -> ConnectorReport:
    stream = StreamReport(name="people.v1", direction=Direction.PUBLISH, state=StreamState.RUNNING, sequence=7)
    return ConnectorReport(**{"program": "exchange-pool/0.1.0", "started": 1, "streams": [stream], **changes})


class Stores:
    def __init__(self, engine: sa.Engine | None) -> None:
        self.engine = engine
        self.receipts: ReceiptStore
        self.connectors: ConnectorStore
        if engine is None:
            self.db: Database = MemoryDatabase()
            memory = MemoryIdentityStore()
            self.identities: MemoryIdentityStore | PostgresIdentityStore = memory
            self.connectors = MemoryConnectorStore(memory)
            self.receipts = MemoryAudit(MemoryDatabase())
        else:
            for each in (metadata, audit_metadata):
                each.create_all(engine)
            self.db = PostgresDatabase(engine)
            self.identities = PostgresIdentityStore(row_tags())
            self.connectors = PostgresConnectorStore(row_tags())
            self.receipts = PostgresReceipts()

    def fill(self) -> None:
        with self.db.begin() as work:
            for number, (department, connector) in enumerate(KEYS):
                for age in range(number % 3 + 1):
                    self.identities.add_certificate(
                        work,
                        Certificate(
                            serial=f"{number}{-age % 7}", department=department, connector=connector,
                            not_before=AT, not_after=AT + age * DAY,
                        ),
                    )  # fmt: skip
                self.identities.add_invitation(
                    work,
                    OneTimeToken(
                        digest=bytes([255 - number]) * 32, department=department, connector=connector,
                        invited_by="one+two", created_at=AT + number // 2 * DAY, expires_at=AT + 30 * DAY,
                    ),
                )  # fmt: skip

    def names(self, department: str | None = None) -> list[EnrolledName]:
        found: list[EnrolledName] = []
        after = ("", "")
        while True:
            with self.db.read() as reader:
                page = self.connectors.connectors_page(reader, department=department, after=after, limit=2)
            found += [one for one in page if isinstance(one, EnrolledName)]
            if len(page) < 2:
                return found
            last = page[-1]
            assert isinstance(last, EnrolledName)
            after = (last.certificate.department, last.certificate.connector)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def stores(request: pytest.FixtureRequest) -> Stores:
    made = Stores(request.getfixturevalue("engine") if request.param == "postgres" else None)
    made.fill()
    return made


def test_each_connector_is_listed_once_with_its_newest_certificate(stores: Stores) -> None:
    found = stores.names()
    assert [(one.certificate.department, one.certificate.connector) for one in found] == sorted(KEYS)
    for one in found:
        number = int(one.certificate.connector[2:])
        assert one.certificates == number % 3 + 1
        assert one.certificate.not_after == AT + (number % 3) * DAY
    assert {one.certificate.department for one in stores.names("d-1")} == {"d-1"}
    assert stores.names("d-nobody") == []


def test_invitations_are_listed_newest_first_page_by_page(stores: Stores) -> None:
    found: list[OneTimeToken] = []
    cursor = ""
    while True:
        with stores.db.read() as reader:
            before = parse_invitation_cursor(cursor)
            page = stores.connectors.invitations_page(reader, department=None, before=before, limit=2)
        tokens = [one for one in page if isinstance(one, OneTimeToken)]
        found += tokens
        if len(page) < 2:
            break
        cursor = invitation_cursor(tokens[-1].created_at, tokens[-1].digest)
    assert len(found) == len(KEYS)
    places = [(one.created_at, one.digest) for one in found]
    assert places == sorted(places, reverse=True)
    with stores.db.read() as reader:
        own = stores.connectors.invitations_page(reader, department="d-2", before=None, limit=100)
    assert {one.department for one in own if isinstance(one, OneTimeToken)} == {"d-2"}
    assert len(own) == 3


@pytest.mark.parametrize(
    "cursor", ["x", "0-0", "a-b", "aaaaaaaaaaaaaaaaaaa-" + "a" * 64, "jjjjjjjjjjjjjjjjjj-" + "a" * 64]
)
def test_another_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidError):
        parse_invitation_cursor(cursor)


def test_a_report_replaces_the_one_before_and_is_given_back_by_connector(stores: Stores) -> None:
    first, second = a_report(), a_report(ended=True, streams=[])
    with stores.db.begin() as work:
        for report in (first, second):
            stores.connectors.put_report(work, KEYS[0], AT, report)
        stores.connectors.put_report(work, KEYS[1], AT + DAY, first)
    with stores.db.read() as reader:
        found = stores.connectors.reports(reader, [*KEYS, ("d-0", "unknown")])
        assert stores.connectors.reports(reader, []) == {}
    assert found == {
        KEYS[0]: StoredReport(received_at=AT, report=second),
        KEYS[1]: StoredReport(received_at=AT + DAY, report=first),
    }


def test_a_report_is_taken_back_with_its_transaction(stores: Stores) -> None:
    def fail() -> None:
        with stores.db.begin() as work:
            stores.connectors.put_report(work, KEYS[0], AT, a_report())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with stores.db.read() as reader:
        assert stores.connectors.reports(reader, KEYS) == {}


def receipt(department: str, connector: str, topic: str, sequence: int) -> Receipt:
    return Receipt(
        lane=Lane(department, ConnectorId(connector), Topic.parse(topic)),
        sequence=sequence,
        root=bytes(32),
        runs=(OffsetRange(partition=0, first=0, last=1),),
        entry_id=uuid7(sequence * 1_000_000),
        leaf_hash=bytes(32),
        source_position=b"",
        signature=b"s",
    )


def test_the_last_batch_of_each_lane_of_some_connectors_is_found(stores: Stores) -> None:
    given = [
        receipt(department, connector, topic, sequence)
        for department, connector in (("d-1", "c"), ("d-1", "c-1"), ("d-1", "c0"), ("d-2", "c"))
        for topic in ("a.v1", "b.v2", "b.v1")
        for sequence in (1, 2, 10)
    ]
    with stores.db.begin() as work:
        stores.receipts.put(work, [(one, ()) for one in given])
    with stores.db.read() as reader:
        found = stores.receipts.lasts_of(reader, [("d-1", "c"), ("d-2", "c"), ("d-3", "c")])
        assert stores.receipts.lasts_of(reader, []) == []
    assert {(str(one.lane), one.sequence) for one in found} == {
        (f"{department}/c/{topic}", 10) for department in ("d-1", "d-2") for topic in ("a.v1", "b.v2", "b.v1")
    }


@pytest.mark.postgres
def test_rows_that_somebody_wrote_are_named_and_decide_nothing(engine: sa.Engine) -> None:
    stores = Stores(engine)
    stores.fill()
    with stores.db.begin() as work:
        stores.connectors.put_report(work, KEYS[1], AT, a_report())
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE identity_certificate SET not_after = '2099-01-01' WHERE connector = 'c-3'")
        connection.exec_driver_sql("UPDATE identity_invitation SET expires_at = '2099-01-01' WHERE connector = 'c-3'")
        connection.exec_driver_sql("UPDATE identity_report SET body = '{\"streams\": 1}'")
    with stores.db.read() as reader:
        page = stores.connectors.connectors_page(reader, department="d-0", after=("", ""), limit=10)
        invitations = stores.connectors.invitations_page(reader, department="d-0", before=None, limit=10)
        reports = stores.connectors.reports(reader, KEYS)
    damaged = [one.document() for one in page if isinstance(one, DamagedRow)]
    assert damaged == [{"department": "d-0", "connector": "c-3", "status": "damaged"}]
    assert len(page) == 3
    assert [isinstance(one, DamagedRow) for one in invitations] == [False, True, False]
    assert reports[KEYS[1]].report is None
    assert status_of(reports[KEYS[1]], AT) is ConnectorStatus.RUNNING


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (0, "running"),
        (149, "running"),
        (150, "late"),
        (599, "late"),
        (600, "silent"),
        (10**7, "silent"),
        (-60, "running"),
    ],
)
def test_the_status_is_the_age_of_the_last_report(age: int, status: str) -> None:
    stored = StoredReport(received_at=AT, report=a_report())
    assert status_of(stored, AT + timedelta(seconds=age)) == status
    assert reason_of(stored) == ""


def test_a_connector_that_said_so_has_ended_or_stopped_and_one_without_a_report_never_reported() -> None:
    stopped = StreamReport(
        name="a.v1", direction=Direction.PUBLISH, state=StreamState.STOPPED, reason="contract_broken"
    )
    ended = StoredReport(received_at=AT, report=a_report(ended=True))
    failed = StoredReport(received_at=AT, report=a_report(ended=True, streams=[*a_report().streams, stopped]))
    partly = StoredReport(received_at=AT, report=a_report(streams=[*a_report().streams, stopped]))
    assert status_of(ended, AT + 99 * DAY) is ConnectorStatus.ENDED
    assert (status_of(failed, AT), reason_of(failed)) == (ConnectorStatus.STOPPED, "contract_broken")
    assert (status_of(partly, AT), reason_of(partly)) == (ConnectorStatus.RUNNING, "contract_broken")
    assert (status_of(None, AT), reason_of(None)) == (ConnectorStatus.NEVER, "")


_FILL = """
INSERT INTO identity_certificate (serial, department, connector, not_before, not_after, revoked_by, revoked_because)
SELECT n::text, 'd-' || n % 20, 'c-' || n % 500, now(), now() + n * interval '1 minute', '', ''
FROM generate_series(1, 20000) AS n;
INSERT INTO identity_invitation (digest, department, invited_by, created_at, expires_at)
SELECT sha256(n::text::bytea), 'd-' || n % 20, 'one', now() + n * interval '1 minute', now()
FROM generate_series(1, 20000) AS n;
INSERT INTO identity_report (department, connector, received_at, program, started, body)
SELECT DISTINCT department, connector, now(), 'p', now(), '{}'::jsonb FROM identity_certificate;
INSERT INTO audit_receipt (lane, sequence, root, runs, entry_id, leaf_hash, source_position, signature)
SELECT 'd-' || n % 20 || '/c-' || n % 500 || '/t.v1', n, '', '{}', gen_random_uuid(), sha256('x'), '', ''
FROM generate_series(1, 20000) AS n;
"""


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


@pytest.mark.postgres
def test_each_list_reads_index_ranges_and_no_more_than_its_page(engine: sa.Engine) -> None:
    stores = Stores(engine)
    with engine.begin() as connection:
        connection.execute(sa.text(_FILL))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    ran: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: Any) -> None:
        ran.append((statement, parameters))

    keys: list[ConnectorKey] = [("d-7", "c-7"), ("d-7", "c-27"), ("d-8", "c-8")]
    sa.event.listen(engine, "before_cursor_execute", note)
    with stores.db.read() as reader:
        for department in (None, "d-7"):
            for after in (("", ""), ("d-7", "c-2")):
                stores.connectors.connectors_page(reader, department=department, after=after, limit=10)
            for before in (None, (datetime.now(UTC) + 5 * DAY, bytes(32))):
                stores.connectors.invitations_page(reader, department=department, before=before, limit=10)
        stores.connectors.reports(reader, keys)
        stores.receipts.lasts_of(reader, keys)
    sa.event.remove(engine, "before_cursor_execute", note)
    read = [(statement, parameters) for statement, parameters in ran if "FROM" in statement]
    assert len(read) >= 10
    with engine.connect() as connection:
        for statement, parameters in read:
            [[plan]] = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalars()
            found = nodes(plan["Plan"])
            assert not [node for node in found if node["Node Type"] == "Seq Scan"], plan
            looked_at = sum(
                (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * node.get("Actual Loops", 1)
                for node in found
                if "Index Name" in node
            )
            assert looked_at <= 1_000, (
                statement,
                plan,
            )  # 40 certificates of each connector of a page, and their newest


def test_connectors_that_are_not_heard_of_are_counted_by_department(stores: Stores) -> None:
    """Of nine: one that said that it ended, three whose certificates have ended, one revoked, one never heard of."""
    ages = dict(zip(KEYS, (0, 200, 200, 200, 10, 200, 200, 200, None), strict=True))
    now = AT + timedelta(hours=1)
    with stores.db.begin() as work:
        for key, age in ages.items():
            if age is not None:
                report = a_report(ended=key == KEYS[2])
                stores.connectors.put_report(work, key, now - timedelta(seconds=age), report)
        department, name = KEYS[5]
        stores.identities.revoke_certificates(
            work, department=department, connector=name, at=now, by="one", because="gone"
        )
    with stores.db.read() as reader:
        found = stores.connectors.unheard(reader, since=now - timedelta(seconds=180), now=now)
    assert found == {"d-1": 2}, "d-0: certificates have ended; d-2: ended, revoked, never heard of"
    with stores.db.read() as reader:
        assert stores.connectors.unheard(reader, since=now - timedelta(seconds=300), now=now) == {}
