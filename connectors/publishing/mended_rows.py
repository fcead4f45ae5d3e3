"""Mended rows of a quarantine: published as any other rows, through the same mapping and outbox, each once.

A row that its source does not state again (a change of a log, a file that is gone, a record of another pool) stays in
quarantine permanently unless it can be mended here. What a person has mended is a portion that replaces nothing:

    open entry? ─▶ overtaken? ─▶ map, encode, unchanged? ─▶ outbox ─▶ receipt ─▶ its entry is closed

A row is **overtaken** when a record or a void of its key was acknowledged after the row was last seen: what was
published later is right, and the mended row would come back from before it. Times are whole seconds; where the two are
equal it counts as overtaken.

A crash leaves entries open whose rows are published. The next replay of the same rows finds them unchanged, and closes
them. What still does not fit stays in quarantine as it was.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa
from typing_extensions import override

from connectors.mapping.contract import parse_contract
from connectors.mapping.mapping import BoundMapping, ColumnMapping
from connectors.port import ChangePosition, Pool, Portion, Replaces, RowChunk, SnapshotSource
from connectors.publishing.publication import Limits, Publication, Signer
from connectors.publishing.publisher import Publisher
from connectors.publishing.record_encoding import RecordEncoder
from connectors.state.ledger import Ledger
from connectors.state.quarantine import Quarantine, QuarantineEntry, read_entries
from registry.avro.parser import parse
from registry.codec.codec import engine_for

__all__ = ["MendedReport", "MendedRow", "replay_rows"]

_NAME = "mended rows"
_CHUNK = 5_000  # rows


@dataclass(frozen=True, slots=True)
class MendedRow:
    """One row: the number of its entry, and source column → text, None = null."""

    entry: int
    columns: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MendedReport:
    """The balance: rows = `published` + `unchanged` + `overtaken` + `closed` + those in `rejected`.

    Attributes:
        published: sent, and acknowledged.
        unchanged: the pool has exactly this record already.
        overtaken: see the module.
        closed: their entry is closed, or there is none of this number.
        rejected: entries of the rows that still do not fit, with why.
    """

    published: int
    unchanged: int
    overtaken: int
    closed: int
    rejected: Sequence[QuarantineEntry]


def replay_rows(
    publication: Publication,
    rows: Sequence[MendedRow],
    pool: Pool,
    ledger: Ledger,
    *,
    sign: Signer,
    limits: Limits,
    notify: Callable[[str], None] = lambda _: None,
    clock: Callable[[], datetime],
) -> MendedReport:
    """Publish mended rows of a publication's quarantine.

    Args:
        publication: of the rows.
        rows: at most one for each entry.
        pool: to which they are published.
        ledger: of the publication.
        sign: with the connector's key.
        limits: of a batch; those of the quarantine do not apply.
        notify: told what a person should know.
        clock: of this machine.

    Raises:
        InvalidError: CONTRACT_BROKEN, the rows' columns do not fit the mapping.
        PoolError: what publishing raises.
    """
    quarantine = Quarantine(ledger)
    quarantine.close([each.id for each in _of_replays(ledger)])  # a replay that died left them
    source = _MendedSource(publication, rows, pool, ledger)
    publisher = Publisher(
        publication,
        source,
        pool,
        ledger,
        sign=sign,
        limits=replace(limits, quarantine_share=1.0),
        stop=threading.Event(),
        notify=notify,
        clock=clock,
    )
    runs = publisher.run()
    again = list(_of_replays(ledger))
    quarantine.close([each.id for each in again])
    rejected = {each.line: each for each in again}
    quarantine.close([each for each in source.tried if each not in rejected])
    return MendedReport(
        published=sum(run.published for run in runs),
        unchanged=sum(run.unchanged for run in runs),
        overtaken=len(source.overtaken),
        closed=len(source.closed),
        rejected=list(rejected.values()),
    )


def _of_replays(ledger: Ledger) -> Iterator[QuarantineEntry]:
    return (each for each in read_entries(ledger.sql) if each.portion == _NAME)


@dataclass
class _MendedSource(SnapshotSource):
    """The rows whose entries are open and not overtaken; rows of the same columns are one portion."""

    publication: Publication
    rows: Sequence[MendedRow]
    pool: Pool
    ledger: Ledger
    tried: list[int] = field(default_factory=list)
    overtaken: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    @override
    def portions(self, fingerprint: bytes) -> Iterator[Portion]:
        # Here everything that was sent before is acknowledged, and the ledger knows it.
        self.tried, self.overtaken, self.closed = [], [], []
        _keep_change_position(self.ledger)
        schema_id, text = self.pool.schema(self.publication.topic)
        contract, engine = parse_contract(schema_id, text), engine_for(parse(text))
        encoder = RecordEncoder(contract, engine)
        mapping = ColumnMapping(
            contract,
            engine,
            self.publication.columns,
            null_values=self.publication.null_values,
            unknown_columns=self.publication.unknown_columns,
        )
        entries = {each.id: each for each in read_entries(self.ledger.sql) if each.portion != _NAME}
        groups: dict[tuple[str, ...], list[MendedRow]] = {}
        for row in self.rows:
            if row.entry in entries:
                groups.setdefault(tuple(sorted(row.columns)), []).append(row)
            else:
                self.closed.append(row.entry)
        for columns, rows in groups.items():
            chunk, bound = _chunk(columns, rows), mapping.bind(columns)
            digests = _digests(bound, encoder, chunk)
            good = []
            for at, (row, key) in enumerate(zip(rows, bound.keys(chunk), strict=True)):
                # The record itself is the latest where an earlier replay, which died, has published it.
                own = key is not None and at in digests and digests[at] == _published(self.ledger, key)
                seen = entries[row.entry].last_seen
                if key is not None and not own and _acknowledged_at(self.ledger, key) >= seen:
                    self.overtaken.append(row.entry)
                else:
                    good.append(row)
            self.tried += [row.entry for row in good]
            if good:
                yield _MendedPortion(columns, good)

    @override
    def close(self) -> None:
        """Do nothing."""


class _MendedPortion(Portion):
    def __init__(self, columns: Sequence[str], rows: Sequence[MendedRow]) -> None:
        self._columns = columns
        self._rows = rows

    @property
    @override
    def name(self) -> str:
        return _NAME

    @property
    @override
    def identity(self) -> bytes:
        return b""

    @property
    @override
    def replaces(self) -> Replaces:
        return Replaces.NOTHING

    @property
    @override
    def stable(self) -> bool:
        return True

    @property
    @override
    def columns(self) -> Sequence[str]:
        return self._columns

    @override
    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        for start in range(0, len(self._rows), _CHUNK):
            yield _chunk(self._columns if columns is None else columns, self._rows[start : start + _CHUNK])

    @override
    def confirm(self) -> None:
        """Do nothing: entries are closed when all is acknowledged."""


def _chunk(columns: Sequence[str], rows: Sequence[MendedRow]) -> RowChunk:
    return RowChunk(
        columns={name: pa.array([row.columns[name] for row in rows], pa.string()) for name in columns},
        lines=[row.entry for row in rows],
        originals=[json.dumps(dict(row.columns), ensure_ascii=False).encode() for row in rows],
    )


def _digests(bound: BoundMapping, encoder: RecordEncoder, chunk: RowChunk) -> dict[int, bytes]:
    """Return row → digest of its record, of those that fit."""
    mapped = bound.map(chunk)
    datums, rows = encoder.encode(chunk, mapped.batch, list(mapped.rows), [])
    return {row: encoder.digest(datum) for row, datum in zip(rows, datums, strict=True)}


def _published(ledger: Ledger, key: bytes) -> bytes:
    """Return the digest of the record that the pool has of a key; empty where it has none, or that is not known."""
    with ledger.lock:
        row = ledger.sql.execute("SELECT digest FROM keys WHERE key = ?", (key,)).fetchone()
    return bytes(row[0]) if row else b""


def _acknowledged_at(ledger: Ledger, key: bytes) -> str:
    """Return when a key was last published or voided, ISO 8601; empty where it never was, or before that was noted."""
    with ledger.lock:
        (last,) = ledger.sql.execute(
            "SELECT max(sequence) FROM (SELECT sequence FROM key_batches WHERE key = ?1 UNION ALL "
            "SELECT sequence FROM voided WHERE key = ?1)",
            (key,),
        ).fetchone()
        if last is None:
            return ""
        # A batch that only the chain of roots proves has no receipt: it was there before the next one.
        (at,) = ledger.sql.execute("SELECT min(at) FROM receipts WHERE sequence >= ?", (last,)).fetchone()
    return str(at) if at is not None else "9999"


def _keep_change_position(ledger: Ledger) -> None:
    """Note the position in a log of changes: the batches of mended rows have none."""
    checkpoint, start = ledger.checkpoint(), ChangePosition.parse(bytes.fromhex(ledger.meta("change_start")))
    last = ChangePosition.parse(checkpoint.position) if checkpoint is not None else None
    if start is not None and last is not None and last.stream == start.stream and last.commit >= start.commit:
        ledger.set_meta(change_start=bytes(last).hex())
