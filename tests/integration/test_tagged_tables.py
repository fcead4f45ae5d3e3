"""Every table of the database says how its rows are protected, and the first tags are given once."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange import migrations
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.store import Account
from exchange.server.first_tags import FirstTags, mark_all, tag_existing_rows
from registry.database.row_tags import Tagged, classification
from registry.database.unit_of_work import PostgresDatabase, take_row_changes
from schemas.access import Role
from schemas.errors import CorruptError, Reason
from tests.kit.row_tags import entry_tags, row_tags

pytestmark = pytest.mark.postgres

_BESIDE = {"alembic_version": "the revision; `check` compares it at each start, and the first tags do not rely on it"}


@pytest.fixture
def migrated(engine: sa.Engine) -> sa.Engine:
    migrations.upgrade(engine)
    return engine


def test_each_table_of_a_migrated_database_is_tagged_proven_or_derived(migrated: sa.Engine) -> None:
    tables = {table.name: table for metadata in migrations.METADATA for table in metadata.sorted_tables}
    for name in sa.inspect(migrated).get_table_names():
        if name in _BESIDE:
            continue
        assert name in tables, f"{name} is in no metadata; see registry.database.row_tags"
        kind = classification(tables[name])
        assert kind is not None, f"{name} is not classified; see registry.database.row_tags"
        columns = {column["name"] for column in sa.inspect(migrated).get_columns(name)}
        assert isinstance(kind, Tagged) == ({"tag", "row_version"} <= columns), name


def plant(engine: sa.Engine, name: str, role: str = "auditor", by: str = "bootstrap") -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO identity_account"
                " (name, role, department, digest, created_by, created_at, person, expires_at)"
                " VALUES (:name, :role, '', :digest, :by, now(), '', now())"
            ),
            {"name": name, "role": role, "digest": name.encode().ljust(32), "by": by},
        )


def record(engine: sa.Engine, name: str, role: str = "auditor") -> None:
    """Store an entry as an earlier version did, without a tag."""
    leaf = {"action": "identity:user:add", "resource": name, "data": {"role": role, "department": ""}}
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO audit_entry (id, leaf, leaf_hash, at, action, decision, actor_department, resource,"
                " grant_id, purpose, case_number) VALUES (gen_random_uuid(), :leaf, sha256('x'), 1, :action, 'allow',"
                " '', :name, '', '', '')"
            ),
            {"leaf": json.dumps(leaf).encode(), "action": leaf["action"], "name": name},
        )


def first_tags(engine: sa.Engine, folder: Path) -> FirstTags:
    tags = entry_tags("operator")
    return tag_existing_rows(PostgresDatabase(engine), row_tags(), tags, folder, take_row_changes)


def read(engine: sa.Engine, name: str) -> Account | None:
    with PostgresDatabase(engine).read() as reader:
        return PostgresIdentityStore(row_tags()).account(reader, name)


def test_rows_from_before_get_their_first_tags_if_the_log_accounts_for_them(
    migrated: sa.Engine, tmp_path: Path
) -> None:
    plant(migrated, "bootstrap", "bootstrap", "init")
    plant(migrated, "honest")
    record(migrated, "honest")
    plant(migrated, "planted")
    plant(migrated, "raised", "data_authority")
    record(migrated, "raised", "auditor")
    done = first_tags(migrated, tmp_path)
    assert done.unaccounted == [("identity_account", '["planted"]'), ("identity_account", '["raised"]')]
    assert any("planted" in line for line in done.lines())
    assert read(migrated, "honest") is not None
    assert read(migrated, "bootstrap") is not None
    with pytest.raises(CorruptError) as caught:
        read(migrated, "planted")
    assert caught.value.reason is Reason.ROW_FORGED


def test_the_first_tags_are_not_given_again_to_who_sets_the_revision_back(migrated: sa.Engine, tmp_path: Path) -> None:
    first_tags(migrated, tmp_path)
    plant(migrated, "bootstrap", "bootstrap", "init")
    plant(migrated, "later")
    record(migrated, "later")
    assert first_tags(migrated, tmp_path).tagged == {}
    for name in ("later", "bootstrap"):
        with pytest.raises(CorruptError):
            read(migrated, name)


def test_no_row_of_a_new_pool_gets_a_tag_later(migrated: sa.Engine, tmp_path: Path) -> None:
    mark_all(tmp_path)
    plant(migrated, "later")
    record(migrated, "later")
    assert first_tags(migrated, tmp_path).tagged == {}


def test_a_row_put_over_another_one_is_refused_whatever_its_tag(migrated: sa.Engine) -> None:
    store, database = PostgresIdentityStore(row_tags()), PostgresDatabase(migrated)
    for name in ("one", "two"):
        with database.begin() as work:
            account = Account(
                name=name,
                role=Role.AUDITOR,
                department="",
                digest=name.encode().ljust(32),
                created_by="o",
                created_at=datetime.now(UTC),
                person=name,
                expires_at=datetime.now(UTC),
            )
            store.add_account(work, account)
    with migrated.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE identity_account SET tag = (SELECT tag FROM identity_account WHERE name = 'one'),"
                " row_version = (SELECT row_version FROM identity_account WHERE name = 'one') WHERE name = 'two'"
            )
        )
    with pytest.raises(CorruptError):
        read(migrated, "two")
    with database.read() as reader:
        assert [one.name for one in store.accounts(reader)] == ["one"]
