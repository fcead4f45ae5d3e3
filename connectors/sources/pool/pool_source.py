"""Another pool as a change source: what a grant there delivers, drawn release by release.

    snapshot   everything under the grant from its beginning, in the journal: the last record of each key
    read       each release after it: a record is an upsert, a withdrawal a delete of the key that it was delivered with
    confirm    what is published here is acknowledged there, and deleted from the journal

Every release is stored in the journal, with the position after it, before it is stated; so a release is drawn once,
and stated in the same rows until it is published. One that was fetched and not stored is fetched again, and the other
pool's log says so.

A withdrawal holds the record key alone, a pseudonym within the grant. The journal knows which key it was delivered
with. A record whose key columns have changed is a delete of the old key and an upsert of the new one.

**After a restore of the other pool** positions from before it are refused: the grant is drawn from the beginning, and
what does not come again is deleted, under the publisher's delete guard. So it is where the journal was lost.
"""

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from connectors.port import (
    ChangeBatch,
    ChangeOperation,
    ChangePosition,
    ChangeRequest,
    ChangeSource,
    Pool,
    Portion,
    Replaces,
    RowChunk,
    Snapshot,
    TableChanges,
    TransactionSpan,
)
from connectors.sources.pool.journal import DrawnRecord, KeyTexts, PoolJournal, StoredRelease
from connectors.sources.pool.provenance import MAX_POOL_ID, OWN_COLUMNS, Origin, Provenance
from connectors.sources.pool.view_texts import as_texts
from connectors.sources.postgres.json_rows import JsonColumns
from exchange.client.messages import FetchResult
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason, UnavailableError
from schemas.record import FRAME_SIZE

__all__ = ["GrantTerms", "PoolChangeSource"]

_BEGINNING = b"\0"  # position of the grant's first record (docs/reference/wire.md)
_OPERATION = "_operation"
_PAGE = 2_000  # records of the state in memory
_PART_ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTerms:
    """What is drawn, and for which purpose.

    Attributes:
        grant: its id at the other pool.
        purpose, case: as the grant states them; in every entry of that pool's log.
        batch_rows: of a release.
        wait: seconds that a fetch waits for the first record.
    """

    grant: str
    purpose: str
    case: str = ""
    batch_rows: int = 5_000
    wait: float = 2.0


