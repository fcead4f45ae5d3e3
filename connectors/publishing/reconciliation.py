"""Reconciliation: whether a source says what the pool has of it, counted and hashed by key range. Nothing is published.

The ledger has the digest of every record that the pool has acknowledged, so the source is read once, mapped and encoded
as for publishing, and compared with it on this machine:

    range   the first hexadecimal digit of a key's hash: 16 ranges of about equal size, which tell no key
    count   of the keys in it, at the source and in the pool
    hash    of its keys and digests, in no order (their hashes are XORed): equal only if all records are

Keys that differ stay in a scratch file of this machine. What changes while it is read would differ too: so where
something does, the source is read again, and only what differed both times, in the same way, counts.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors.mapping.mapping import BoundMapping
from connectors.port import Portion, RowChunk
from connectors.publishing.earlier_contracts import EarlierContracts
from connectors.publishing.record_encoding import RecordEncoder
from connectors.state.read_only import database_uri

__all__ = ["RangeTotals", "Reconciler", "Reconciliation"]

_PARAMETERS = 5_000  # of one IN list
_RANGES = "0123456789abcdef"
_HASH = 16  # bytes
_DIFFERENCES = """
SELECT s.key, 'differs' AS what, s.digest AS here, k.digest AS there FROM seen s JOIN ledger.keys k USING (key)
    WHERE s.digest <> k.digest AND k.digest <> x''
UNION ALL SELECT s.key, 'only at the source', s.digest, x'' FROM seen s
    WHERE NOT EXISTS (SELECT 1 FROM ledger.keys k WHERE k.key = s.key)
