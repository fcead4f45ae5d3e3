"""A database administrator changes sealed rows of the hub by SQL: an error, never another person's answer."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from exchange.hub.fold.identity import Handle
from exchange.hub.store.postgres import PostgresHub
from exchange.hub.store.postgres_rules import PostgresRules
from exchange.hub.store.sealing import Keyring, golden_context, open_claim, unseal
from exchange.hub.store.tables import metadata
from registry.database.unit_of_work import PostgresDatabase
from schemas.errors import CorruptError, Reason
from schemas.record import Operation
from tests.kit.cases.hub_drawing import TOPICS, number
from tests.kit.cases.hub_drawing import Hub as Drawn
from tests.kit.cases.hub_rows import MONTH, ONE, TWO, Vault
from tests.kit.row_tags import row_tags
from tests.kit.twins.hub_pool import MemoryPool

pytestmark = pytest.mark.postgres

_VALUES = {ONE: "张三 11010519491231002X".encode(), TWO: "李四 110105194912310099".encode()}


@dataclass
class Hub:
    engine: sa.Engine
    store: PostgresHub
    db: PostgresDatabase
    vault: Vault

    def look_up(self, handle: Handle) -> bytes | None:
        """Return the golden value of a subject; None where it was erased."""
        with self.db.read() as reader:
            ring = Keyring.unwrapped(self.vault.keys, self.store.keys(reader, [handle]).values())
            row = self.store.golden(reader, [handle])[handle]
        key = ring.of(handle)
        return None if key is None else unseal(key, golden_context(row), row.sealed)

    def history(self, handle: Handle) -> list[bytes] | None:
        """Return the values of a subject's claims; None where it was erased."""
        with self.db.read() as reader:
            ring = Keyring.unwrapped(self.vault.keys, self.store.keys(reader, [handle]).values())
            rows = self.store.claims(reader, [handle])
        key = ring.of(handle)
        return None if key is None else [open_claim(row, key)[1] for row in rows]

    def sql(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            assert connection.execute(sa.text(statement), values).rowcount > 0


@pytest.fixture
def hub(engine: sa.Engine) -> Hub:
    metadata.create_all(engine)
    made = Hub(engine, PostgresHub(row_tags()), PostgresDatabase(engine), Vault.new())
    with made.db.begin() as work:
        made.store.add_keys(work, [made.vault.row(one) for one in (ONE, TWO)])
        for handle, value in _VALUES.items():
            made.store.add_claims(
                work,
                [
                    made.vault.claim(value, handle=handle, offset=handle[0]),
                    made.vault.claim(b"", handle=handle, offset=handle[0] + 100, operation=Operation.VOID),
                ],
            )
            made.store.put_golden(work, [made.vault.golden(value, handle=handle)])
    assert {one: made.look_up(one) for one in (ONE, TWO)} == _VALUES
    return made


_SWAP = (
    "UPDATE {table} AS a SET {column} = b.{column} FROM {table} AS b"
    " WHERE a.handle <> b.handle AND {column_match} a.handle IN (:one, :two) AND b.handle IN (:one, :two)"
)
_SAME_OP = "a.op = b.op AND"


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        (_SWAP.format(table="hub_golden", column="sealed", column_match=""), Hub.look_up),
        (_SWAP.format(table="hub_key", column="wrapped", column_match=""), Hub.look_up),
        (_SWAP.format(table="hub_key", column="wrapped", column_match=""), Hub.history),
        (_SWAP.format(table="hub_claim", column="sealed", column_match=_SAME_OP), Hub.history),
        ("UPDATE hub_golden SET prov = 'forged'", Hub.look_up),
        ("UPDATE hub_golden SET rules = 9", Hub.look_up),
        ("UPDATE hub_golden SET flags = 1", Hub.look_up),
        ("UPDATE hub_golden SET library = 'credit'", Hub.look_up),
        ("UPDATE hub_claim SET valid_from = 0", Hub.history),
        ("UPDATE hub_claim SET valid_to = 1", Hub.history),
        ("UPDATE hub_claim SET op = 1 WHERE op = 3", Hub.history),
        ("UPDATE hub_claim SET op = 3 WHERE op = 1", Hub.history),
        ("UPDATE hub_claim SET applied = applied + 1", Hub.history),
        ("UPDATE hub_claim SET off = off + 1000", Hub.history),
        ("UPDATE hub_claim SET sealed = NULL", Hub.history),
        ("UPDATE hub_key SET kek = kek + 1", Hub.look_up),
        ("DELETE FROM hub_key", Hub.look_up),
    ],
)
def test_a_row_that_was_changed_by_sql_is_an_error(
    hub: Hub, statement: str, read: Callable[[Hub, Handle], object]
) -> None:
    hub.vault.keys.draw(MONTH + 1)
    hub.sql(statement, **({"one": ONE, "two": TWO} if ":one" in statement else {}))
    for handle in (ONE, TWO):
        with pytest.raises(CorruptError) as caught:
            read(hub, handle)
        assert caught.value.reason is Reason.ROW_FORGED
        for value in _VALUES.values():
            assert value.decode() not in str(caught.value)


