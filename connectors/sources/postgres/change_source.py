"""PostgreSQL's log of changes as a source: one slot, one publication, several tables, in the order of commit.

    prepare    the database is ready; the slot is the one that this connector made, where it left it
    snapshot   a temporary slot exports its snapshot; once its rows are acknowledged, the permanent slot is a copy of
               it. A crash before that leaves nothing behind, since a temporary slot ends with its session
    read       messages ─▶ `change_assembly` ─▶ values that were not sent ─▶ batches
    confirm    noted on this machine's disk first, then said to the server

What is noted (`connectors.sources.notes`) is how another reader, another database, or a slot that was made again are
found: the server's slot may be behind the note, never ahead of it. In doubt the connector stops, and says how to go on.
"""

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from connectors.port import ChangeBatch, ChangePosition, ChangeRequest, ChangeSource, Snapshot
from connectors.sources.notes import Notes
from connectors.sources.postgres.catalogue import TableFacts, read_database, read_table
from connectors.sources.postgres.change_assembly import AssembledBatch, AssemblyLimits, ChangeAssembler
from connectors.sources.postgres.connection import (
    format_lsn,
    open_replication,
    open_sql,
    parse_lsn,
    translate_errors,
)
from connectors.sources.postgres.missing_values import complete
from connectors.sources.postgres.pgoutput import decode
from connectors.sources.postgres.readiness import Toast, check_database, check_table, raise_first
from connectors.sources.postgres.replication import ReplicationStream
from connectors.sources.postgres.slot import SlotState, copy_slot, create_temporary_slot, drop_slot, find_slot
from connectors.sources.postgres.snapshot import PostgresSnapshot, TableSnapshot
from schemas.errors import ConflictError, Reason

__all__ = ["LogSettings", "PostgresChangeSource", "WalLimit"]

_LINGER = 0.02  # seconds without a message after which a batch is given out
_QUIET = 1.0  # seconds between two signs of life to the caller
_AGAIN = "`run --resnapshot all` publishes the tables whole and goes on from there"


