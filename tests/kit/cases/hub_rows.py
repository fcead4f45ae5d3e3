"""Rows of the hub's store for tests, sealed with keys of a vault in memory."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from exchange.hub.fold.claim import Claim, Position
from exchange.hub.fold.identity import Handle, Link
from exchange.hub.store.keys import HubKeys, MemoryHubKeys, month_of
from exchange.hub.store.model import GoldenFlag, GoldenRow, SealedClaim, WrappedKey
from exchange.hub.store.sealing import golden_context, new_key, seal, seal_claim
from schemas.record import Operation
from tests.kit.cases.hub_claims import HANDLES

MONTH: Final = month_of(datetime(2026, 5, 4, tzinfo=UTC))
ONE, TWO, THREE, FOUR = HANDLES


@dataclass
class Vault:
    """Keys of a hub, and the data keys that it has made."""

    keys: HubKeys
    rows: dict[Handle, WrappedKey]

    @classmethod
    def new(cls, keys: HubKeys | None = None) -> "Vault":
        made = keys or MemoryHubKeys()
        made.draw(MONTH)
        return cls(made, {})

    def row(self, handle: Handle) -> WrappedKey:
        if handle not in self.rows:
            self.rows[handle] = new_key(self.keys, MONTH, handle)
        return self.rows[handle]

    def key(self, handle: Handle) -> bytes:
        row = self.row(handle)
        assert row.wrapped is not None
        found = self.keys.unwrap(row.kek, handle, row.wrapped)
        assert found is not None
        return found

    def claim(self, value: bytes = b"value", links: tuple[Link, ...] = (), **changes: Any) -> SealedClaim:
        row = a_row(**changes)
        return replace(row, sealed=seal_claim(row, self.key(row.handle), links, value))

    def golden(self, value: bytes = b"golden", **changes: Any) -> GoldenRow:
        row = replace(
            GoldenRow(
                handle=ONE, library="population", rules=1, applied=1, flags=GoldenFlag(0), sealed=b"", prov=b"prov"
            ),
            **changes,
        )
        return replace(row, sealed=seal(self.key(row.handle), golden_context(row), value))


def a_row(**changes: Any) -> SealedClaim:
    """Return a claim's row without a value; *resource*, *partition* and *offset* stand for its position."""
    place = Position(changes.pop("resource", 1), 1, changes.pop("partition", 0), changes.pop("offset", 0))
    claim = Claim(
        handle=ONE,
        position=place,
        item=b"i" * 16,
        operation=Operation.UPSERT,
        applied=1,
        recorded_at=1_000,
        valid_from=7,
    )
    return replace(SealedClaim.of(claim, schema=3, sealed=None), **changes)