def test_a_whole_row_put_in_the_place_of_another_subjects_is_an_error(hub: Hub) -> None:
    hub.sql("DELETE FROM hub_golden WHERE handle = :two", two=TWO)
    hub.sql("UPDATE hub_golden SET handle = :two WHERE handle = :one", one=ONE, two=TWO)
    with pytest.raises(CorruptError):
        hub.look_up(TWO)


def test_an_erased_key_is_an_erased_value_and_a_stranger_s_key_does_not_bring_it_back(hub: Hub) -> None:
    with hub.db.begin() as work:
        assert hub.store.erase_key(work, ONE, 5)
    assert hub.look_up(ONE) is None
    assert hub.history(ONE) is None
    assert hub.look_up(TWO) == _VALUES[TWO]
    hub.sql(
        "UPDATE hub_key SET wrapped = (SELECT wrapped FROM hub_key WHERE handle = :two) WHERE handle = :one",
        one=ONE,
        two=TWO,
    )
    with pytest.raises(CorruptError):
        hub.look_up(ONE)


def test_a_key_that_comes_back_with_a_backup_is_dead_once_its_month_is_destroyed(hub: Hub) -> None:
    wrapped = hub.vault.row(ONE).wrapped
    with hub.db.begin() as work:
        hub.store.erase_key(work, ONE, 5)
    hub.sql("UPDATE hub_key SET wrapped = :wrapped WHERE handle = :one", wrapped=wrapped, one=ONE)
    assert hub.look_up(ONE) == _VALUES[ONE], "until its month is over, as the promise says"
    hub.vault.keys.destroy(MONTH)
    assert hub.look_up(ONE) is None


def test_no_table_of_the_hub_holds_a_plain_value(hub: Hub) -> None:
    plain = [part for value in _VALUES.values() for part in value.split()]
    with hub.engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                stored = b"".join(
                    bytes(one) if isinstance(one, bytes | memoryview) else str(one).encode() for one in row
                )
                assert not [part for part in plain if part in stored], table.name


def test_a_row_of_links_that_somebody_adds_joins_nobody(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    pool = MemoryPool()
    for topic in TOPICS:
        pool.add(topic)
    drawn = Drawn.new(pool, store=PostgresHub(row_tags()), rules=PostgresRules(row_tags()), db=PostgresDatabase(engine))
    citizen, stranger = drawn.handle(1), drawn.handle(1, "foreign_pr")
    pool.publish(TOPICS[0], "a", {"id_type": "ric18", "id_number": number(1), "full_name": "one"})
    pool.publish(TOPICS[0], "b", {"id_type": "foreign_pr", "id_number": f"P{1:014}", "full_name": "two"})
    drawn.draw_all()
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO hub_link VALUES (:left, :right, :claim, 1)"),
            {"left": min(citizen, stranger), "right": max(citizen, stranger), "claim": bytes(16)},
        )
    pool.publish(TOPICS[0], "a", {"id_type": "ric18", "id_number": number(1), "full_name": "one again"})
    drawn.draw_all()
    shown = {handle: row[1] for handle, row in drawn.golden(citizen, stranger).items()}
    assert {handle: values and values["full_name"] for handle, values in shown.items()} == {
        citizen: "one again",
        stranger: "two",
    }