UNION ALL SELECT k.key, 'only in the pool', x'', k.digest FROM ledger.keys k
    WHERE NOT EXISTS (SELECT 1 FROM seen s WHERE s.key = k.key)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTotals:
    """Totals of a key range: keys at the source and in the pool, and the hash of each."""

    range: str
    source: int
    pool: int
    source_hash: str
    pool_hash: str

    @property
    def equal(self) -> bool:
        """Return whether all records are equal."""
        return (self.source, self.source_hash) == (self.pool, self.pool_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The result.

    Attributes:
        ranges: totals, of the last reading.
        rows: that were read.
        rejected: rows that are no record; a record of their key is in the pool as it was, and is not compared.
        unknown: keys of the pool of which the ledger does not know the record, since it was lost; not compared.
        differences: keys by kind.
    """

    ranges: Sequence[RangeTotals]
    rows: int
    rejected: int
    unknown: int
    differences: dict[str, int]

    @property
    def equal(self) -> bool:
        """Return whether nothing differs."""
        return not self.differences


class Reconciler:
    """Compares the readings of a source with a ledger. A context manager: its scratch file exists inside it."""

    def __init__(self, ledger: Path, scratch: Path, encoder: RecordEncoder, earlier: EarlierContracts) -> None:
        """Configure.

        Args:
            ledger: file, which is only read; its connector may run.
            scratch: file to make, which will hold keys.
            encoder: of the contract.
            earlier: contracts under which keys may have been published.
        """
        scratch.touch(mode=0o600)
        self._sql = sqlite3.connect(
            database_uri(scratch, read_only=False), uri=True, isolation_level=None, timeout=10.0
        )
        self._sql.execute("PRAGMA journal_mode = OFF")
        self._sql.execute("ATTACH ? AS ledger", (database_uri(ledger),))
        self._sql.execute("CREATE TABLE found (key BLOB, what TEXT, here BLOB, there BLOB)")
        self._encoder = encoder
        self._earlier = earlier

    def close(self) -> None:
        """Close the files."""
        self._sql.close()

    def compare(
        self, portion: Portion, bound: BoundMapping, progress: Callable[[int], None] = lambda _: None
    ) -> Reconciliation:
        """Compare a portion; where something differs, read it again and keep what differs both times.

        Raises:
            PoolError: the source cannot be read.
        """
        rows, rejected = self._read(portion, bound, progress)
        self._sql.execute(f"INSERT INTO found {_DIFFERENCES}")
        if self._sql.execute("SELECT 1 FROM found LIMIT 1").fetchone():
            rows, rejected = self._read(portion, bound, progress)
            self._sql.execute(f"CREATE TABLE again AS {_DIFFERENCES}")
            self._sql.execute("DELETE FROM found WHERE (key, what, here, there) NOT IN (SELECT * FROM again)")
        counted = self._sql.execute("SELECT what, count(*) FROM found GROUP BY what ORDER BY what")
        differences: dict[str, int] = dict(counted.fetchall())
        return Reconciliation(
            ranges=list(self._totals()),
            rows=rows,
            rejected=rejected,
            unknown=self._sql.execute("SELECT count(*) FROM ledger.keys WHERE digest = x''").fetchone()[0],
            differences=differences,
        )

    def differences(self) -> Iterator[tuple[bytes, str]]:
        """Return the keys that differ, and how."""
        yield from self._sql.execute("SELECT key, what FROM found ORDER BY what, key")

    def _read(self, portion: Portion, bound: BoundMapping, progress: Callable[[int], None]) -> tuple[int, int]:
        self._sql.execute("DROP TABLE IF EXISTS seen")
        self._sql.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, digest BLOB NOT NULL) WITHOUT ROWID")
        rows = rejected = 0
        for chunk in portion.chunks():
            bad = self._add(chunk, bound)
            rows += len(chunk) + len(chunk.rejects)
            rejected += bad + len(chunk.rejects)
            progress(rows)
        return rows, rejected

    def _add(self, chunk: RowChunk, bound: BoundMapping) -> int:
        """Add the records of a chunk; return the number of its rows that are none."""
        mapped = bound.map(chunk)
        rejects = list(mapped.rejects)
        place = {row: at for at, row in enumerate(mapped.rows)}
        datums, chosen = self._encoder.encode(chunk, mapped.batch, list(mapped.rows), rejects)
        found = [
            (key, self._encoder.digest(datum), place[row])
            for row, datum in zip(chosen, datums, strict=True)
            if (key := mapped.keys[row]) is not None
        ]
        good = set(chosen)
        refused = [key for row, key in enumerate(mapped.keys) if key is not None and row not in good]
        published = self._published([*(key for key, _, _ in found), *refused])
        differing = {
            at: before for key, digest, at in found if (before := published.get(key)) not in (None, digest, b"")
        }
        same = self._earlier.unchanged(mapped.batch, differing) if differing else set()
        self._sql.execute("BEGIN")
        self._sql.executemany(
            "INSERT INTO seen VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET digest = excluded.digest",
            [
                # What says the same under the contract of then, or is not known any more, counts as it is in the pool.
                (key, published[key] if at in same or published.get(key) == b"" else digest)
                for key, digest, at in found
            ],
        )
        # A row that is refused leaves its record in the pool as it was.
        self._sql.executemany(
            "INSERT INTO seen VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
            [(key, published[key]) for key in refused if key in published],
        )
        self._sql.execute("COMMIT")
        return len(rejects)

    def _published(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _PARAMETERS):
            page = keys[start : start + _PARAMETERS]
            marks = ",".join("?" * len(page))
            found.update(self._sql.execute(f"SELECT key, digest FROM ledger.keys WHERE key IN ({marks})", page))  # noqa: S608
        return found

    def _totals(self) -> Iterator[RangeTotals]:
        source, pool = self._totals_of("seen"), self._totals_of("ledger.keys")
        for at, name in enumerate(_RANGES):
            yield RangeTotals(
                range=name,
                source=source[at][0],
                pool=pool[at][0],
                source_hash=source[at][1],
                pool_hash=pool[at][1],
            )

    def _totals_of(self, table: str) -> list[tuple[int, str]]:
        counts, hashes = [0] * len(_RANGES), [0] * len(_RANGES)
        for key, digest in self._sql.execute(f"SELECT key, digest FROM {table}"):  # noqa: S608 - our own text
            at = hashlib.blake2b(key, digest_size=1).digest()[0] >> 4
            counts[at] += 1
            both = len(key).to_bytes(4, "big") + key + digest
            hashes[at] ^= int.from_bytes(hashlib.blake2b(both, digest_size=_HASH).digest(), "big")
        return [(count, f"{value:032x}") for count, value in zip(counts, hashes, strict=True)]
