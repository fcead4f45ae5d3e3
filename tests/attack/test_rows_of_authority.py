"""Rows of every table that carries authority or a decision, attacked by the owner of the database with SQL.

Each row that the pool wrote is changed, deleted, copied under another key and put back as it was before: verification
names every one of them by table and key, and the running pool refuses what it reads of them. A table that is new is in
none of these lists, and the first test says so.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa

from exchange import migrations
from exchange.client import enrol
from exchange.identity.secrets import FileSecrets
from exchange.identity.tokens import fingerprint_of, new_token
from exchange.server.row_tags import open_row_tags, tagged_tables
from exchange.server.row_watch import RowWatch
from registry.database.row_tags import Derived, Proven, classification, key_text
from schemas import library
from schemas.errors import PoolError, Reason
from tests.e2e.test_corrections import CORRECT, Doubt, Town
from tests.kit.cases.catalogue import metadata
from tests.kit.patience import wait_for
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(300)]

_TESTS = Path(__file__).parents[1]

PROVEN: Final = {
    "access_grant": "attack/test_database_owner.py::test_a_grant_whose_row_is_hidden_from_lists_is_named",
    "access_grant_version": "attack/test_database_owner.py::test_a_grant_whose_row_is_hidden_from_lists_is_named",
    "audit_checkpoint": "contract/test_audit_sequencer.py::test_a_store_that_was_set_back_is_not_signed",
    "audit_entry": "attack/test_database_owner.py::test_an_inserted_entry_is_not_signed_and_the_others_are",
    "audit_process": "attack/test_database_owner.py::test_a_process_that_registers_itself_is_unknown",
    "audit_receipt": "contract/test_audit_store.py",
    "erasure_retraction": "attack/test_retraction.py",
    "erasure_retraction_version": "attack/test_retraction.py",
    **dict.fromkeys(
        ("hub_claim", "hub_golden", "hub_key"),
        "attack/test_hub_rows.py::test_a_row_that_was_changed_by_sql_is_an_error",
    ),
    **dict.fromkeys(
        ("hub_batch", "hub_position"), "contract/test_hub_store.py::test_a_row_that_the_hub_did_not_write_is_refused"
    ),
    "hub_item": "unit/exchange/hub/test_hub_sealing.py::"
    "test_a_golden_record_or_item_of_which_any_column_was_changed_does_not_open",
    "violation_log_position": "contract/test_violation_store.py::test_an_invented_position_in_the_log_counts_as_none",
}
"""Tables whose rows prove themselves in another way → the test that attacks them."""
NO_ROW: Final = {
    "hub_mark": "of a hub; tests/contract/test_hub_store.py",
    "hub_resource": "of a hub; tests/contract/test_hub_store.py",
    "hub_rules": "of a hub; tests/contract/test_hub_rules_store.py",
    "registry_approval": "asked for through the registry; tests/contract/test_registry_approvals.py",
}
"""Tables of which this pool has no row."""
NEVER_CHANGED: Final = {
    "access_purpose": "seeded by `pool init`",
    "identity_signing_key": "a later key is a row of its own; the earlier one gets its end at a renewal",
    "registry_catalogue_record_version": "versions are only added",
    "registry_catalogue_version": "versions are only added",
    "registry_department": "by a merger; tests/integration/test_succession.py",
    "registry_department_version": "versions are only added",
    "registry_element_source": "a source is added and removed",
    "registry_schema": "a text is only added",
    "registry_subject": "by its configuration alone",
    "registry_version": "a deletion alone changes one",
}
"""Tables of which no row is changed here: an old one cannot be put back, or is attacked elsewhere."""

Row = dict[str, Any]


class Pool:
    """A running pool with a row of every table, some of them changed since, and its database's owner."""

    def __init__(self, world: World) -> None:
        self.world, self.town = world, Town(world)
        self.engine = self.town.engine
        self.old: dict[str, dict[str, Row]] = {table.name: {} for table in tagged_tables()}
        self.second = world.people.second(world)
        self.secrets = FileSecrets.open(world.data / "secrets")
        self._duty_and_rules()
        self._catalogue()
        self._accounts()
        self._request_and_case()
        self._correction()
        self._predicate()

    def _duty_and_rules(self) -> None:
        root, duty = self.world.root, {"department": self.town.stranger.id, "code": "PS-1"}
        terms = {"legal_basis": "水法 第八条", "purposes": ["eligibility"]}
        root.post("/duties", {**duty, "name": "节水", **terms})
        days = "".join(f"2040-{day},false,n\n" for day in ("01-01", "05-01", "05-02", "10-01", "10-02", "10-03"))
        self.change = root.post("/calendar/2040", {"content": f"date,is_workday,notice\n{days}"})["id"]
        self.remember()
        root.post("/duties", {**duty, "name": "节约用水", **terms})
        self.second.post(f"/rule-changes/{self.change}/confirmation", {"kind": "calendar"})

    def _catalogue(self) -> None:
        root, office = self.world.root, self.town.stranger
        element = {"code": "DE00001", "zh": "公民身份号码", "en": "Identity number", "type": "text", "length": 18}
        root.post("/elements", {**element, "level": "G4", "personal": "D", "mask": "keep_3_4"})
        editor, head = map(office.account, ("catalogue_editor", "sharing_office_head"))
        item = {"name": "公民身份号码", "type": "text", "element": "DE00001", "source": True}
        editor.post("/catalogue/ids.v1/metadata", {**metadata().to_document(), "items": [item]})
        editor.post("/catalogue/ids.v1/schemas", {"text": library.text("population")})
        self.remember()
        editor.post("/catalogue/ids.v1/submission")
        head.post("/catalogue/ids.v1/approval")
        self.remember()
        root.post("/catalogue/ids.v1/publication")
        root.post("/elements/DE00001/lead", {"department": office.id, "reason": "职责"})

    def _accounts(self) -> None:
        world, office = self.world, self.town.stranger
        token = world.people.invite(world, office.id, "leaver")
        world.account("leaver", "auditor")
        proposed = {"name": "later", "role": "auditor", "department": "", "staff_number": "L-1"}
        proposal = world.root.post("/users", {**proposed, "token_fingerprint": fingerprint_of(new_token())})
        erasure = self.town.head.post(
            "/erasures", {"topic": str(self.town.topic), "key": ["none"], "reason": "依法删除"}
        )
        self.remember()
        enrol(token, "leaver", world.folder / "identities" / "leaver")
        self.remember()
        world.root.post("/users/leaver/revocation", {"reason": "left"})
        revoked = {"department": office.id, "connector": "leaver", "reason": "left"}
        world.root.post("/connectors/revocations", revoked)
        self.second.post(f"/proposals/{proposal['id']}/refusal", {"reason": "not needed"})
        world.root.post(f"/erasures/{erasure['id']}/rejection", {"reason": "no duty to erase"})

    def _request_and_case(self) -> None:
        self.request = self.town.raiser.office.request(str(self.town.topic), ["permit_no"])
        case = {"code": "C3", "reason": "信访举报", "grant": self.town.raiser.grant}
        self.case = self.second.post("/violations", case)["id"]
        self.remember()
        self.town.head.post(f"/requests/{self.request}/need_more", {"missing": ["依据的条款"]})
        self.world.root.post(f"/violations/{self.case}/confirm", {"reason": "属实"})

    def _correction(self) -> None:
        town, doubt = self.town, Doubt(self.town)
        self.ticket = doubt.open()
        self.remember()
        town.head.post(f"/corrections/{self.ticket}/acceptance")
        town.publish(doubt.permit, "西城", CORRECT)
        town.head.post(f"/corrections/{self.ticket}/correction", {})
        told = {"ticket": self.ticket}
        wait_for(lambda: town.other.head.list("/correction-notices", told), "who received it is told")
        self.notice = town.other.head.list("/correction-notices", told)[0]["id"]
        self.remember()
        town.other.head.post(f"/correction-notices/{self.notice}/acknowledgement")

    def _predicate(self) -> None:
        alive = {"op": "eq", "field": "death_flag", "value": False}
        body = {"name": "alive", "library": "population", "expression": alive, "answers": "健在"}
        proposed = self.world.root.post("/hub/predicates", body)["id"]
        self.remember()
        self.second.post(f"/hub/predicates/{proposed}/confirmation")

    def rows(self, table: sa.Table) -> dict[str, Row]:
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(table).order_by(table.c.row_version)).mappings()
            return {key_text(table, row): row for row in map(dict[str, Any], found)}

    def remember(self) -> None:
        """Keep each row as it was when it was first seen."""
        for table in tagged_tables():
            for key, row in self.rows(table).items():
                self.old[table.name].setdefault(key, row)

    @contextmanager
    def attack(self, act: Callable[[sa.Connection], None], undo: Callable[[sa.Connection], None]) -> Iterator[None]:
        """Do something to the tables for the length of a block, past their foreign keys."""
        for statement in (act, undo):
            with self.engine.begin() as connection:
                connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
                statement(connection)
            if statement is act:
                try:
                    yield
                except BaseException:
                    with self.engine.begin() as connection:
                        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
                        undo(connection)
                    raise

    def findings(self) -> list[str]:
        """Return what a verification of files and database finds."""
        data = self.world.data
        done = self.world.programs.run(
            "pool", "audit", "verify", "--files", str(data / "log"), "--key", str(data / "log.pub"),
            "--database", str(data / "database-url"), "--secrets", str(data / "secrets"), check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return [line for line in done.stdout.splitlines()[:-1] if "to be signed" not in line]

    def named(self, kind: str, rows: Mapping[str, str]) -> None:
        """Check that a verification finds this of each row, by table and key, and nothing else of the kind."""
        found = [line for line in self.findings() if line.startswith(kind)]
        missed = [table for table, key in rows.items() if not any(f"{key} of {table}" in line for line in found)]
        assert not missed, found
        assert len(found) == len(rows), found


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with World.start() as world:
        pool = Pool(world)
        yield pool
        pool.engine.dispose()


def insert(connection: sa.Connection, table: sa.Table, row: Row) -> None:
    """Insert a row with its key, also where the database numbers the rows itself."""
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    statement = f"INSERT INTO {table.name} ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values})"
    connection.execute(sa.text(statement), row)


def change(connection: sa.Connection, table: sa.Table, row: Row, values: Row) -> None:
    """Change the columns of a row, but its key."""
    free = {name: value for name, value in values.items() if not table.c[name].primary_key}
    assert connection.execute(sa.update(table).where(is_key(table, row)).values(free)).rowcount == 1


def is_key(table: sa.Table, row: Row) -> sa.ColumnElement[bool]:
    return sa.and_(*(column == row[column.name] for column in table.primary_key.columns))


def victims(pool: Pool) -> list[tuple[sa.Table, str, Row]]:
    """Return the newest row of each table."""
    found = []
    for table in tagged_tables():
        if table.name not in NO_ROW:
            rows = pool.rows(table)
            assert rows, f"{table.name} has no row here: make one, so that it is attacked"
            found.append((table, *list(rows.items())[-1]))
    return found


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 100_000
    return bytes(value) + b"\0" if isinstance(value, bytes | memoryview) else f"{value or ''}x"


def test_every_table_is_attacked_here_or_elsewhere_or_carries_no_authority() -> None:
    tables = [table for metadata_ in migrations.METADATA for table in metadata_.sorted_tables]
    kinds = {table.name: classification(table) for table in tables}
    assert all(kinds.values()), "a table says how its rows are protected"
    assert {name for name, kind in kinds.items() if isinstance(kind, Proven)} == PROVEN.keys()
    for where in PROVEN.values():
        file, _, name = where.partition("::")
        assert f"def {name}" in (_TESTS / file).read_text(), where
    assert all(kind.because for kind in kinds.values() if isinstance(kind, Derived))
    tagged = {table.name for table in tagged_tables()}
    assert NO_ROW.keys() | NEVER_CHANGED.keys() <= tagged
    for where in NO_ROW.values():
        assert (_TESTS.parent / where.rsplit("; ", 1)[1]).exists(), where


def test_what_nobody_touched_is_in_order(pool: Pool) -> None:
    assert pool.findings() == []


def test_a_changed_row_of_any_table_is_named(pool: Pool) -> None:
    rows = victims(pool)

    def act(connection: sa.Connection) -> None:
        for table, _, row in rows:
            free = [one for one in table.columns if not one.primary_key and not one.foreign_keys]
            column = next(one for one in free if isinstance(one.type, sa.Text | sa.LargeBinary))
            change(connection, table, row, {column.name: another(row[column.name])})

    def undo(connection: sa.Connection) -> None:
        for table, _, row in rows:
            change(connection, table, row, row)

    with pool.attack(act, undo):
        pool.named("row.forged", {table.name: key for table, key, _ in rows})


def test_a_deleted_row_of_any_table_is_named(pool: Pool) -> None:
    rows = victims(pool)

    def delete(connection: sa.Connection) -> None:
        for table, _, row in rows:
            assert connection.execute(sa.delete(table).where(is_key(table, row))).rowcount == 1

    def undo(connection: sa.Connection) -> None:
        for table, _, row in rows:
            insert(connection, table, row)

    reported: set[tuple[str, str, str]] = set()
    watch = RowWatch(pool.engine, open_row_tags(pool.secrets), lambda *what: reported.add(what))
    watch.step()
    with pool.attack(delete, undo):
        pool.named("row.gone", {table.name: key for table, key, _ in rows})
        watch.step()  # as each process of the running pool does
    # The pool itself deletes versions of subjects.
    assert reported == {("gone", table.name, key) for table, key, _ in rows if table.name != "registry_version"}


def test_an_invented_row_of_any_table_is_named(pool: Pool) -> None:
    copies = []
    for table, _, row in victims(pool):
        unique = {str(index.name): [*index.columns] for index in table.indexes if index.unique}
        unique |= {str(one.name): [*one.columns] for one in table.constraints if isinstance(one, sa.UniqueConstraint)}
        columns = {columns[0].name for columns in unique.values()}
        first = next(iter(table.primary_key.columns))
        copies.append((table, {**row, **{name: another(row[name]) for name in columns | {first.name}}}))

    def invent(connection: sa.Connection) -> None:
        for table, row in copies:
            insert(connection, table, row)

    def undo(connection: sa.Connection) -> None:
        for table, row in copies:
            connection.execute(sa.delete(table).where(is_key(table, row)))

    with pool.attack(invent, undo):
        pool.named("row.forged", {table.name: key_text(table, row) for table, row in copies})


def test_an_old_row_of_any_table_that_is_put_back_is_named(pool: Pool) -> None:
    rows = []
    for table in tagged_tables():
        now = pool.rows(table)
        old = [(key, row) for key, row in pool.old[table.name].items() if row != now.get(key, row)]
        assert bool(old) == (table.name not in NEVER_CHANGED | NO_ROW), table.name
        rows += [(table, key, row, now[key]) for key, row in old[-1:]]

    def put(connection: sa.Connection, *, back: bool) -> None:
        for table, _, old, now in rows:
            change(connection, table, old, old if back else now)

    with pool.attack(lambda one: put(one, back=True), lambda one: put(one, back=False)):
        pool.named("row.old", {table.name: key for table, key, _, _ in rows})


READS: Final[Mapping[str, Callable[[Pool], Any]]] = {
    "correction_notice": lambda pool: pool.town.other.head.get(f"/correction-notices/{pool.notice}"),
    "correction_ticket": lambda pool: pool.town.head.get(f"/corrections/{pool.ticket}"),
    "deadline_rule_change": lambda pool: pool.world.root.get("/calendar"),
    "duty_item": lambda pool: pool.world.root.get(f"/duties/{pool.town.stranger.id}/PS-1"),
    "registry_catalogue_record": lambda pool: pool.world.root.get("/catalogue/records/ids.v1"),
    "registry_data_element": lambda pool: pool.world.root.get("/elements/DE00001"),
    "registry_element_source": lambda pool: pool.world.root.get("/elements/DE00001"),
    "share_request": lambda pool: pool.town.head.get(f"/requests/{pool.request}"),
    "violation_case": lambda pool: pool.world.root.get(f"/violations/{pool.case}"),
}
"""How the pool reads the newest row of a table of the law of sharing."""


@pytest.mark.parametrize("name", READS)
def test_the_running_pool_refuses_a_changed_row(pool: Pool, name: str) -> None:
    read = READS[name]
    whole = read(pool)
    table = next(one for one in tagged_tables() if one.name == name)
    columns = [one.name for one in table.columns if isinstance(one.type, sa.Text) and not one.primary_key]
    rows = [*pool.rows(table).values()]

    def act(connection: sa.Connection) -> None:
        for row in rows:
            change(connection, table, row, {columns[-1]: another(row[columns[-1]])})

    def undo(connection: sa.Connection) -> None:
        for row in rows:
            change(connection, table, row, row)

    with pool.attack(act, undo), pytest.raises(PoolError) as refused:
        read(pool)
    assert refused.value.reason is Reason.ROW_FORGED
    assert read(pool) == whole
