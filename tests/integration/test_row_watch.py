"""Rows that are put back or removed are found by a process that has seen them, and against the digest in the log."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from exchange import migrations
from exchange.audit.ledger import AuditLedger
from exchange.audit.postgres import PostgresEntries
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.store import Account
from exchange.server.row_digest import RowDigests, digests_of
from exchange.server.row_watch import RowWatch, read_versions
from registry.database.row_tags import short_tag
from registry.database.unit_of_work import PostgresDatabase, UnitOfWork
from schemas.access import Role
from schemas.canonical import Json, canonical
from schemas.errors import CorruptError
from tests.kit.cases.audit import Entries
from tests.kit.row_tags import entry_tags, row_tags

pytestmark = pytest.mark.postgres


class Pool:
    def __init__(self, engine: sa.Engine) -> None:
        migrations.upgrade(engine)
        self.engine = engine
        self.tags = row_tags()
        self.store = PostgresIdentityStore(self.tags)
        self.database = PostgresDatabase(engine, accountable=True)
        self.ledger = AuditLedger(PostgresEntries(engine, entry_tags("sequencer")), process="sequencer@1")
        self.ledger.open(self.database)
        self.make = Entries()
        self.found: list[tuple[str, str, str]] = []
        self.watch = RowWatch(engine, self.tags, lambda *what: self.found.append(what))
        self.digests = RowDigests(self.database, self.record, entry_tags("sequencer"))
        self.add("one")
        self.add("two")

    def record(self, work: UnitOfWork, action: str, data: Mapping[str, Json]) -> None:
        self.ledger.write(work, [self.make.make(action=action, data=data)])

    def add(self, name: str) -> None:
        with self.database.begin() as work:
            account = Account(
                name=name, role=Role.AUDITOR, department="", digest=name.encode().ljust(32), created_by="o",
                person=name, created_at=datetime.now(UTC), expires_at=datetime.now(UTC),
            )  # fmt: skip
            self.store.add_account(work, account)
            self.record(work, "identity:user:add", {})

    def revoke(self, name: str) -> None:
        with self.database.begin() as work:
            account = self.store.account(work, name)
            assert account is not None
            self.store.change_account(work, replace(account, revoked_at=datetime.now(UTC)))
            self.record(work, "identity:user:revoke", {})

    def read(self, name: str) -> Account | None:
        with self.database.read() as reader:
            return self.store.account(reader, name)

    def row(self, name: str) -> dict[str, object]:
        with self.engine.connect() as connection:
            found = connection.execute(sa.text("SELECT * FROM identity_account WHERE name = :name"), {"name": name})
            return dict(found.mappings().one())

    def put_back(self, row: dict[str, object]) -> None:
        columns = ", ".join(f"{name} = :{name}" for name in row)
        with self.engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE identity_account SET {columns} WHERE name = :name"), row)


@pytest.fixture
def pool(engine: sa.Engine) -> Pool:
    return Pool(engine)


def test_an_old_row_is_refused_by_a_process_that_has_seen_the_newer_one(pool: Pool) -> None:
    old = pool.row("one")
    pool.revoke("one")
    pool.watch.step()
    newer = pool.row("one")
    pool.put_back(old)
    assert pool.read("one") is not None, "its tag was right once"
    pool.watch.step()
    pool.watch.step()
    assert pool.found == [("old", "identity_account", '["one"]')], "reported once"
    with pytest.raises(CorruptError):
        pool.read("one")
    assert pool.read("two") is not None
    pool.put_back(newer)
    pool.watch.step()
    assert pool.read("one") is not None, "the newest row is itself again"


def test_a_row_that_is_gone_is_reported_and_a_forged_version_poisons_nothing(pool: Pool) -> None:
    pool.watch.step()
    with pool.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM identity_account WHERE name = 'two'"))
        connection.execute(sa.text("UPDATE identity_account SET row_version = row_version + 9 WHERE name = 'one'"))
    pool.watch.step()
    assert ("gone", "identity_account", '["two"]') in pool.found
    with pool.engine.begin() as connection:
        connection.execute(sa.text("UPDATE identity_account SET row_version = row_version - 9 WHERE name = 'one'"))
    pool.watch.step()
    assert pool.read("one") is not None


def test_honest_changes_are_no_finding(pool: Pool) -> None:
    pool.watch.step()
    assert pool.digests.write()
    assert not pool.digests.write(), "nothing has changed"
    pool.add("three")
    pool.revoke("one")
    pool.watch.step()
    assert pool.found == []
    assert pool.digests.check() == []
    assert pool.digests.write()
    assert pool.digests.check() == []


def test_what_was_put_back_while_nobody_watched_is_found_against_the_digest(pool: Pool) -> None:
    old = pool.row("one")
    pool.revoke("one")
    pool.digests.write()
    pool.add("three")
    pool.put_back(old)
    assert pool.digests.check() == ["identity_account"]


def test_a_digest_that_the_pool_did_not_write_is_a_finding(pool: Pool) -> None:
    pool.digests.write()
    with pool.engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_entry SET tag = sha256('x') WHERE action = 'storage:rows:digest'"))
    assert pool.digests.check() == ["audit_entry"]


def test_a_digest_names_number_and_digest_of_each_table(pool: Pool) -> None:
    pool.digests.write()
    with pool.engine.connect() as connection:
        leaf = connection.execute(sa.text("SELECT leaf FROM audit_entry WHERE action LIKE '%digest'")).scalar_one()
    tables = json.loads(bytes(leaf))["data"]["tables"]
    assert tables["identity_account"][0] == 2
    assert "registry_catalogue" in tables


def rewrite(pool: Pool, action: str, change: Mapping[str, Json]) -> None:
    """Change the data of the newest entry of an action, as the owner of the database, who has no key."""
    with pool.engine.begin() as connection:
        newest = sa.text("SELECT seq, leaf FROM audit_entry WHERE action = :action ORDER BY seq DESC LIMIT 1")
        row = connection.execute(newest, {"action": action}).one()
        entry = json.loads(bytes(row.leaf))
        leaf = canonical(entry | {"data": {**entry.get("data", {}), **change}})
        connection.execute(
            sa.text("UPDATE audit_entry SET leaf = :leaf WHERE seq = :seq"), {"leaf": leaf, "seq": row.seq}
        )


def test_a_digest_rewritten_under_its_tag_hides_nothing(pool: Pool) -> None:
    old = pool.row("one")
    pool.revoke("one")
    pool.digests.write()
    pool.put_back(old)
    with pool.engine.connect() as connection:
        tables = digests_of(read_versions(connection))
    rewrite(pool, "storage:rows:digest", {"tables": tables})
    assert pool.digests.check() == ["audit_entry"]


def test_an_entry_rewritten_under_its_tag_explains_no_row(pool: Pool) -> None:
    old: Any = pool.row("one")
    pool.revoke("one")
    pool.digests.write()
    pool.add("three")
    revoked: Any = pool.row("one")
    pool.put_back(old)
    noted = [["identity_account", '["one"]', short_tag(revoked["tag"]), short_tag(old["tag"])]]
    with pool.engine.connect() as connection:
        added = json.loads(
            bytes(connection.execute(sa.text("SELECT leaf FROM audit_entry ORDER BY seq DESC")).scalar())
        )
    rewrite(pool, "identity:user:add", {"rows": [*added["data"]["rows"], *noted]})
    assert pool.digests.check() == ["audit_entry"]
