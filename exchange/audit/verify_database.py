"""Database verifier: every row of the audit tables against its leaf, every receipt, checkpoint and grant too.

    report = verify_database(engine, Path("data/log"), key=key, since=kept, grants=read_grants)

The files are verified first and by the same code (`verify_files`); they prove the leaves, and the leaves then prove
the rows. The kinds of findings besides those of the files:

    row.missing, row.changed, row.column    a leaf without its row, with other bytes, with another search column
    row.extra                               a row at an index that the log does not have, or a second one at an index
    row.waiting                             a row without an index whose bytes do not match its hash
    entry.forged                            a row without an index and without the tag of a known process
    entry.refused, entry.withheld           a row that the sequencer refused; one that is marked so, with a valid tag
    receipt.missing, receipt.changed        a publication without its receipt, or with one that says otherwise
    receipt.extra                           a receipt that belongs to no entry
    checkpoint.row                          a stored checkpoint that is not one of this log
    grant.forged, grant.old                 a grant's row that no entry made; one that a later version has replaced
    grant.column                            a column beside a grant's text, by which rows are found, says otherwise
    grant.gone                              a grant, or one of its versions, that an entry made is not there
    database.object                         a trigger, a view, … that the pool did not make: the database may answer
                                            verification and pool differently
    quota.lowered                           the count of a grant's day is lower than that of its releases' entries
    row.forged, row.unaccounted, row.old, row.gone
                                            rows of tagged tables, as `row_notes` explains
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from typing_extensions import override

from exchange.audit.entry_tags import EntryTags, process_of
from exchange.audit.log_invariants import LogInvariants, makes_version
from exchange.audit.note import NoteKey, open_note, parse_checkpoint
from exchange.audit.postgres import columns_of
from exchange.audit.row_notes import StoredRow
from exchange.audit.verify import EntryObserver, Signing, VerificationReport, verify_files
from registry.database.errors import unavailable
from schemas.access import Action
from schemas.audit import RESTORED, AuditEntry, from_leaf
from schemas.errors import InvalidError
from schemas.merkle import leaf_hash

__all__ = ["ForeignObjects", "GrantRow", "GrantRows", "QuotaRows", "TaggedRows", "verify_database"]


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A row of a grant as the database has it.

    Attributes:
        id: of the grant.
        version: that the row states.
        hash: SHA-256 (hexadecimal) computed from what the row says now; empty for one that cannot be read.
        differing: columns beside the text that say something else than the text.
        is_current: of the table of current versions; False in that of all versions.
    """

    id: str
    version: int
    hash: str
    differing: tuple[str, ...] = ()
    is_current: bool = True


GrantRows: TypeAlias = Callable[[sa.Connection], Iterable[GrantRow]]
"""Reads the grants' rows of both tables, in any order."""

ForeignObjects: TypeAlias = Callable[[sa.Connection], Iterable[str]]
"""Reads which objects of the database the pool did not make, a sentence for each."""

QuotaRows: TypeAlias = Callable[[sa.Connection], Iterable[tuple[str, date, int]]]
"""Reads the counts of quotas, in any order: grant, day of UTC+8, records released."""

TaggedRows: TypeAlias = Callable[[sa.Connection], Iterable[StoredRow]]
"""Reads every row of every tagged table, in any order."""

_STREAM = 2_000
_EPOCH = date(1970, 1, 1).toordinal()