class PoolChangeSource(ChangeSource):
    """One grant, as one table. Used by one thread."""

    def __init__(
        self,
        pool: Pool,
        terms: GrantTerms,
        journal: PoolJournal,
        *,
        stop: threading.Event | None = None,
        notify: Callable[[str], None] = lambda _: None,
        part_rows: int = _PART_ROWS,
    ) -> None:
        """Configure.

        Args:
            pool: the other one, under this connector's identity there.
            terms: of the grant.
            journal: of this publication.
            stop: ends the drawing of a state; the next run goes on with it.
            notify: told what a person should know.
            part_rows: of a release; a larger one is stated in parts.
        """
        self._pool = pool
        self._terms = terms
        self._journal = journal
        self._stop = stop or threading.Event()
        self._notify = notify
        self._part_rows = part_rows
        self._engines: dict[int, Engine] = {}
        self._provenance: Provenance | None = None
        self._view: Engine | None = None
        self._own: tuple[str, ...] = ()
        self._key: tuple[str, ...] = ()

    @property
    @override
    def stream(self) -> bytes:
        return self._journal.meta("stream")

    @property
    def provenance(self) -> Provenance:
        """Return where the records come from; known once the source is prepared."""
        if self._provenance is None:
            raise RuntimeError("the source is not prepared")
        return self._provenance

    @override
    def prepare(self, requests: Sequence[ChangeRequest], *, adopt: bool, fresh: bool) -> frozenset[str]:
        del adopt  # a grant can be drawn from its beginning: a journal that is lost is no conflict
        with _translated():
            pool_id = self._pool.hello().pool_id
            granted = self._pool.describe(self._terms.grant, purpose=self._terms.purpose, case=self._terms.case)
        if len(pool_id.encode()) > MAX_POOL_ID:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"the pool that is drawn from has an id of {len(pool_id.encode())} bytes; expected {MAX_POOL_ID} at "
                "most, which a batch can name",
            )
        self._view = self._engines[granted.schema_id] = engine_for(parse(granted.schema_text))
        self._provenance = Provenance(
            pool=pool_id, department=granted.provider, resource=str(granted.topic), grant=self._terms.grant
        )
        known = self._journal.meta("grant").decode()
        own = f"{pool_id} {self._terms.grant}"
        if fresh or known not in ("", own):
            if known not in ("", own):
                self._notify(f"what was drawn before is of {known}; the state under {own} replaces it")
            self._journal.begin_again()
        self._journal.note(grant=own.encode())
        for request in requests:
            self._own = tuple(name for name in OWN_COLUMNS if name in request.columns)
            self._key = tuple(request.key)
        return frozenset(request.table for request in requests) if self._journal.meta("kept") else frozenset()

    # -- snapshot ------------------------------------------------------------------------------------------------

    @override
    @contextmanager
    def snapshot(self, tables: Sequence[str]) -> Iterator[Snapshot]:
        if self._journal.has_state:
            self._journal.reopen_state()  # a crash came between its last batch and the first change
        else:
            self._journal.begin_again(self._journal.meta("grant"))
        self._draw_state()
        yield _GrantSnapshot(self, tables)

    def _draw_state(self) -> None:
        """Draw what is not drawn yet, until there is no more."""
        position = self._journal.meta("drawn_to") or _BEGINNING
        drawn = 0
        while True:
            result = self._fetch(position, wait=0.0)
            if result is None:
                self._journal.begin_again(self._journal.meta("grant"))
                position = _BEGINNING
                continue
            keys, times, values = _columns_of(result)
            records = zip(keys, times, values, strict=True)
            state = [DrawnRecord(key, at, result.entry_id, value) for key, at, value in records]
            self._journal.add_drawn(state, result.next_position, result.entry_id)
            position, drawn = result.next_position, drawn + len(values)
            if result.caught_up:
                break
            if self._stop.is_set():
                raise UnavailableError(
                    Reason.SOURCE_UNAVAILABLE,
                    f"stopped while the grant is drawn: {drawn:,} records are kept, and the next run goes on",
                )
        if drawn:
            self._notify(f"{drawn:,} records of {self.provenance.resource} are drawn from {self.provenance.pool}")

    def _origin(self, entry: str) -> bytes:
        return bytes(Origin(entry, self._terms.grant, self.provenance.pool)) if entry else b""

    # -- changes -------------------------------------------------------------------------------------------------

    @override
    def read(self, requests: Sequence[ChangeRequest], *, once: bool = False) -> Iterator[ChangeBatch | None]:
        (request,) = requests
        if self._journal.has_state:
            self._journal.drop_state()
        number = request.after.commit if request.after is not None else 0
        skip = request.after.rows if request.after is not None and request.after.part else 0
        if skip:
            number -= 1
        while True:
            release = self._journal.release_after(number)
            if release is None:
                caught_up, drawn = self._draw_release(wait=0.0 if once else self._terms.wait)
                if once and caught_up and not drawn:
                    return
                if not drawn:
                    yield None
                continue
            yield from self._batches(request, release, skip)
            number, skip = release.number, 0

    def _draw_release(self, *, wait: float) -> tuple[bool, bool]:
        """Draw the next release into the journal; return whether there is no more, and whether one was stored."""
        before = self._journal.meta("position")
        result = self._fetch(before, wait=wait)
        if result is None:
            self._journal.begin_again(self._journal.meta("grant"))
            raise UnavailableError(
                Reason.SOURCE_UNAVAILABLE,
                f"the pool {self.provenance.pool} was restored from a backup: its grant is drawn from the beginning",
            )
        if not len(result.values):
            self._journal.note(position=result.next_position)
            return result.caught_up, False
        keys, times, values = _columns_of(result)
        changes, delivered, withdrawn = self._changes_of(result, keys, times, values)
        release = StoredRelease(
            number=self._journal.number + 1,
            position=result.next_position,
            entry=result.entry_id,
            recorded_at=max(times),
            changes=changes,
        )
        self._journal.add_release(release, delivered, withdrawn)
        return result.caught_up, True

    def _changes_of(
        self, result: FetchResult, keys: Sequence[bytes], times: Sequence[int], values: Sequence[bytes]
    ) -> tuple[pa.RecordBatch, dict[bytes, KeyTexts], list[bytes]]:
        """Return the changes, the keys as delivered, and those that are withdrawn at the end."""
        shown = [at for at, value in enumerate(values) if value]
        texts = self._texts(
            result.schema_id,
            [DrawnRecord(keys[at], times[at], result.entry_id, values[at]) for at in shown],
        )
        key_columns = [texts[name].to_pylist() if name in texts else [None] * len(shown) for name in self._key]
        row_of = {at: row for row, at in enumerate(shown)}
        known: dict[bytes, KeyTexts | None] = dict(self._journal.keys(keys))
        operations: list[int] = []
        rows: list[int | None] = []
        voided: list[KeyTexts | None] = []

        def add(operation: ChangeOperation, row: int | None, key: KeyTexts | None) -> None:
            operations.append(operation)
            rows.append(row)
            voided.append(key)

        for at, record_key in enumerate(keys):
            before = known.get(record_key)
            row = row_of.get(at)
            new = None if row is None else tuple(column[row] for column in key_columns)
            if before is not None and new != before:
                add(ChangeOperation.DELETE, None, before)
            if new is not None:
                add(ChangeOperation.UPSERT, row, None)
            known[record_key] = new
        taken = pa.array(rows, pa.int32())
        columns = {name: column.take(taken) for name, column in texts.items()}
        for index, name in enumerate(self._key):
            if name in columns:
                stated = pa.array([None if key is None else key[index] for key in voided], pa.string())
                columns[name] = pc.coalesce(columns[name], stated)
        batch = pa.RecordBatch.from_pydict({**columns, _OPERATION: pa.array(operations, pa.int8())})
        delivered = {key: texts_ for key, texts_ in known.items() if texts_ is not None}
        return batch, delivered, [key for key, texts_ in known.items() if texts_ is None]

    def _batches(self, request: ChangeRequest, release: StoredRelease, skip: int) -> Iterator[ChangeBatch]:
        names = [name for name in release.changes.schema.names if name != _OPERATION]
        total = len(release.changes)
        if skip >= total:
            yield ChangeBatch(tables=[], position=release.number + 1)
            return
        for start in range(skip, total, self._part_rows):
            part = release.changes.slice(start, self._part_rows)
            last = start + len(part) == total
            columns = {name: part.column(name) for name in names if name in request.columns}
            span = TransactionSpan(
                commit=release.number,
                end=release.number + 1,
                committed_at=release.recorded_at,
                first=start,
                rows=len(part),
                last=last,
                origin=self._origin(release.entry),
            )
            changes = TableChanges(
                table=request.table,
                columns=names,
                rows=RowChunk(
                    columns=columns,
                    lines=[release.number] * len(part),
                    originals=JsonColumns(list(columns), list(columns.values())),
                ),
                operations=bytes(part.column(_OPERATION).to_pylist()),
                spans=[span],
            )
            yield ChangeBatch(tables=[changes], position=release.number + (1 if last else 0))

    @override
    def confirm(self, position: int | None) -> None:
        if position is None:
            return
        token = self._journal.position_of(position - 1)
        if not token:
            return
        self._commit(token)
        self._journal.delete_through(position - 1)

    @override
    def close(self) -> None:
        self._journal.close()

    # -- the other pool ------------------------------------------------------------------------------------------

    def _fetch(self, position: bytes, *, wait: float) -> FetchResult | None:
        """Return what follows a position; None where it was made before the other pool was restored."""
        try:
            with _translated():
                return self._pool.fetch(
                    self._terms.grant,
                    position=position,
                    purpose=self._terms.purpose,
                    case=self._terms.case,
                    max_records=self._terms.batch_rows,
                    wait=wait,
                )
        except ConflictError as error:
            if error.reason is not Reason.TOPIC_GENERATION_CHANGED or position == _BEGINNING:
                raise
            return None

    def _commit(self, position: bytes) -> None:
        with _translated():
            self._pool.commit(self._terms.grant, position, purpose=self._terms.purpose, case=self._terms.case)

    def _texts(self, schema_id: int, records: Sequence[DrawnRecord]) -> dict[str, pa.StringArray]:
        """Return the columns of records of one schema as text, with those of the connector's own that are wanted."""
        engine = self._engines.get(schema_id)
        if engine is None:
            with _translated():
                engine = engine_for(parse(self._pool.schema(schema_id=schema_id)[1]))
            self._engines[schema_id] = engine
        texts = as_texts(engine.decode([record.value[FRAME_SIZE:] for record in records]))
        own: dict[str, pa.StringArray] = {
            "_record_key": pa.array([record.key.hex() for record in records], pa.string()),
            "_recorded_at": pc.cast(
                pa.array([record.recorded_at for record in records], pa.timestamp("us", "UTC")), pa.string()
            ),
        }
        for name in self.provenance.columns(""):
            stated = [self.provenance.columns(record.entry)[name] or None for record in records]
            own[name] = pa.array(stated, pa.string())
        clash = [name for name in self._own if name in texts]
        if clash:
            raise InvalidError(
                Reason.CONTRACT_BROKEN,
                f"the view has fields with names of the connector's own: {', '.join(clash)}; ask for a grant without",
            )
        return {**texts, **{name: own[name] for name in self._own}}

    def _state_columns(self) -> list[str]:
        if self._view is None:
            raise RuntimeError("the source is not prepared")
        return [*self._view.schema.names, *self._own]

    def _state(self) -> Iterator[tuple[Sequence[DrawnRecord], dict[str, pa.StringArray]]]:
        """Return the drawn state in pages of one schema, with its columns."""
        names = self._state_columns()
        for page in self._journal.drawn(_PAGE):
            for head in dict.fromkeys(record.value[:FRAME_SIZE] for record in page):
                records = [record for record in page if record.value.startswith(head)]
                texts = self._texts(int.from_bytes(head[1:], "big"), records)
                yield (
                    records,
                    {name: texts[name] if name in texts else pa.nulls(len(records), pa.string()) for name in names},
                )

    def _keys_of_state(self) -> Iterator[Mapping[bytes, KeyTexts]]:
        for records, texts in self._state():
            columns = [texts[name].to_pylist() if name in texts else [None] * len(records) for name in self._key]
            yield {record.key: tuple(column[row] for column in columns) for row, record in enumerate(records)}

    def _keep(self) -> None:
        """Begin the releases behind the state."""
        if not self._journal.meta("kept"):
            self._journal.keep(self._keys_of_state())
        self._commit(self._journal.meta("position"))


