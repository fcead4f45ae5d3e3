"""Comparison of a target table with records: what is stored of a key, and does it mean the same? Reads only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from connectors.port import DecodedRelease
from connectors.sinks.latest_records import latest_records
from connectors.sinks.sql_proof import Proof
from connectors.sinks.sql_schema import DELETED_AT, KEY, RECORDED_AT

__all__ = ["TableComparison"]

_PAGE = 2_000  # rows
_CHUNK = 500  # keys of one statement


class TableComparison:
    """A table of the sink."""

    def __init__(self, engine: sa.Engine, table: sa.Table, proof: Proof) -> None:
        """Configure.

        Args:
            engine: of the database.
            table: as the sink writes to it.
            proof: that reads back all of its fields.
        """
        self._engine = engine
        self._table = table
        self._proof = proof

    def differing(self, release: DecodedRelease) -> Mapping[int, str]:
        """Return index → how a record differs from what is stored of its key."""
        found: dict[int, str] = {}
        with self._engine.connect() as connection:
            stored = self._stored(connection, [key.hex() for key in release.keys])
            for index, key in enumerate(release.keys):
                recorded_at, deleted_at = stored.get(key.hex(), (None, None))
                if recorded_at is None or deleted_at is not None:
                    found[index] = "only in the pool"
                elif recorded_at != release.recorded_at[index]:
                    found[index] = "differs"
            for rejected in self._proof.find_changed(connection, release, latest_records(release)):
                found.setdefault(rejected.index, "differs")
        return found

    def valid_keys(self) -> Iterator[Sequence[bytes]]:
        """Return the keys of all valid rows, in pages."""
        key, last = self._table.c[KEY], ""
        while True:
            statement = sa.select(key).where(key > last, self._table.c[DELETED_AT].is_(None)).order_by(key).limit(_PAGE)
            with self._engine.connect() as connection:
                rows = connection.execute(statement).scalars().all()
            if not rows:
                return
            last = rows[-1]
            yield [bytes.fromhex(each) for each in rows]

    def _stored(self, connection: sa.Connection, keys: Sequence[str]) -> dict[str, tuple[Any, Any]]:
        table, found = self._table, {}
        for start in range(0, len(keys), _CHUNK):
            page = table.c[KEY].in_(keys[start : start + _CHUNK])
            for row in connection.execute(
                sa.select(table.c[KEY], table.c[RECORDED_AT], table.c[DELETED_AT]).where(page)
            ):
                found[row[0]] = (row[1], row[2])
        return found
