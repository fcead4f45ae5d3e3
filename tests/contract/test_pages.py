"""Lists by page, over the stores in memory and in PostgreSQL; and the plans of their queries."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.demo.people import credit_codes
from exchange.erasure import tables as erasure_tables
from exchange.erasure.erasures import Erasure, ErasureState, MemoryErasures
from exchange.erasure.postgres_erasures import PostgresErasures
from exchange.identity.postgres import PostgresIdentityStore, metadata
from exchange.identity.postgres_proposals import PostgresProposals
from exchange.identity.proposals import MemoryProposals, Proposal, ProposalKind
from exchange.identity.store import Account, Certificate, MemoryIdentityStore
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from registry.directory.memory import MemoryCatalogue, MemoryDepartments
from registry.directory.model import CatalogueEntry, Department, GovernmentLevel, ShareType
from registry.postgres import tables
from registry.postgres.directory import PostgresCatalogue, PostgresDepartments
from schemas.access import Level, Role
from schemas.names import Topic
from tests.kit.row_tags import row_tags

AT = datetime(2026, 5, 4, tzinfo=UTC)
COUNT = 25


class Stores:
    """One store of each kind."""

    def __init__(self, engine: sa.Engine | None) -> None:
        self.db: Database = MemoryDatabase() if engine is None else PostgresDatabase(engine)
        memory = engine is None
        self.departments = MemoryDepartments() if memory else PostgresDepartments(row_tags())
        self.catalogue = MemoryCatalogue() if memory else PostgresCatalogue(row_tags())
        self.identities = MemoryIdentityStore() if memory else PostgresIdentityStore(row_tags())
        self.proposals = MemoryProposals() if memory else PostgresProposals(row_tags())
        self.erasures = MemoryErasures() if memory else PostgresErasures(row_tags())

    def fill(self) -> None:
        codes = credit_codes()
        with self.db.begin() as work:
            for number in range(COUNT):
                name = f"{number:05}"
                self.departments.save(
                    work,
                    Department(
                        id=f"d-{name}",
                        uscc=next(codes),
                        name="n",
                        short_name=f"n{-number % 10}",
                        level=GovernmentLevel.CITY,
                        division_code="330100",
                    ),
                    AT,
                )
                self.catalogue.save(
                    work,
                    CatalogueEntry(
                        topic=Topic.parse(f"t{name[:4]}.v{number % 10 + 1}"),
                        title="t",
                        provider="d",
                        code=f"101001/{number:06}",
                        share_type=ShareType.UNCONDITIONAL,
                        level=Level.G2,
                    ),
                    AT,
                )
                self.identities.add_account(
                    work,
                    Account(
                        name=f"a-{name}",
                        role=Role.AUDITOR,
                        department=f"d-{number % 2}",
                        digest=number.to_bytes(32, "big"),
                        created_by="o",
                        created_at=AT,
                        person=name,
                        expires_at=AT,
                    ),
                )
                self.identities.add_certificate(
                    work,
                    Certificate(
                        serial=f"{-number % 100:02}",
                        department=f"d-{number % 3}",
                        connector=f"c-{number % 4}",
                        not_before=AT,
                        not_after=AT,
                    ),
                )
                self.proposals.add(
                    work,
                    Proposal(
                        id=f"p-{name}",
                        kind=ProposalKind.INVITATION,
                        department=f"d-{number % 2}",
                        subject="",
                        proposed_by="o",
                        proposed_at=AT,
                        expires_at=AT + timedelta(days=7),
                    ),
                )
                self.erasures.add(
                    work,
                    Erasure(
                        id=f"e-{name}",
                        topic=Topic.parse("permits.v1"),
                        key=number.to_bytes(16, "big"),
                        partition=0,
                        reason="r",
                        state=ErasureState.PROPOSED,
                        proposed_by="one",
                        proposed_at=AT,
                    ),
                )


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def stores(request: pytest.FixtureRequest) -> Stores:
    engine: sa.Engine | None = None
    if request.param == "postgres":
        engine = request.getfixturevalue("engine")
        for each in (metadata, tables.metadata, erasure_tables.metadata):
            each.create_all(engine)
    made = Stores(engine)
    made.fill()
    return made


def pages(stores: Stores, read: Callable[[Any, Any, int], Any], key: Callable[[Any], Any], first: Any) -> list[Any]:
    """Return the cursors of all items, read four at a time."""
    found: list[Any] = []
    after = first
    while True:
        with stores.db.read() as reader:
            page = read(reader, after, 4)
        found += map(key, page)
        if len(page) < 4:
            return found
        after = key(page[-1])


def test_each_list_is_read_page_by_page_in_its_order_and_whole(stores: Stores) -> None:
    s = stores
    every = {
        "departments": pages(s, lambda r, a, n: s.departments.page(r, after=a, limit=n), lambda one: one.id, ""),
        "catalogue": pages(s, lambda r, a, n: s.catalogue.page(r, after=a, limit=n), lambda one: one.topic, None),
        "accounts": pages(
            s,
            lambda r, a, n: s.identities.accounts_page(r, department=None, after=a, limit=n),
            lambda one: one.name,
            "",
        ),
        "certificates": pages(
            s,
            lambda r, a, n: s.identities.certificates_page(r, department=None, after=a, limit=n),
            lambda one: (one.department, one.connector, one.serial),
            ("", "", ""),
        ),
        "erasures": pages(s, lambda r, a, n: s.erasures.page(r, after=a, limit=n), lambda one: one.id, ""),
    }
    for name, found in every.items():
        assert len(found) == COUNT, name
        assert found == sorted(found), name
    newest = pages(s, lambda r, a, n: s.proposals.find(r, before=a, limit=n), lambda one: one.id, "")
    assert newest == [f"p-{number:05}" for number in reversed(range(COUNT))]


def test_a_department_s_list_has_no_others(stores: Stores) -> None:
    with stores.db.read() as reader:
        accounts = stores.identities.accounts_page(reader, department="d-1", after="a-00003", limit=3)
        assert [one.name for one in accounts] == ["a-00005", "a-00007", "a-00009"]
        found = stores.identities.certificates_page(reader, department="d-2", after=("d-2", "c-1", ""), limit=100)
        assert {one.department for one in found} == {"d-2"}
        assert {one.connector for one in found} == {"c-1", "c-2", "c-3"}
        proposals = stores.proposals.find(reader, department="d-0", before="p-00010", limit=2)
        assert [one.id for one in proposals] == ["p-00008", "p-00006"]


@pytest.mark.postgres
def test_a_row_that_the_pool_did_not_write_does_not_end_a_list(engine: sa.Engine) -> None:
    for each in (metadata, tables.metadata, erasure_tables.metadata):
        each.create_all(engine)
    made = Stores(engine)
    made.fill()
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE identity_account SET created_by = 'x' WHERE name < 'a-00006'"))
    with made.db.read() as reader:
        page = made.identities.accounts_page(reader, department=None, after="a-00003", limit=4)
    assert [one.document() for one in page[:2]] == [
        {"name": name, "status": "damaged"} for name in ("a-00004", "a-00005")
    ]
    assert [one.name for one in page[2:]] == ["a-00006", "a-00007"]


@pytest.mark.postgres
def test_each_page_is_read_from_an_index_in_its_order(engine: sa.Engine) -> None:
    """On a small table the planner may choose anything: without sequential scans, an index has to serve the order."""
    for each in (metadata, tables.metadata, erasure_tables.metadata):
        each.create_all(engine)
    made = Stores(engine)
    ran: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: Any) -> None:
        if "LIMIT" in statement:
            ran.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    with made.db.read() as reader:
        made.departments.page(reader, after="x", limit=10)
        made.catalogue.page(reader, after=Topic.parse("permits.v1"), limit=10)
        made.identities.accounts_page(reader, department=None, after="x", limit=10)
        made.identities.certificates_page(reader, department=None, after=("x", "y", "z"), limit=10)
        made.identities.certificates_page(reader, department="x", after=("x", "y", "z"), limit=10)
        made.proposals.find(reader, before="x", limit=10)
        made.erasures.page(reader, after="x", limit=10)
    sa.event.remove(engine, "before_cursor_execute", note)
    assert len(ran) == 7
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        for statement, parameters in ran:
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
            assert "Index Cond" in plan, plan
            assert "Seq Scan" not in plan, plan
            assert "Sort Key" not in plan or "Incremental Sort" in plan, plan
