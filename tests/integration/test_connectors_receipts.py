"""Receipts in the ledger: kept whole, provable long after, and not mixed under two keys."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.state.ledger import Ledger
from exchange.client.receipts import verify_receipt
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.record import Receipt
from tests.kit.world.department import TOPIC, Department, now, row, rows


@pytest.fixture
def department(tmp_path: Path) -> Department:
    made = Department(tmp_path)
    made.put(rows(100))
    made.publish()
    return made


def kept(department: Department) -> tuple[bytes, list[Receipt]]:
    """Return the pool's key and the receipts, from the ledger alone."""
    ledger = Ledger(department.ledger_file, clock=now)
    try:
        return bytes.fromhex(ledger.meta("receipt_key")), list(ledger.receipts())
    finally:
        ledger.close()


def as_version_1(file: Path) -> None:
    """Make of a ledger what the first version would have written."""
    with closing(sqlite3.connect(file)) as sql:
        sql.executescript(
            "ALTER TABLE receipts DROP COLUMN source_position; DELETE FROM meta WHERE name = 'receipt_key'; "
            "DROP TABLE key_batches; DROP TABLE voided; DROP TABLE tracked; DROP TABLE lost_receipts"
        )
        sql.execute("PRAGMA user_version = 1")


def test_a_kept_receipt_proves_what_it_proved_when_it_came(department: Department) -> None:
    key, receipts = kept(department)
    assert [each.sequence for each in receipts] == [1, 2, 3]
    (lane,) = department.twin.lanes.values()
    assert receipts == list(lane.receipts.values())
    for each in receipts:
        assert each.source_position, "a position that is empty anyway would prove nothing here"
        verify_receipt(each, key)
        with pytest.raises(CorruptError):
            verify_receipt(replace(each, source_position=b""), key)


def test_a_ledger_of_the_first_version_goes_on_with_what_it_knows(department: Department) -> None:
    as_version_1(department.ledger_file)
    department.put([*rows(99), row(99, "9.99")])
    (run,) = department.publish()
    assert (run.published, run.unchanged) == (1, 99)
    key, receipts = kept(department)
    assert [each.sequence for each in receipts] == [4], "the earlier ones lack their source position"
    verify_receipt(receipts[0], key)
    with closing(sqlite3.connect(department.ledger_file)) as sql:
        assert sql.execute("SELECT count(*) FROM receipts").fetchone() == (4,), "and are kept all the same"
        assert sql.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_ledger_of_a_later_version_is_left_alone(department: Department) -> None:
    with closing(sqlite3.connect(department.ledger_file)) as sql:
        sql.execute("PRAGMA user_version = 3")
    with pytest.raises(InvalidError) as caught:
        department.publish()
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_a_pool_with_another_receipt_key_gets_nothing(department: Department) -> None:
    old, _ = kept(department)
    department.twin.receipt_key = Ed25519PrivateKey.generate()
    department.put([*rows(99), row(99, "9.99")])
    with pytest.raises(CorruptError, match="receipt key") as caught:
        department.publish()
    assert caught.value.reason is Reason.SIGNATURE_INVALID
    assert len(department.twin.records(TOPIC)) == 100
    assert kept(department)[0] == old, "the second run refuses as the first did"
    with pytest.raises(CorruptError):
        department.publish()


def test_with_the_ledger_archived_the_new_key_is_taken(department: Department) -> None:
    department.twin.receipt_key = Ed25519PrivateKey.generate()
    department.lose_ledger()
    department.put([*rows(99), row(99, "9.99")])
    department.publish()
    key, receipts = kept(department)
    assert receipts
    for each in receipts:
        verify_receipt(each, key)