_ROWS = sa.text("""
SELECT e.leaf_index, e.leaf, e.leaf_hash,
       CAST(e.id AS text) AS id, e.at, e.action, e.decision, e.actor_department, e.resource, e.grant_id, e.purpose,
       e.case_number, e.actor, e.reason, r.lane, r.sequence, r.root, r.runs, r.leaf_hash AS receipt_hash
FROM audit_entry AS e LEFT JOIN audit_receipt AS r ON r.entry_id = e.id
WHERE e.leaf_index IS NOT NULL ORDER BY e.leaf_index
""")
_WAITING = sa.text("""
SELECT leaf_index, leaf, leaf_hash, CAST(id AS text) AS id, tag, refused FROM audit_entry
WHERE leaf_index IS NULL ORDER BY seq
""")
_PROCESSES = sa.text("SELECT process, role, tag FROM audit_process")
_LOST_RECEIPTS = sa.text("""
SELECT r.lane, r.sequence FROM audit_receipt AS r
WHERE NOT EXISTS (SELECT FROM audit_entry AS e WHERE e.id = r.entry_id) ORDER BY r.lane, r.sequence LIMIT 1000
""")
_SIGNING = sa.text("""
WITH latest AS (SELECT coalesce(max(size), 0) AS size FROM audit_checkpoint),
unsigned AS (
  SELECT at FROM audit_entry WHERE leaf_index IS NULL AND NOT refused
  UNION ALL SELECT at FROM audit_entry WHERE leaf_index >= (SELECT size FROM latest)
)
SELECT (SELECT count(*) FROM unsigned) AS unsigned,
  (SELECT now - min(at) FROM unsigned) AS oldest,
  (SELECT now - max(at) FROM audit_checkpoint) AS signed
FROM (SELECT CAST(extract(epoch FROM now()) * 1000000 AS bigint) AS now) AS clock
""")
_CHECKPOINTS = sa.text("SELECT size, root, note FROM audit_checkpoint WHERE size >= :first ORDER BY size")


def verify_database(
    engine: sa.Engine,
    folder: Path,
    *,
    key: NoteKey | Sequence[NoteKey],
    since: str | None = None,
    grants: GrantRows | None = None,
    quotas: QuotaRows | None = None,
    tagged: TaggedRows | None = None,
    entry_tags: EntryTags | None = None,
    objects: ForeignObjects | None = None,
    unsigned_seconds: float = 60.0,
) -> VerificationReport:
    """Verify files and database; the module's docstring lists the kinds of findings.

    Reads one snapshot, so that a log that grows meanwhile is no finding.

    Args:
        engine: of the pool's database.
        folder: the log's folder.
        key: what checkpoints are signed with.
        since: text of a checkpoint that was kept outside the pool.
        grants: reads the grants' rows.
        quotas: reads the counts of the days.
        tagged: reads the rows of tagged tables.
        entry_tags: with the keys of all roles, to check the entries that are not signed yet.
        objects: reads what is in the database beside the pool's tables.
        unsigned_seconds: that an entry may wait for its signature; one that waits longer is no finding, and the report
            says so (`VerificationReport.signing`).

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE.
    """
    report = VerificationReport()
    keys = [key] if isinstance(key, NoteKey) else list(key)
    try:
        with engine.connect() as connection, ExitStack() as cursors:
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            invariants = LogInvariants(report.add)
            rows = _Rows(connection, cursors, report, keys, invariants, entry_tags)
            verify_files(folder, key=keys, since=since, observer=rows, invariants=invariants, report=report)
            ahead = rows.finish()
            report.signing = _signing(connection, unsigned_seconds)
            for lane, sequence in connection.execute(_LOST_RECEIPTS):
                report.add("receipt.extra", None, f"the receipt of batch {sequence} of {lane} belongs to no entry")
            if quotas is not None:
                _check_quotas(quotas(connection), invariants, report)
            if grants is not None:
                _check_grants(grants(connection), invariants, ahead, report)
            for sentence in () if objects is None else objects(connection):
                report.add("database.object", None, sentence)
            if tagged is not None:
                for kind, message in invariants.rows.compare(tagged(connection)):
                    report.add(kind, None, message)
    except sa_exc.SQLAlchemyError as error:
        raise unavailable(error) from error
    return report