class _GrantSnapshot(Snapshot):
    def __init__(self, source: PoolChangeSource, tables: Sequence[str]) -> None:
        self._source = source
        self._portions: dict[str, Portion] = {table: _GrantPortion(source, table) for table in tables}
        journal = source._journal  # noqa: SLF001 - of the same module
        entry = journal.meta("drawn_entry").decode()
        self._position = ChangePosition(
            stream=source.stream,
            commit=journal.number,
            end=journal.number + 1,
            origin=source._origin(entry),  # noqa: SLF001
        )

    @property
    @override
    def portions(self) -> Mapping[str, Portion]:
        return self._portions

    @property
    @override
    def position(self) -> ChangePosition:
        return self._position

    @override
    def keep_log(self) -> None:
        self._source._keep()  # noqa: SLF001 - of the same module


class _GrantPortion(Portion):
    """The state under a grant. Its identity is the audit entry of the last release of it, at the other pool."""

    def __init__(self, source: PoolChangeSource, name: str) -> None:
        self._source = source
        self._name = name
        entry = source._journal.meta("drawn_entry").decode()  # noqa: SLF001 - of the same module
        self._identity = uuid.UUID(entry).bytes if entry else b""

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def identity(self) -> bytes:
        return self._identity

    @property
    @override
    def replaces(self) -> Replaces:
        return Replaces.EVERYTHING

    @property
    @override
    def stable(self) -> bool:
        return True

    @property
    @override
    def columns(self) -> Sequence[str]:
        return self._source._state_columns()  # noqa: SLF001 - of the same module

    @override
    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        first = 1
        for records, texts in self._source._state():  # noqa: SLF001 - of the same module
            names = self.columns if columns is None else columns
            chosen = {name: texts[name] for name in names}
            yield RowChunk(
                columns=chosen,
                lines=range(first, first + len(records)),
                originals=JsonColumns(list(chosen), list(chosen.values())) if columns is None else [],
            )
            first += len(records)

    @override
    def confirm(self) -> None:
        """Do nothing: the state is kept until the releases after it begin."""


