"""Attacks by the owner of the database, with SQL on a running pool: invented or changed rows give no authority."""

import hashlib
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.admin_client import AdminClient
from exchange.client import Identity, enrol
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.secrets import FileSecrets
from exchange.identity.tokens import Users
from exchange.server.row_tags import open_row_tags
from registry.database.unit_of_work import PostgresDatabase
from schemas import library
from schemas.access import Role
from schemas.canonical import canonical
from schemas.errors import PoolError, Reason
from schemas.invitation import Invitation
from schemas.merkle import leaf_hash
from tests.kit.patience import PATIENCE
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

TOPIC = "residents.v1"
TOKEN = "pool_" + "x" * 43


class Pool:
    """A running pool with two departments, and the connection of the one who administers its database."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.police, self.labour = world.department("公安局"), world.department("人社局")
        self.police.offer(TOPIC, library.text("population"), code="101001/000002")
        self.benefits: Identity = self.labour.enrol("benefits")
        self.auditor = world.account("watcher", "auditor")
        self.engine = sa.create_engine((world.data / "database-url").read_text().strip())

    def do(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            done = connection.execute(sa.text(statement), values)
            assert done.rowcount != 0, "the attack did nothing"

    def scalar(self, statement: str, **values: object) -> object:
        with self.engine.connect() as connection:
            return connection.execute(sa.text(statement), values).scalar_one()

    def invent_account(self, name: str, role: str, department: str, token: str) -> AdminClient:
        self.do(
            "INSERT INTO identity_account"
            " (name, role, department, digest, created_by, created_at, person, expires_at)"
            " VALUES (:name, :role, :department, :digest, 'bootstrap', now(), 'P-1', now() + interval '7 days')",
            name=name,
            role=role,
            department=department,
            digest=hashlib.sha256(token.encode()).digest(),
        )
        return self.world.remote(token)

    def put_back(self, table: str, where: str) -> "OldRow":
        """Remember a row as it is, to put it back, whole, after the pool has changed it."""
        with self.engine.connect() as connection:
            row = connection.execute(sa.text(f"SELECT * FROM {table} WHERE {where}")).mappings().one()
        return OldRow(self, table, where, dict(row))

    def findings(self) -> list[str]:
        """Return what a verification of files and database finds."""
        data = self.world.data
        done = self.world.programs.run(
            "pool", "audit", "verify", "--files", str(data / "log"), "--key", str(data / "log.pub"),
            "--database", str(data / "database-url"), "--secrets", str(data / "secrets"), check=False,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        assert lines, done.stderr
        found = [line for line in lines[:-1] if "; the last signature" not in line]
        assert done.returncode == (1 if found else 0), done.stdout
        return found

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://{self.world.addresses['metrics']}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def insert_entry(self, gateway: str, *, tag: bytes | None = None) -> str:
        """Insert an entry that says that the bootstrap account approved something; return its id."""
        entry_id = str(uuid.uuid4())
        leaf = {
            "action": "exchange:grant:approve", "actor": {"id": "bootstrap", "kind": "human", "role": "data_authority",
            "zone": "default"}, "algorithms": {"digest": "sha-256", "pseudonym": "hmac-sha256"},
            "at": time.time_ns() // 1_000, "counter": 1, "decision": "allow", "gateway": gateway, "id": entry_id,
            "pool": "test-pool", "resource": TOPIC, "salt": "00" * 16, "version": 1,
        }  # fmt: skip
        content = canonical(leaf)
        self.do(
            "INSERT INTO audit_entry (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id,"
            f" purpose, case_number{', tag' if tag is not None else ''}) VALUES (:id, :leaf, :hash, :at, :action,"
            f" 'allow', '', :topic, '', '', ''{', :tag' if tag is not None else ''})",
            id=entry_id,
            leaf=content,
            hash=leaf_hash(content),
            at=leaf["at"],
            action=leaf["action"],
            topic=TOPIC,
            tag=tag,
        )
        return entry_id

    def is_signed(self, entry_id: str) -> bool:
        """Wait until an honest entry written after it is under a checkpoint, or it itself is; return whether it is."""
        # Leaves an entry each time: a search by a case is never folded into another one.
        self.auditor.get("/audit/entries", {"limit": "1", "case": "CASE-1"})
        last = self.scalar("SELECT max(seq) FROM audit_entry")
        deadline = time.monotonic() + PATIENCE
        while not self.scalar("SELECT leaf_index IS NOT NULL FROM audit_entry WHERE seq = :seq", seq=last):
            assert time.monotonic() < deadline, "the sequencer does not go on"
            time.sleep(0.05)
        return bool(self.scalar("SELECT leaf_index IS NOT NULL FROM audit_entry WHERE id = :id", id=entry_id))


@dataclass
class OldRow:
    """A row as it was, with the tag that was right then."""

    pool: Pool
    table: str
    where: str
    values: dict[str, Any]

    def restore(self) -> None:
        """Put it over the row that is there now."""
        columns = ", ".join(f"{name} = :{name}" for name in self.values)
        self.pool.do(f"UPDATE {self.table} SET {columns} WHERE {self.where}", **self.values)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with World.start() as world:
        pool = Pool(world)
        yield pool
        pool.engine.dispose()


def refused(act: object) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()  # type: ignore[operator]
    return caught.value.reason


def test_what_nobody_touched_is_in_order(pool: Pool) -> None:
    assert pool.findings() == []


def test_an_inserted_account_may_do_nothing_and_is_reported(pool: Pool) -> None:
    before = pool.metric("pool_rows_refused_total")
    invented = pool.invent_account("planted", "sharing_office_head", pool.police.id, TOKEN + "1")
    assert refused(lambda: invented.get("/departments")) is Reason.ROW_FORGED
    assert pool.metric("pool_rows_refused_total") > before
    assert "row_refused" in (pool.world.folder / "pool.log").read_text()
    assert any("row.forged" in line and "identity_account" in line and "planted" in line for line in pool.findings())
    pool.do("DELETE FROM identity_account WHERE name = 'planted'")


def test_an_account_with_another_role_or_another_ones_token_is_refused(pool: Pool) -> None:
    head = pool.labour.account("sharing_office_head")
    name = f"sharing-office-head-{pool.labour.id[-6:]}"
    assert head.get("/departments")
    pool.do("UPDATE identity_account SET role = 'data_authority', department = '' WHERE name = :name", name=name)
    assert refused(lambda: head.get("/departments")) is Reason.ROW_FORGED
    pool.do(
        "UPDATE identity_account SET role = 'sharing_office_head', department = :department WHERE name = :name",
        name=name,
        department=pool.labour.id,
    )
    assert head.get("/departments"), "the row that the pool wrote is itself again"
    digest = pool.scalar("SELECT digest FROM identity_account WHERE name = 'bootstrap'")
    pool.do(
        "UPDATE identity_account SET digest = :digest WHERE name = 'bootstrap'",
        digest=hashlib.sha256((TOKEN + "2").encode()).digest(),
    )
    assert refused(lambda: pool.world.remote(TOKEN + "2").get("/departments")) is Reason.ROW_FORGED
    pool.do("UPDATE identity_account SET digest = :digest WHERE name = 'bootstrap'", digest=digest)


@pytest.mark.parametrize(
    "damage", ["role = 'clerk'", "person = 'P-9'", "revoked_at = now()", "department = 'nowhere'", "tag = NULL"]
)
def test_an_account_whose_row_is_damaged_for_the_moment_is_revoked_all_the_same(pool: Pool, damage: str) -> None:
    name = f"leaver-{hashlib.sha256(damage.encode()).hexdigest()[:6]}"
    account = pool.world.account(name, "auditor")
    assert account.get("/departments")
    whole = pool.put_back("identity_account", f"name = '{name}'")
    pool.do(f"UPDATE identity_account SET {damage} WHERE name = :name", name=name)
    pool.world.root.post(f"/users/{name}/revocation", {"reason": "left"})
    columns = [column for column in ("role", "person", "department") if column in damage]
    for column in columns:
        pool.do(f"UPDATE identity_account SET {column} = :old WHERE name = :name", old=whole.values[column], name=name)
    assert refused(lambda: account.get("/departments")) in {Reason.CERTIFICATE_REVOKED, Reason.ROW_FORGED}
    assert pool.scalar("SELECT revoked_at IS NOT NULL FROM identity_account WHERE name = :name", name=name)
    pool.do("DELETE FROM identity_account WHERE name = :name", name=name)


def test_an_inserted_invitation_enrols_nobody(pool: Pool) -> None:
    token = pool.world.people.invite(pool.world, pool.labour.id, "honest")
    honest = Invitation.decode(token)
    secret = "an-invented-secret-of-the-database-s-owner"
    pool.do(
        "INSERT INTO identity_invitation (digest, department, connector, invited_by, created_at, expires_at)"
        " VALUES (:digest, :department, NULL, 'bootstrap', now(), now() + interval '7 days')",
        digest=hashlib.sha256(secret.encode()).digest(),
        department=pool.police.id,
    )
    invented = Invitation(address=honest.address, authority=honest.authority, secret=secret).encode()
    folder = pool.world.folder / "identities" / "invented"
    assert refused(lambda: enrol(invented, "planted", folder)) is Reason.ROW_FORGED


def test_an_invitation_moved_to_another_department_enrols_nobody(pool: Pool) -> None:
    token = pool.world.people.invite(pool.world, pool.labour.id, "moved")
    pool.do("UPDATE identity_invitation SET department = :police WHERE connector = 'moved'", police=pool.police.id)
    assert refused(lambda: enrol(token, "moved", pool.world.folder / "identities" / "moved")) is Reason.ROW_FORGED


def test_a_certificate_revived_or_moved_by_hand_may_do_nothing(pool: Pool) -> None:
    identity = pool.labour.enrol("stolen")
    with pool.world.client(identity) as client:
        assert client.schema(TOPIC)
    body = {"department": pool.labour.id, "connector": "stolen", "reason": "stolen"}
    pool.world.root.post("/connectors/revocations", body)
    with pool.world.client(identity) as client:
        assert refused(lambda: client.schema(TOPIC)) is Reason.CERTIFICATE_REVOKED
    pool.do("UPDATE identity_certificate SET revoked_at = NULL WHERE connector = 'stolen'")
    with pool.world.client(identity) as client:
        assert refused(lambda: client.schema(TOPIC)) is Reason.ROW_FORGED
    assert any("row.forged" in line and "identity_certificate" in line for line in pool.findings())


def test_a_changed_department_is_refused(pool: Pool) -> None:
    body = pool.scalar("SELECT body FROM registry_department WHERE id = :id", id=pool.labour.id)
    assert isinstance(body, str)
    pool.do(
        "UPDATE registry_department SET body = replace(body, '\"active\"', '\"abolished\"') WHERE id = :id",
        id=pool.labour.id,
    )
    assert refused(lambda: pool.labour.account("security_officer").get("/departments")) is Reason.ROW_FORGED
    pool.do("UPDATE registry_department SET body = :body WHERE id = :id", id=pool.labour.id, body=body)


def test_a_catalogue_entry_given_to_another_provider_is_refused(pool: Pool) -> None:
    pool.do(
        "UPDATE registry_catalogue SET body = replace(body, :police, :labour), provider = :labour",
        police=pool.police.id,
        labour=pool.labour.id,
    )
    head = pool.labour.account("sharing_office_head")
    assert refused(lambda: pool.labour.request(TOPIC, ["full_name"])) is Reason.ROW_FORGED
    assert head.get("/catalogue") == [{"topic": TOPIC, "status": "damaged"}], "a list says nothing else of it"
    pool.do(
        "UPDATE registry_catalogue SET body = replace(body, :labour, :police), provider = :police",
        police=pool.police.id,
        labour=pool.labour.id,
    )
    assert pool.labour.request(TOPIC, ["full_name"])
    assert not any("registry_catalogue" in line for line in pool.findings()), "whole again"


def test_a_changed_calendar_computes_no_deadline_and_hides_no_request(pool: Pool) -> None:
    days = "".join(f"2040-{day},false,n\n" for day in ("01-01", "05-01", "05-02", "10-01", "10-02", "10-03"))
    change = pool.world.root.post("/calendar/2040", {"content": f"date,is_workday,notice\n{days}"})["id"]
    confirmation = {"kind": "calendar"}
    pool.world.people.second(pool.world).post(f"/rule-changes/{change}/confirmation", confirmation)
    request = pool.labour.request(TOPIC, ["sex_code"])
    query = {"start": "2040-01-01T09:00:00+08:00"}
    computed = pool.auditor.get("/deadlines/delivery", query)
    assert not computed["provisional"]
    old = pool.put_back("deadline_rule_change", f"id = '{change}'")
    pool.do("UPDATE deadline_rule_change SET content = content || '2040-10-04,false,n\n' WHERE id = :id", id=change)
    for path in ("/deadlines/delivery", "/rules", "/calendar", f"/rule-changes/{change}"):
        assert refused(lambda path=path: pool.auditor.get(path)) is Reason.ROW_FORGED
    shown = pool.auditor.get(f"/grants/{request}")
    assert (shown["submitted_at"] is None, shown["due_at"]) == (False, None)
    assert request in {one["id"] for one in pool.auditor.list("/grants")}
    old.restore()
    assert pool.auditor.get("/deadlines/delivery", query) == computed


def test_rows_that_were_deleted_or_put_back_are_named(pool: Pool) -> None:
    office = pool.world.department("民政局")
    office.enrol("former")
    name = office.account("security_officer")
    assert name.get("/departments")
    old = pool.put_back("identity_certificate", "connector = 'former'")
    body = {"department": office.id, "connector": "former", "reason": "stolen"}
    pool.world.root.post("/connectors/revocations", body)
    old.restore()
    pool.do("DELETE FROM identity_account WHERE department = :id", id=office.id)
    found = pool.findings()
    assert any(line.startswith("row.old") and old.values["serial"] in line for line in found), found
    assert any(line.startswith("row.gone") and "identity_account" in line for line in found), found


def test_a_certificate_that_was_seen_as_revoked_is_not_revived_by_its_old_row(pool: Pool) -> None:
    identity = pool.labour.enrol("revived")
    old = pool.put_back("identity_certificate", "connector = 'revived'")
    body = {"department": pool.labour.id, "connector": "revived", "reason": "stolen"}
    pool.world.root.post("/connectors/revocations", body)
    with pool.world.client(identity) as client:
        assert refused(lambda: client.schema(TOPIC)) is Reason.CERTIFICATE_REVOKED
    old.restore()
    with pool.world.client(identity) as client:
        assert refused(lambda: client.schema(TOPIC)) is Reason.ROW_FORGED


def test_a_row_that_a_holder_of_the_keys_wrote_without_an_entry_is_named(pool: Pool) -> None:
    tags = open_row_tags(FileSecrets.open(pool.world.data / "secrets"))
    with PostgresDatabase(pool.engine).begin() as work:
        Users(PostgresIdentityStore(tags)).add(
            work,
            name="silent",
            role=Role.AUDITOR,
            department="",
            person="P-9",
            digest=bytes(32),
            by="nobody",
            at=datetime.now(UTC),
        )
    assert any(line.startswith("row.unaccounted") and "silent" in line for line in pool.findings())
    pool.do("DELETE FROM identity_account WHERE name = 'silent'")


def test_an_inserted_entry_is_not_signed_and_the_others_are(pool: Pool) -> None:
    unknown = pool.insert_entry("gw9@019a#1")
    assert not pool.is_signed(unknown)
    process = pool.scalar("SELECT process FROM audit_process WHERE role = 'gateway' LIMIT 1")
    untagged = pool.insert_entry(f"{process}#9")
    tag = pool.scalar("SELECT tag FROM audit_entry WHERE tag IS NOT NULL LIMIT 1")
    assert isinstance(tag, memoryview)
    borrowed = pool.insert_entry(f"{process}#9", tag=bytes(tag))
    assert not pool.is_signed(untagged)
    assert not pool.is_signed(borrowed)
    found = pool.findings()
    for entry_id in (unknown, untagged, borrowed):
        assert any(line.startswith("entry.refused") and entry_id in line for line in found), found
    assert pool.metric("pool_entries_refused_total") >= 3
    assert "entry_refused" in (pool.world.folder / "pool.log").read_text()
    listed = pool.auditor.get("/audit/entries", {"resource": TOPIC, "action": "exchange:grant:approve"})
    assert not {one["entry"]["id"] for one in listed} & {unknown, untagged, borrowed}


def test_a_process_that_registers_itself_is_unknown(pool: Pool) -> None:
    pool.do("INSERT INTO audit_process (process, role, tag) VALUES ('gw8@019a', 'gateway', sha256('x'))")
    entry_id = pool.insert_entry("gw8@019a#1", tag=bytes(32))
    assert not pool.is_signed(entry_id)


def test_an_entry_kept_out_of_the_log_by_hand_is_named(pool: Pool) -> None:
    with pool.engine.begin() as connection:
        connection.execute(sa.text(
            "CREATE FUNCTION withhold() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN NEW.refused := NEW.action = ''identity:user:add''; RETURN NEW; END'"
        ))  # fmt: skip
        connection.execute(sa.text(
            "CREATE TRIGGER withhold BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION withhold()"
        ))  # fmt: skip
    pool.world.account("quiet", "auditor")
    with pool.engine.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER withhold ON audit_entry"))
        connection.execute(sa.text("DROP FUNCTION withhold"))
    assert any(line.startswith("entry.withheld") for line in pool.findings())


def test_a_grant_whose_row_is_hidden_from_lists_is_named(pool: Pool) -> None:
    """What a department holds is looked up by columns that no MAC covers; without them the union is too small."""
    grant = pool.labour.request(TOPIC, ["full_name"])
    pool.police.approve(grant)
    assert not any("grant" in line for line in pool.findings())
    pool.do("UPDATE access_grant SET consumer = 'nobody', state = 'expired' WHERE id = :id", id=grant)
    assert any(line.startswith("grant.column") and "consumer, state" in line for line in pool.findings())
    pool.do("UPDATE access_grant SET consumer = :id, state = 'active' WHERE consumer = 'nobody'", id=pool.labour.id)
    pool.do("DELETE FROM access_grant_version WHERE grant_id = :id AND version = 1", id=grant)
    assert any(line.startswith("grant.gone") and grant in line for line in pool.findings())


OBJECTS = [
    (
        "a revocation that a trigger undoes as it is written",
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER keep BEFORE UPDATE ON identity_certificate FOR EACH ROW EXECUTE FUNCTION keep()""",
        "DROP TRIGGER keep ON identity_certificate; DROP FUNCTION keep",
        ["identity_certificate has the trigger keep", "the function keep()"],
    ),
    (
        "a view that shows the pool other rows than the verification",
        "ALTER TABLE identity_account_use RENAME TO hidden; CREATE VIEW identity_account_use AS SELECT * FROM hidden",
        "DROP VIEW identity_account_use; ALTER TABLE hidden RENAME TO identity_account_use",
        ["identity_account_use is a view"],
    ),
    (
        "a rule that discards a change",
        "CREATE RULE discard AS ON DELETE TO registry_subject DO INSTEAD NOTHING",
        "DROP RULE discard ON registry_subject",
        ["registry_subject has the rule discard"],
    ),
    (
        "another clock in front of PostgreSQL's own",
        """CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now()';
        ALTER DATABASE {database} SET search_path = public, pg_catalog""",
        "DROP FUNCTION public.clock_timestamp(); ALTER DATABASE {database} RESET search_path",
        ["the function clock_timestamp()", "the search path public, pg_catalog"],
    ),
]


@pytest.mark.parametrize(("make", "remove", "named"), [case[1:] for case in OBJECTS], ids=[case[0] for case in OBJECTS])
def test_what_stands_between_the_pool_and_its_tables_is_named(
    pool: Pool, make: str, remove: str, named: list[str]
) -> None:
    database = pool.engine.url.database
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(make.format(database=database))
    found = [line for line in pool.findings() if line.startswith("database.object")]
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(remove.format(database=database))
    assert len(found) == len(named), found
    assert all(any(what in line for line in found) for what in named), found
    assert not any(line.startswith("database.object") for line in pool.findings())