@dataclass(frozen=True, slots=True, kw_only=True)
class WalLimit:
    """Bytes of the log that the slot may hold back: what is said then, and when it is given up. 0 = never."""

    warn: int = 5 << 30
    drop_slot: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How the log is read.

    Attributes:
        slot, publication: their names.
        heartbeat: seconds between two messages that let the log be confirmed while nothing changes.
        wal_limit: see `WalLimit`.
        accept_unbounded_wal: the server may keep the log without limit while the connector is stopped.
        reread: tables whose values may be read again (`Toast.REREAD`).
        limits: of a batch.
    """

    slot: str
    publication: str
    heartbeat: float = 60.0
    wal_limit: WalLimit = WalLimit()
    accept_unbounded_wal: bool = False
    reread: frozenset[str] = frozenset()
    limits: AssemblyLimits = field(default_factory=AssemblyLimits)


class PostgresChangeSource(ChangeSource):
    """The log of one database. Used by one thread."""

    def __init__(self, url: sa.URL, settings: LogSettings, notes: Notes, notify: Callable[[str], None]) -> None:
        """Configure; connections open at the first call."""
        self._url = url
        self._settings = settings
        self._notes = notes
        self._notify = notify
        self._sql: Any = None
        self._stream_id = b""
        self._stream: ReplicationStream | None = None
        self._confirmed = 0
        self._given = 0
        self._beat_at = 0.0
        self._warned = False

    @property
    @override
    def stream(self) -> bytes:
        return self._stream_id

    # -- prepare -----------------------------------------------------------------------------------------------

    @override
    def prepare(self, requests: Sequence[ChangeRequest], *, adopt: bool, fresh: bool) -> frozenset[str]:
        self._end_stream()
        slot = self._settings.slot
        with translate_errors(f"connect for the slot {slot}"):
            self._connect()
            found = find_slot(self._sql, slot)
            facts = read_database(self._sql, self._settings.publication)
        raise_first(
            list(
                check_database(
                    facts,
                    publication=self._settings.publication,
                    accept_unbounded_wal=self._settings.accept_unbounded_wal,
                    kept=found is not None,
                )
            )
        )
        self._check_tables(requests)
        with translate_errors(f"read the database's identity for the slot {slot}"):
            self._identify(facts.name)
        if fresh:
            self._give_up(found, adopt=adopt)
            found = None
        noted = self._notes.meta("change_state") != ""
        kept = self._check_slot(found, facts.name, adopt=adopt and not fresh)
        self._confirmed = self._given = self._noted("change_confirmed")
        if not kept:
            return frozenset()
        tables = frozenset(request.table for request in requests)
        return self._noted_tables() & tables if noted else tables

    def _connect(self) -> None:
        if self._sql is not None and not self._sql.closed:
            try:
                with self._sql.cursor() as cursor:
                    cursor.execute("SELECT 1")
            except Exception:  # noqa: BLE001 - a connection that was lost is made again
                self._sql.close()
            else:
                return
        self._sql = open_sql(self._url)

    def _identify(self, database: str) -> None:
        replication = open_replication(self._url)
        try:
            with replication.cursor() as cursor:
                cursor.execute("IDENTIFY_SYSTEM")
                system = cursor.fetchone()[0]
        finally:
            replication.close()
        self._stream_id = hashlib.sha256(f"{system} {database}".encode()).digest()[:16]

    def _check_slot(self, found: SlotState | None, database: str, *, adopt: bool) -> bool:
        """Return whether the log is kept for this connector; see `ChangeSource.prepare`."""
        state, slot = self._notes.meta("change_state"), self._settings.slot
        if state and self._notes.meta("change_stream") != self._stream_id.hex():
            raise _changed(
                f"the slot {slot} was read in another database than the one that is configured now; {_AGAIN}"
            )
        if found is not None and (found.plugin, found.database) != ("pgoutput", database):
            raise _changed(f"the slot {slot} belongs to another program or database; name another one under `cdc.slot`")
        if state == "creating" and found is None:
            self._notes.set_meta(change_state="")  # it ended before the slot was made: nothing is left, nothing is lost
            return False
        if state == "" and found is None and not adopt:
            return False
        if state == "" and found is not None:
            self._adopt(found, adopt=adopt)
            return True
        if found is None:
            noted = format_lsn(self._noted("change_confirmed"))
            raise _changed(f"the slot {slot} is gone: what changed since {noted} cannot be read any more; {_AGAIN}")
        if found.lost:
            cause = found.invalidation or "it held back more of the log than max_slot_wal_keep_size allows"
            raise _changed(f"the slot {slot} is lost ({cause}): changes cannot be read any more; {_AGAIN}")
        if found.confirmed > self._noted("change_confirmed"):
            raise _changed(
                f"the slot {slot} was confirmed up to {format_lsn(found.confirmed)}, and this connector only confirmed "
                f"{format_lsn(self._noted('change_confirmed'))}: another program has read it, or it was made again. "
                f"What changed in between is not published. End the other program; {_AGAIN}"
            )
        self._notes.set_meta(change_state="kept")
        return True

    def _adopt(self, found: SlotState, *, adopt: bool) -> None:
        slot = self._settings.slot
        if not adopt:
            raise _changed(
                f"a slot {slot} is there, which this connector did not make. If nothing reads it, drop it: "
                f"SELECT pg_drop_replication_slot('{slot}'); or name another one under `cdc.slot`"
            )
        self._notify(
            f"the notes on the slot {slot} were lost; the pool knows the positions of its tables: the slot is read on"
        )
        self._note("kept", found.confirmed)

    def _give_up(self, found: SlotState | None, *, adopt: bool) -> None:
        if found is not None:
            if not self._notes.meta("change_state") and not adopt:
                self._adopt(found, adopt=False)
            with translate_errors(f"drop the slot {self._settings.slot}"):
                drop_slot(self._sql, self._settings.slot)
        self._notes.set_meta(change_state="", change_confirmed="", change_stream="", change_tables="")

    def _note(self, state: str, confirmed: int) -> None:
        self._notes.set_meta(
            change_state=state, change_confirmed=format_lsn(confirmed), change_stream=self._stream_id.hex()
        )

    def _noted_tables(self) -> frozenset[str]:
        """Return the tables of which the log is kept: of others, changes may have been confirmed that nobody read."""
        return frozenset(self._notes.meta("change_tables").split("\n")) - {""}

    def _note_tables(self, tables: Collection[str]) -> None:
        self._notes.set_meta(change_tables="\n".join(sorted(tables)))

    def _noted(self, name: str) -> int:
        text = self._notes.meta(name)
        return parse_lsn(text) if text else 0

    # -- snapshot ----------------------------------------------------------------------------------------------

    @override
    @contextmanager
    def snapshot(self, tables: Sequence[str]) -> Iterator[Snapshot]:
        temporary = f"{self._settings.slot[:50]}_{secrets.token_hex(4)}"
        with translate_errors("take a snapshot for the log of changes"):
            replication, reader = open_replication(self._url), open_sql(self._url)
            try:
                start, name = create_temporary_slot(replication, temporary)
                reader.set_session(isolation_level="REPEATABLE READ", readonly=True, autocommit=False)
                with reader.cursor() as cursor:
                    cursor.execute("SET TRANSACTION SNAPSHOT %s", (name,))
                    cursor.execute("SET LOCAL synchronize_seqscans = off")
                portions = {table: TableSnapshot(reader, self._facts(table)) for table in tables}
                position = ChangePosition(stream=self._stream_id, commit=start - 1, end=start)
                yield PostgresSnapshot(portions, position, lambda: self._keep_log(temporary, start, tables))
            finally:
                reader.close()
                replication.close()

    def _keep_log(self, temporary: str, start: int, tables: Collection[str]) -> None:
        """Make the permanent slot. A crash around it is found by the note, which is written first."""
        if self._notes.meta("change_state") == "kept":  # tables were added: the log is kept already
            self._note_tables(self._noted_tables() | set(tables))
            return
        self._note("creating", start)
        with translate_errors(f"make the slot {self._settings.slot}"):
            self._connect()
            copy_slot(self._sql, temporary, self._settings.slot)
        self._note("kept", start)
        self._note_tables(tables)
        self._confirmed = self._given = start

    def _facts(self, table: str) -> TableFacts:
        facts = read_table(self._sql, table, self._settings.publication)
        if facts is None:
            raise _changed(f"the table {table} is gone")
        return facts

    # -- read --------------------------------------------------------------------------------------------------

    @override
    def read(self, requests: Sequence[ChangeRequest], *, once: bool = False) -> Iterator[ChangeBatch | None]:
        self._end_stream()
        self._note_tables([request.table for request in requests])
        until = self._current_lsn() if once else None
        stream = self._stream = ReplicationStream(self._url, self._settings.slot, self._settings.publication)
        assembler = ChangeAssembler(requests, self._settings.limits, self._given)
        said_at = time.monotonic()
        while True:
            payload = stream.read()
            if payload is not None:
                for each in assembler.feed(decode(payload), len(payload)):
                    yield self._give(each, requests)
                continue
            if stream.wait(_LINGER):
                continue
            if (batch := assembler.flush()) is not None:
                yield self._give(batch, requests)
                said_at = time.monotonic()
            self._tick()
            if not assembler.in_transaction and self._confirmed >= self._given:
                self._given = self._confirmed = max(self._confirmed, stream.sent)  # it held nothing for this connector
            if until is not None and not assembler.in_transaction and stream.sent >= until:
                return
            if time.monotonic() - said_at > _QUIET:
                yield None
                said_at = time.monotonic()
            stream.confirm(self._noted_position(), ask=until is not None)
            stream.wait(0.05 if until is not None else _QUIET / 4)

    @override
    def confirm(self, position: int | None) -> None:
        if position is not None:
            self._confirmed = max(self._confirmed, position)
        if self._stream is not None:
            self._tick()
            self._stream.confirm(self._noted_position())

    @override
    def close(self) -> None:
        self._end_stream()
        if self._sql is not None:
            self._sql.close()

    def _give(self, assembled: AssembledBatch, requests: Sequence[ChangeRequest]) -> ChangeBatch:
        batch = assembled.batch
        if any(assembled.missing):
            with translate_errors("read values again that the log does not hold"):
                self._connect()
                batch = complete(self._sql, assembled, requests, self._settings.reread, self._settings.publication)
        self._given = max(self._given, batch.position)
        return batch

    def _check_tables(self, requests: Sequence[ChangeRequest]) -> None:
        with translate_errors("read the catalogue"):
            self._connect()
            findings = [
                finding
                for request in requests
                for finding in check_table(
                    read_table(self._sql, request.table, self._settings.publication),
                    request.table,
                    publication=self._settings.publication,
                    user=str(self._url.username),
                    key=request.key,
                    columns=request.columns,
                    toast=Toast.REREAD if request.table in self._settings.reread else Toast.REQUIRE_FULL,
                )
            ]
        raise_first(findings)

    def _current_lsn(self) -> int:
        with translate_errors("read the place in the log"), self._sql.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_insert_lsn()::text")
            lsn = parse_lsn(cursor.fetchone()[0])
            cursor.execute("SELECT pg_logical_emit_message(false, 'pool-connect', '')")
        return lsn

    def _noted_position(self) -> int:
        """Return what is confirmed, after it was noted."""
        noted = self._noted("change_confirmed")
        if self._confirmed > noted:
            self._notes.set_meta(change_confirmed=format_lsn(self._confirmed))
        return max(self._confirmed, noted)

    def _tick(self) -> None:
        """Write the heartbeat, and look at what the slot costs."""
        if time.monotonic() - self._beat_at < self._settings.heartbeat:
            return
        self._beat_at = time.monotonic()
        with translate_errors("write the heartbeat"):
            self._connect()
            with self._sql.cursor() as cursor:
                cursor.execute("SELECT pg_logical_emit_message(false, 'pool-connect', '')")
            found = find_slot(self._sql, self._settings.slot)
        if found is None:
            raise _changed(f"the slot {self._settings.slot} is gone; {_AGAIN}")
        limit, retained = self._settings.wal_limit, found.retained
        if limit.drop_slot and retained > limit.drop_slot:
            self._end_stream()
            self._give_up(found, adopt=True)
            raise _changed(
                f"the slot {self._settings.slot} held back {retained >> 20} MiB of the database's log, more than "
                f"`wal_limit.drop_slot` allows, and was dropped to save its disk; {_AGAIN}"
            )
        if limit.warn and retained > limit.warn and not self._warned:
            self._notify(
                f"the slot {self._settings.slot} holds back {retained >> 20} MiB of the database's log: the pool is "
                "slow or away, or a transaction has been open for long"
            )
        self._warned = bool(limit.warn) and retained > limit.warn

    def _end_stream(self) -> None:
        if self._stream is None:
            return
        stream, self._stream = self._stream, None
        with contextlib.suppress(Exception):  # it is noted; the server learns it the next time
            stream.confirm(self._noted_position(), now=True)
        stream.close()


def _changed(message: str) -> ConflictError:
    return ConflictError(Reason.SOURCE_CHANGED, message)