class _Rows(EntryObserver):
    """Reads rows beside the entries, in the same order."""

    def __init__(
        self,
        connection: sa.Connection,
        cursors: ExitStack,
        report: VerificationReport,
        keys: Sequence[NoteKey],
        invariants: LogInvariants,
        tags: EntryTags | None,
    ) -> None:
        self._invariants = invariants
        self._tags = tags
        self._connection = connection
        self._cursors = cursors
        self._report = report
        self._keys = keys
        self._rows: Iterator[Any] = iter(())
        self._row: Any = None
        self._checkpoint: Any = None
        self._without_receipt: dict[tuple[str, int], int] = {}

    @override
    def start(self) -> None:
        # The first query takes the snapshot, which holds all that the files hold.
        self._rows = self._stream(_ROWS)
        self._row = next(self._rows, None)

    @override
    def observe(self, index: int, hashes: Sequence[bytes]) -> None:
        while self._row is not None and self._row.leaf_index < index:
            self._report.add("row.extra", self._row.leaf_index, "two rows have this index")
            self._row = next(self._rows, None)
        if self._row is None or self._row.leaf_index != index:
            self._report.add("row.missing", index, "the leaf has no row in the database")
            return
        row, self._row = self._row, next(self._rows, None)
        stored = bytes(row.leaf)
        if leaf_hash(stored) not in hashes or bytes(row.leaf_hash) != leaf_hash(stored):
            self._report.add("row.changed", index, "the row's bytes are not the leaf's")
            return
        try:
            entry = from_leaf(stored)
        except InvalidError:
            return  # the invariants report it
        wrong = [name for name, value in columns_of(entry).items() if getattr(row, name) != value]
        if wrong:
            self._report.add("row.column", index, f"the columns {', '.join(wrong)} say something else than the leaf")
        if row.lane is not None or entry.action == Action.PUBLISH:
            self._check_receipt(index, entry, row)
        elif entry.action == RESTORED:
            self._set_back(entry)

    @override
    def sizes(self) -> Iterator[int]:
        for row in self._stream(_CHECKPOINTS, 0):
            self._checkpoint = row
            yield row.size
        self._checkpoint = None

    @override
    def size_reached(self, size: int, roots: Sequence[bytes]) -> None:
        row = self._checkpoint  # of this size: the next one is read only after this call
        if row is None or row.size != size:
            return
        self._check_checkpoint(row, roots)

    def _check_checkpoint(self, row: Any, roots: Sequence[bytes] | None) -> None:
        try:
            checkpoint = parse_checkpoint(open_note(row.note, self._keys))
            holds = (checkpoint.size, checkpoint.root) == (row.size, bytes(row.root))
        except InvalidError:
            holds = False
        if not holds or (roots is not None and bytes(row.root) not in roots):
            self._report.add("checkpoint.row", None, f"the stored checkpoint of size {row.size} is not one of this log")

    def _set_back(self, entry: AuditEntry) -> None:
        """Forget the batches that a restore lost: their receipts were lost with the records."""
        data: Any = entry.data
        for lane, has, _ in data.get("lanes", ()):
            for batch in [one for one in self._without_receipt if one[0] == lane and one[1] > has]:
                del self._without_receipt[batch]

    def finish(self) -> dict[tuple[str, int], str]:
        """Check the rows that the files do not hold yet; return the grant versions that their entries make."""
        for (lane, sequence), index in self._without_receipt.items():
            self._report.add("receipt.missing", index, f"batch {sequence} of {lane} has no receipt")
        size = self._report.checkpoint.size if self._report.checkpoint else 0
        ahead: dict[tuple[str, int], str] = {}
        while self._row is not None:
            if self._row.leaf_index < size:
                self._report.add("row.extra", self._row.leaf_index, "two rows have this index")
            else:
                self._check_ahead(self._row, ahead)
            self._row = next(self._rows, None)
        for row in self._stream(_CHECKPOINTS, size + 1):
            self._check_checkpoint(row, None)
        roles: dict[str, str] = {}
        if self._tags is not None:
            processes = self._connection.execute(_PROCESSES)
            roles = {row.process: row.role for row in processes if self._tags.is_registered(*_registration(row))}
        for row in self._stream(_WAITING):
            if self._is_written_by_the_pool(row, roles):
                self._check_ahead(row, ahead)
        return ahead

    def _is_written_by_the_pool(self, row: Any, roles: Mapping[str, str]) -> bool:
        """Report an entry without an index that no known process wrote, and one that is kept out of the log."""
        process = process_of(bytes(row.leaf))
        name = f"the entry {row.id} of the process {process[:100]!r}, which has no place in the log,"
        if self._tags is None:
            if row.refused:
                self._report.add("entry.refused", None, f"{name} was refused by the sequencer")
            return not row.refused
        holds = self._tags.holds(roles.get(process, ""), process, bytes(row.leaf_hash), row.tag)
        if not row.refused:
            if not holds:
                self._report.add("entry.forged", None, f"{name} has no tag of a known process")
            return holds
        holds = holds and leaf_hash(bytes(row.leaf)) == bytes(row.leaf_hash)
        if holds:
            self._report.add("entry.withheld", None, f"{name} is marked as refused, and its tag is valid")
        else:
            self._report.add("entry.refused", None, f"{name} was refused: it has no tag of a known process")
        return holds

    def _check_ahead(self, row: Any, ahead: dict[tuple[str, int], str]) -> None:
        leaf = bytes(row.leaf)
        if leaf_hash(leaf) != bytes(row.leaf_hash):
            self._report.add("row.waiting", row.leaf_index, "a row that waits has bytes that do not match its hash")
            return
        try:
            entry = from_leaf(leaf)
        except InvalidError as error:
            self._report.add("row.waiting", row.leaf_index, str(error))
            return
        if entry.decision != "allow" or "failed" in entry.data:
            return
        for broken in self._invariants.rows.read(entry.data):
            self._report.add("row.chain", row.leaf_index, broken)
        if entry.grant is not None and makes_version(entry.action):
            ahead[entry.grant.id, entry.grant.version] = entry.grant.hash

    def _stream(self, statement: sa.TextClause, first: int | None = None) -> Iterator[Any]:
        streaming = self._connection.execution_options(yield_per=_STREAM)
        values = {} if first is None else {"first": first}
        return iter(self._cursors.enter_context(streaming.execute(statement, values)))

    def _check_receipt(self, index: int, entry: AuditEntry, row: Any) -> None:
        data: Any = entry.data
        if entry.action != Action.PUBLISH or "failed" in data or entry.decision != "allow":
            if row.lane is not None:
                self._report.add("receipt.changed", index, "a receipt belongs to an entry that is no publication")
            return
        if row.lane is None:
            self._without_receipt[data["lane"], data["sequence"]] = index
            return
        runs = [[*row.runs[at : at + 3]] for at in range(0, len(row.runs), 3)]
        same = (
            (row.lane, row.sequence, bytes(row.root).hex(), runs)
            == (data["lane"], data["sequence"], data["root"], data["runs"])
        ) and bytes(row.receipt_hash) == bytes(row.leaf_hash)
        if not same:
            self._report.add(
                "receipt.changed", index, f"the receipt of batch {data['sequence']} of {data['lane']} says otherwise"
            )


