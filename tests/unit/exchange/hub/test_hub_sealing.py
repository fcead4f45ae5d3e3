"""Sealed rows: what opens, what does not, and what an erased key leaves."""

from dataclasses import replace
from typing import Any

import pytest

from exchange.hub.fold.identity import Link
from exchange.hub.store.model import GoldenFlag, ItemRow
from exchange.hub.store.sealing import (
    Keyring,
    claim_context,
    golden_context,
    item_context,
    open_claim,
    readable,
    seal,
    unseal,
)
from schemas.errors import CorruptError, Reason
from schemas.record import Operation
from tests.kit.cases.hub_rows import MONTH, ONE, THREE, TWO, Vault

LINKS = (Link.of(TWO, ONE, citizen=False, other_citizen=True), Link.of(ONE, THREE, citizen=True, other_citizen=False))


def test_links_and_value_come_back() -> None:
    vault = Vault.new()
    row = vault.claim(b"a value", LINKS)
    assert row.sealed is not None
    assert b"a value" not in row.sealed
    assert open_claim(row, vault.key(ONE)) == (LINKS, b"a value")
    assert open_claim(vault.claim(b""), vault.key(ONE)) == ((), b"")
    claim = readable(row, LINKS, {"full_name": "x"})
    assert (claim.position, claim.links, claim.values) == (row.position, LINKS, {"full_name": "x"})


@pytest.mark.parametrize(
    "change",
    [
        {"handle": TWO},
        {"item": b"j" * 16},
        {"operation": Operation.CORRECT},
        {"applied": 2},
        {"recorded_at": 1_001},
        {"valid_from": 8},
        {"valid_from": None},
        {"valid_to": 0},
        {"schema": 4},
        {"sealed": None},
        {"sealed": b""},
    ],
    ids=str,
)
def test_a_claim_of_which_any_column_was_changed_does_not_open(change: dict[str, Any]) -> None:
    vault = Vault.new()
    row = replace(vault.claim(), **change)
    with pytest.raises(CorruptError) as caught:
        open_claim(row, vault.key(ONE))
    assert caught.value.reason is Reason.ROW_FORGED
    assert "hub_claim" in str(caught.value)


@pytest.mark.parametrize("part", range(4))
def test_a_claim_at_another_place_does_not_open(part: int) -> None:
    vault = Vault.new()
    row = vault.claim()
    place = [*row.position]
    place[part] += 1
    with pytest.raises(CorruptError):
        open_claim(replace(row, position=type(row.position)(*place)), vault.key(ONE))


def test_a_golden_record_or_item_of_which_any_column_was_changed_does_not_open() -> None:
    vault = Vault.new()
    key = vault.key(ONE)
    row = vault.golden()
    assert unseal(key, golden_context(row), row.sealed) == b"golden"
    for change in (
        {"handle": TWO}, {"library": "credit"}, {"rules": 2}, {"applied": 2}, {"flags": GoldenFlag.LINKED},
        {"prov": b"x"},
    ):  # fmt: skip
        with pytest.raises(CorruptError):
            unseal(key, golden_context(replace(row, **change)), row.sealed)  # type: ignore[arg-type]
    item = ItemRow(
        library="credit", item=b"i" * 16, handle=ONE, rules=1, applied=1, flags=GoldenFlag(0), sealed=b"", prov=b"p"
    )
    sealed = seal(key, item_context(item), b"value")
    assert unseal(key, item_context(item), sealed) == b"value"
    with pytest.raises(CorruptError):
        unseal(key, item_context(replace(item, item=b"j" * 16)), sealed)


def test_a_value_of_one_table_is_none_of_another() -> None:
    vault = Vault.new()
    row = vault.claim()
    assert row.sealed is not None
    with pytest.raises(CorruptError):
        unseal(vault.key(ONE), golden_context(vault.golden()), row.sealed)


def test_columns_of_different_rows_never_give_the_same_bytes() -> None:
    vault = Vault.new()
    rows = [
        vault.claim(valid_from=None, valid_to=5),
        vault.claim(valid_from=5, valid_to=None),
        vault.claim(valid_from=51, valid_to=2),
        vault.claim(valid_from=5, valid_to=12),
        vault.claim(applied=11, recorded_at=1),
        vault.claim(applied=1, recorded_at=11),
    ]
    assert len({claim_context(one) for one in rows}) == len(rows)


def test_an_erased_key_is_an_erased_value_and_a_deleted_row_of_a_key_is_an_error() -> None:
    vault = Vault.new()
    one, two = vault.row(ONE), vault.row(TWO)
    ring = Keyring.unwrapped(vault.keys, [one, replace(two, wrapped=None, erased_at=5)])
    assert ring.of(ONE) == vault.key(ONE)
    assert ring.of(TWO) is None
    with pytest.raises(CorruptError, match="hub_key"):
        ring.of(THREE)
    vault.keys.destroy(MONTH)
    assert Keyring.unwrapped(vault.keys, [one]).of(ONE) is None


def test_swapped_keys_are_an_error() -> None:
    vault = Vault.new()
    one, two = vault.row(ONE), vault.row(TWO)
    with pytest.raises(CorruptError):
        Keyring.unwrapped(vault.keys, [replace(one, wrapped=two.wrapped)])