def _columns_of(result: FetchResult) -> tuple[list[bytes], tuple[int, ...], list[bytes]]:
    """Return record keys, times and framed values of a release.

    Raises:
        CorruptError: INTERNAL, they are not equally many, not of one schema, or of a release without an entry.
    """
    keys, times, values = result.keys(), result.times(), list(result.values)
    if not len(keys) == len(times) == len(values):
        raise CorruptError(
            Reason.INTERNAL, f"got {len(values)} records with {len(keys)} keys and {len(times)} times in one release"
        )
    if values and not _is_uuid(result.entry_id):
        raise CorruptError(Reason.INTERNAL, "got a release whose audit entry has no UUID; ask the pool's operator")
    head = b"\0" + result.schema_id.to_bytes(4, "big")
    if any(value and not value.startswith(head) for value in values):
        raise CorruptError(Reason.INTERNAL, f"got values that are not framed with the view's schema {result.schema_id}")
    return keys, times, values


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


@contextmanager
def _translated() -> Iterator[None]:
    """Say of what cannot be reached that it is the source: the pool that is published to may well be there."""
    try:
        yield
    except UnavailableError as error:
        raise UnavailableError(
            Reason.SOURCE_UNAVAILABLE,
            f"the pool that is drawn from: {error.message}",
            details=error.details,
            retry_after=error.retry_after,
        ) from error
