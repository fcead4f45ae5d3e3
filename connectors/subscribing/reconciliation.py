"""Reconciliation of a subscription: whether a target holds what its grant delivers, by key range. Nothing is written.

    draw     everything under the grant from its beginning, for the declared purpose: releases as any other, each with
             its entry in the log. Of each key the last record is kept, in a scratch file of this machine
    compare  page by page: is the record there, of the same time, with the same values?
    look     for valid rows of the target that the grant does not deliver (any more)

Ranges are the first hexadecimal digit of the record key, which is a pseudonym within the grant. What the connector
quarantined, since the target could not hold it, is counted apart.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from connectors.port import DecodedRelease, Pool
from connectors.subscribing.nanoseconds import as_deliverable
from connectors.subscribing.subscriber import BEGINNING, SubscriptionConfig
from exchange.client.messages import FetchResult
from registry.codec.codec import Engine
from schemas.errors import CorruptError, Reason
from schemas.record import FRAME_SIZE

__all__ = [
    "DrawnState",
    "DrawnTotals",
    "TargetComparison",
    "TargetRange",
    "TargetReconciliation",
    "compare_target",
    "decode_drawn",
    "draw_state",
]

_PAGE = 2_000  # records
_RANGES = "0123456789abcdef"


class TargetComparison(Protocol):
    """A target that can be compared (`connectors.sinks.sql_comparison`)."""

    def differing(self, release: DecodedRelease) -> Mapping[int, str]:
        """Return index → how a record of a release differs from what is stored of its key; none of those withdrawn."""
        ...

    def valid_keys(self) -> Iterator[Sequence[bytes]]:
        """Return the keys of all valid rows, in pages."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRange:
    """Totals of a key range: valid records of the target and of the pool under the grant, and the hash of each."""

    range: str
    target: int
    pool: int
    target_hash: str
    pool_hash: str

    @property
    def equal(self) -> bool:
        """Return whether all records are equal."""
        return (self.target, self.target_hash) == (self.pool, self.pool_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetReconciliation:
    """The result.

    Attributes:
        ranges: totals.
        quarantined: records that the target could not hold; not counted as differences.
        differences: keys by kind.
    """

    ranges: Sequence[TargetRange]
    quarantined: int
    differences: Mapping[str, int]

    @property
    def equal(self) -> bool:
        """Return whether nothing differs."""
        return not self.differences


class DrawnState:
    """What a grant delivers: the last record of each key, in a scratch file."""

    def __init__(self, scratch: Path) -> None:
        scratch.touch(mode=0o600)
        self._sql = sqlite3.connect(scratch, isolation_level=None)
        self._sql.execute("PRAGMA journal_mode = OFF")
        self._sql.execute(
            "CREATE TABLE drawn (key BLOB PRIMARY KEY, recorded_at INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID"
        )
        self._sql.execute("CREATE TABLE differing (key BLOB PRIMARY KEY, what TEXT NOT NULL) WITHOUT ROWID")

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    def add(self, result: FetchResult) -> None:
        """Add a release; a record never replaces a later one of its key."""
        keys, times, values = result.keys(), result.times(), list(result.values)
        if not len(keys) == len(times) == len(values):
            raise CorruptError(
                Reason.INTERNAL, f"got {len(values)} records with {len(keys)} keys and {len(times)} times"
            )
        self._sql.execute("BEGIN")
        self._sql.executemany(
            "INSERT INTO drawn VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET recorded_at = excluded.recorded_at, "
            "value = excluded.value WHERE excluded.recorded_at >= recorded_at",
            zip(keys, times, values, strict=True),
        )
        self._sql.execute("COMMIT")

    def valid(self) -> Iterator[list[tuple[bytes, int, bytes]]]:
        """Return (key, recorded_at, framed value) of the records that are not withdrawn, in pages of one schema."""
        last = b""
        while rows := self._sql.execute(
            "SELECT key, recorded_at, value FROM drawn WHERE key > ? AND value <> x'' ORDER BY key LIMIT ?",
            (last, _PAGE),
        ).fetchall():
            last = rows[-1][0]
            heads = dict.fromkeys(row[2][:FRAME_SIZE] for row in rows)
            for head in heads:
                yield [row for row in rows if row[2][:FRAME_SIZE] == head]

    def is_valid(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return those of the keys that have a record that is not withdrawn."""
        marks = ",".join("?" * len(keys))
        found = self._sql.execute(f"SELECT key FROM drawn WHERE value <> x'' AND key IN ({marks})", keys)  # noqa: S608
        return {row[0] for row in found}

    def note(self, found: Mapping[bytes, str]) -> None:
        """Note keys that differ, and how."""
        self._sql.executemany("INSERT OR IGNORE INTO differing VALUES (?, ?)", found.items())

    def counts(self) -> dict[str, int]:
        """Return the number of keys that differ, by kind."""
        return dict(self._sql.execute("SELECT what, count(*) FROM differing GROUP BY what ORDER BY what").fetchall())

    def differences(self) -> Iterator[tuple[bytes, str]]:
        """Return the keys that differ, and how."""
        yield from self._sql.execute("SELECT key, what FROM differing ORDER BY what, key")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnTotals:
    """What drawing took: releases that had records, and the audit entry of the last one."""

    releases: int
    last_entry: str


def draw_state(
    pool: Pool, config: SubscriptionConfig, drawn: DrawnState, progress: Callable[[int], None] = lambda _: None
) -> DrawnTotals:
    """Draw everything under a grant from its beginning; nothing is acknowledged.

    Raises:
        PoolError: the grant does not allow it, its quota is used up, the pool is away or was restored meanwhile.
    """
    position, releases, records, last_entry = BEGINNING, 0, 0, ""
    while True:
        result = pool.fetch(
            config.grant,
            position=position,
            purpose=config.purpose,
            case=config.case,
            max_records=config.batch_rows,
            wait=0.0,
        )
        drawn.add(result)
        position, last_entry = result.next_position, result.entry_id or last_entry
        releases += bool(result.entry_id)
        records += len(result.values)
        progress(records)
        if result.caught_up:
            return DrawnTotals(releases=releases, last_entry=last_entry)


class _Totals:
    def __init__(self) -> None:
        self.counts, self.hashes = [0] * len(_RANGES), [0] * len(_RANGES)

    def add(self, key: bytes, value: bytes) -> None:
        at = key[0] >> 4
        self.counts[at] += 1
        self.hashes[at] ^= int.from_bytes(hashlib.blake2b(key + value, digest_size=16).digest(), "big")


def compare_target(
    drawn: DrawnState,
    target: TargetComparison,
    engine_of: Callable[[int], Engine],
    quarantined: Collection[bytes],
) -> TargetReconciliation:
    """Compare what was drawn with a target.

    Args:
        drawn: under the grant.
        target: of the same grant.
        engine_of: returns the engine of a view's schema by its id.
        quarantined: keys of records that the target could not hold.
    """
    here, there = _Totals(), _Totals()
    set_aside = 0
    for rows in drawn.valid():
        release = decode_drawn(rows, engine_of(int.from_bytes(rows[0][2][1:FRAME_SIZE], "big")))
        differing = target.differing(release)
        found: dict[bytes, str] = {}
        for index, (key, _, value) in enumerate(rows):
            there.add(key, value)
            what = differing.get(index)
            if what is not None and key in quarantined:
                set_aside += 1
            elif what is not None:
                found[key] = what
            # A record that is there with other values counts, with a hash that no record of the pool has.
            if what is None:
                here.add(key, value)
            elif what == "differs":
                here.add(key, b"")
        drawn.note(found)
    for keys in target.valid_keys():
        more = [key for key in keys if key not in drawn.is_valid(keys)]
        for key in more:
            here.add(key, b"")
        drawn.note(dict.fromkeys(more, "only in the target"))
    return TargetReconciliation(
        ranges=[
            TargetRange(
                range=name,
                target=here.counts[at],
                pool=there.counts[at],
                target_hash=f"{here.hashes[at]:032x}",
                pool_hash=f"{there.hashes[at]:032x}",
            )
            for at, name in enumerate(_RANGES)
        ],
        quarantined=set_aside,
        differences=drawn.counts(),
    )


def decode_drawn(rows: Sequence[tuple[bytes, int, bytes]], engine: Engine) -> DecodedRelease:
    """Return rows of `DrawnState.valid` as a release; *engine* is of the schema of all of them."""
    records: pa.RecordBatch = as_deliverable(engine.decode([value[FRAME_SIZE:] for _, _, value in rows]))
    return DecodedRelease(
        keys=[key for key, _, _ in rows],
        recorded_at=[at for _, at, _ in rows],
        withdrawn=[False] * len(rows),
        records=records,
        values=[value for _, _, value in rows],
        entry_id="",
    )