def _signing(connection: sa.Connection, bound: float) -> Signing:
    row = connection.execute(_SIGNING).one()
    return Signing(
        unsigned=row.unsigned,
        oldest=max(0, row.oldest or 0) / 1e6,
        signed=None if row.signed is None else max(0, row.signed) / 1e6,
        bound=bound,
    )


def _registration(row: Any) -> tuple[str, str, bytes]:
    return row.role, row.process, bytes(row.tag)


def _check_quotas(rows: Iterable[tuple[str, date, int]], invariants: LogInvariants, report: VerificationReport) -> None:
    """Compare the counts of quotas with the entries of the releases: a lower one let more out than the quota."""
    stored = {(grant_id, day.toordinal() - _EPOCH): count for grant_id, day, count in rows}
    for (grant_id, day), released in invariants.released_by_day().items():
        count = stored.get((grant_id, day), 0)
        if count < released:
            on = date.fromordinal(_EPOCH + day)
            report.add("quota.lowered", None, f"grant {grant_id}: entries released {released} on {on}, counted {count}")


def _check_grants(
    rows: Iterable[GrantRow],
    invariants: LogInvariants,
    ahead: dict[tuple[str, int], str],
    report: VerificationReport,
) -> None:
    """Compare grants with the entries that made them, those that the files do not hold yet among them."""
    made = {**ahead, **invariants.grant_versions()}
    latest = dict(sorted(made))
    gone_grants, gone_versions = dict(latest), set(made)
    for row in rows:
        if row.is_current:
            gone_grants.pop(row.id, None)
        else:
            gone_versions.discard((row.id, row.version))
        name = f"the row of grant {row.id} version {row.version}"
        digest = made.get((row.id, row.version))
        if digest != row.hash:
            why = "no entry made this version" if digest is None else "the entry that made it names another hash"
            report.add("grant.forged", None, f"{name}: {why}")
            continue
        if row.differing:
            columns = ", ".join(row.differing)
            report.add("grant.column", None, f"{name}: the columns {columns} say something else than its text")
        if row.is_current and latest[row.id] > row.version:
            last = latest[row.id]
            report.add(
                "grant.old", None, f"the row of grant {row.id} is version {row.version}; entries made version {last}"
            )
    for grant_id in gone_grants:
        report.add("grant.gone", None, f"grant {grant_id}, which an entry made, is not there")
    for grant_id, version in sorted(gone_versions):
        report.add("grant.gone", None, f"version {version} of grant {grant_id}, which an entry made, is not there")
