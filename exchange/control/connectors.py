"""Connector service: takes the reports of connectors, and lists connectors and invitations.

What a connector states of itself and what the pool knows of it stand beside each other: a report is the department's
statement, last batches and draws are the pool's own facts. A report is admitted without an entry (a connector sends
1,440 a day); a refused one is recorded as every denial.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from exchange import metrics
from exchange.access.decision.roles import decide_control
from exchange.audit.store import EntryQuery, EntryStore, ReceiptStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.identity.connectors.status import INTERVAL, ConnectorStatus, reason_of, status_of
from exchange.identity.connectors.store import (
    NO_PLACE,
    ConnectorKey,
    ConnectorStore,
    EnrolledName,
    StoredReport,
    parse_invitation_cursor,
)
from exchange.identity.store import Certificate, IdentityStore, OneTimeToken, SigningKey
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, Reader
from schemas.access import Action, Actor
from schemas.connector_report import (
    ConnectorReport,
    Direction,
    ReconciliationTotals,
    ReportAnswer,
    check_report,
    check_totals,
)
from schemas.errors import InvalidError, Reason
from schemas.identifiers import time_of_uuid7
from schemas.record import Receipt

__all__ = ["Batch", "ConnectorDetails", "ConnectorService", "Draw", "ListedConnector"]

_CERTIFICATE_SOON: Final = timedelta(days=7)  # a connector that runs renews its certificate at ten
_DRAWS: Final = 20  # grants of one connector whose last draw is looked up


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The last batch of a lane, by its receipt; `at` in microseconds UTC."""

    topic: str
    sequence: int
    at: int
    entry: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The last release under a grant to the connector's department; `at` in microseconds UTC."""

    grant: str
    at: int
    records: int
    entry: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedConnector:
    """A connector of a list.

    Attributes:
        certificate: the newest. certificates: how many it has had.
        status, reason: see `exchange.identity.connectors.status`.
        report: its last one; None = it has never reported.
        batches: the last one of each of its lanes, newest first.
    """

    certificate: Certificate
    certificates: int
    status: ConnectorStatus
    reason: str
    report: StoredReport | None
    batches: Sequence[Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorDetails:
    """A connector alone: as listed, all its certificates and signing keys, and its last draws."""

    listed: ListedConnector
    certificates: Sequence[Certificate]
    signing_keys: Sequence[SigningKey]
    draws: Sequence[Draw]


class ConnectorService:
    """Reports and lists of connectors.

    Args:
        database: of the pool.
        enforcer: enforces and records.
        attributes: standing of actors.
        identities: certificates and keys.
        store: lists and reports.
        receipts: last batches.
        entries: last draws.
        program: name and version of the pool.
        now: aware.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        identities: IdentityStore,
        store: ConnectorStore,
        receipts: ReceiptStore,
        entries: EntryStore,
        program: str,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._identities = identities
        self._store = store
        self._receipts = receipts
        self._entries = entries
        self._program = program
        self._now = now

    def report(self, actor: Actor, call: RequestContext, report: ConnectorReport) -> ReportAnswer:
        """Store a connector's report in place of the one before.

        Raises:
            RefusedError: the actor is no connector, or its certificate or department has ended.
            InvalidError: REQUEST_INVALID, see `check_report`; PERSONAL_NUMBER, a name holds one.
        """
        decision = decide_control(
            actor,
            Action.CONNECTOR_REPORT,
            standing=self._attributes.standing(actor),
            department=actor.department,
            connector=actor.id,
        )
        self._enforcer.admit(actor, Action.CONNECTOR_REPORT, actor.id, call, decision)
        check_report(report)
        for text in (report.program, *(one.name for one in report.streams if not _is_uuid(one.name))):
            finding = self._enforcer.screen.text("report", text)
            if finding is not None:
                self._enforcer.refuse_text(actor, Action.CONNECTOR_REPORT, call, finding)
        now = self._now()
        with self._database.begin() as work:
            self._store.put_report(work, (actor.department, actor.id), now, report)
            certificate = self._identities.certificate(work, actor.certificate)
        notices = []
        if certificate is not None and certificate.not_after - now < _CERTIFICATE_SOON:
            notices.append("certificate_expires_soon")
        if _version(report.program) < _version(self._program):
            notices.append("program_outdated")
        return ReportAnswer(next=int(INTERVAL.total_seconds()), latest_program=self._program, notices=notices)

    def reconciled(self, actor: Actor, call: RequestContext, totals: ReconciliationTotals) -> str:
        """Record what a connector states of a reconciliation; return the id of the entry. Nothing is decided by it.

        Raises:
            RefusedError: the actor is no connector, or its certificate or department has ended.
            InvalidError: REQUEST_INVALID, see `check_totals`; PERSONAL_NUMBER, the topic holds one.
        """
        decision = decide_control(
            actor,
            Action.CONNECTOR_RECONCILE,
            standing=self._attributes.standing(actor),
            department=actor.department,
            connector=actor.id,
        )
        self._enforcer.admit(actor, Action.CONNECTOR_RECONCILE, actor.id, call, decision)
        check_totals(totals)
        finding = self._enforcer.screen.text("stream", totals.stream) if not _is_uuid(totals.stream) else None
        if finding is not None:
            self._enforcer.refuse_text(actor, Action.CONNECTOR_RECONCILE, call, finding)
        with self._enforcer.act(actor, Action.CONNECTOR_RECONCILE, totals.stream, call, decision) as (_, act):
            act.note(
                direction=totals.direction.value,
                sequence=totals.sequence,
                ranges=[[one.range, one.department, one.pool, one.equal] for one in totals.ranges],
                set_aside=totals.set_aside,
                equal=totals.equal,
            )
            return act.entry_id

    def measure_unheard(self) -> None:
        """Set the metric of connectors that have not reported for three intervals."""
        now = self._now()
        with self._database.read() as reader:
            found = self._store.unheard(reader, since=now - 3 * INTERVAL, now=now)
        metrics.CONNECTORS_UNHEARD.clear()
        for department, count in found.items():
            metrics.CONNECTORS_UNHEARD.labels(department).set(count)

    def connectors(
        self, actor: Actor, call: RequestContext, *, after: ConnectorKey = NO_PLACE, limit: int = MAX_PAGE
    ) -> Sequence[ListedConnector | DamagedRow]:
        """List connectors after a department and a name: of the actor's department, or of all.

        Fewer than *limit* only at the end. It leaves no entry.

        Raises:
            RefusedError: the actor may see none.
        """
        department = self._admit(actor, call, "*")
        with self._database.read() as reader:
            found = self._store.connectors_page(reader, department=department, after=after, limit=limit)
            return self._listed(reader, found)

    def connector(self, actor: Actor, call: RequestContext, department: str, name: str) -> ConnectorDetails:
        """Return one connector. It leaves no entry.

        Raises:
            RefusedError: the actor may see none.
            InvalidError: NOT_FOUND, there is none, or none that the actor may see.
            CorruptError: ROW_FORGED, its certificates are rows that the pool did not write.
        """
        own = self._admit(actor, call, f"{department}/{name}")
        unknown = InvalidError(
            Reason.NOT_FOUND, f"there is no connector {name[:80]!r} of {department[:64]!r} that you may see; list them"
        )
        if own not in {None, department}:
            raise unknown
        with self._database.read() as reader:
            certificates = self._identities.certificates(reader, department, name)
            if not certificates:
                raise unknown
            newest = max(certificates, key=lambda one: (one.not_after, one.serial))
            [listed] = self._listed(reader, [EnrolledName(certificate=newest, certificates=len(certificates))])
            keys = self._identities.signing_keys(reader, department, name)
        if isinstance(listed, DamagedRow):
            raise unknown
        return ConnectorDetails(
            listed=listed,
            certificates=certificates,
            signing_keys=keys,
            draws=[*self._draws(department, listed.report)],
        )

    def invitations(
        self, actor: Actor, call: RequestContext, *, before: str = "", limit: int = MAX_PAGE
    ) -> Sequence[OneTimeToken | DamagedRow]:
        """List invitations, newest first, used and ended ones too: of the actor's department, or of all.

        Those behind a cursor; fewer than *limit* only at the end. It leaves no entry.

        Raises:
            RefusedError: the actor may see none.
            InvalidError: REQUEST_INVALID, the cursor is none.
        """
        department = self._admit(actor, call, "invitations")
        place = parse_invitation_cursor(before)
        with self._database.read() as reader:
            return self._store.invitations_page(reader, department=department, before=place, limit=limit)

    def _admit(self, actor: Actor, call: RequestContext, resource: str) -> str | None:
        """Admit a read of connectors; return the department to which it is limited, None = all."""
        department = actor.department or None
        decision = decide_control(
            actor, Action.CONNECTOR_READ, standing=self._attributes.standing(actor), department=department
        )
        self._enforcer.admit(actor, Action.CONNECTOR_READ, resource, call, decision)
        return department

    def _listed(self, reader: Reader, found: Sequence[EnrolledName | DamagedRow]) -> list[ListedConnector | DamagedRow]:
        keys = [_key(one.certificate) for one in found if isinstance(one, EnrolledName)]
        reports = self._store.reports(reader, keys)
        batches: dict[ConnectorKey, list[Batch]] = {}
        for receipt in sorted(self._receipts.lasts_of(reader, keys), key=lambda one: one.entry_id, reverse=True):
            lane = receipt.lane
            batches.setdefault((lane.department, lane.connector), []).append(_batch(receipt))
        now = self._now()

        def listed(one: EnrolledName) -> ListedConnector:
            key = _key(one.certificate)
            report = reports.get(key)
            return ListedConnector(
                certificate=one.certificate,
                certificates=one.certificates,
                status=status_of(report, now),
                reason=reason_of(report),
                report=report,
                batches=batches.get(key, ()),
            )

        return [one if isinstance(one, DamagedRow) else listed(one) for one in found]

    def _draws(self, department: str, stored: StoredReport | None) -> Sequence[Draw]:
        """Return the last releases to a department under the grants that its connector reports."""
        streams = stored.report.streams if stored is not None and stored.report is not None else ()
        grants = [one.name for one in streams if one.direction is Direction.SUBSCRIBE][:_DRAWS]
        return [draw for grant in grants if (draw := self._last_draw(department, grant)) is not None]

    def _last_draw(self, department: str, grant: str) -> Draw | None:
        # By the grant alone: its releases are all to one department, and that of another is not told.
        found = self._entries.find(EntryQuery(grant=grant, action=Action.FETCH, decision="allow", limit=1))
        entry = found[0].entry() if found else None
        if entry is None or (entry.get("actor") or {}).get("department") != department:
            return None
        return Draw(grant=grant, at=entry["at"], records=_records(entry), entry=entry["id"])


def _key(certificate: Certificate) -> ConnectorKey:
    return certificate.department, certificate.connector


def _batch(receipt: Receipt) -> Batch:
    return Batch(
        topic=str(receipt.lane.topic),
        sequence=receipt.sequence,
        at=time_of_uuid7(receipt.entry_id),
        entry=receipt.entry_id,
    )


def _records(entry: Mapping[str, Any]) -> int:
    data = entry.get("data") or {}
    return 0 if "failed" in data else int(data.get("count", 0))


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _version(program: str) -> tuple[int, ...]:
    """Return the numbers of a version, of the form name/1.2.3; none for another form, which is never older."""
    numbers = program.rpartition("/")[2].split(".")
    return tuple(map(int, numbers)) if all(one.isascii() and one.isdigit() for one in numbers) else (2**31,)
