"""Connector store: the port for lists of connectors and invitations and for their reports; in-memory adapter.

A connector is listed from its enrolment on, with its newest certificate. Its report is kept as its last one alone: one
row a connector, however often it reports. A report carries no authority: it is the department's statement about its own
program, shown in lists, and it decides nothing.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from typing_extensions import override

from exchange.identity.store import Certificate, MemoryIdentityStore, OneTimeToken
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.connector_report import ConnectorReport
from schemas.errors import InvalidError, Reason

__all__ = [
    "NO_PLACE",
    "ConnectorKey",
    "ConnectorStore",
    "EnrolledName",
    "InvitationPlace",
    "MemoryConnectorStore",
    "StoredReport",
    "invitation_cursor",
    "invitation_id",
    "parse_invitation_cursor",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(r"([a-j]{1,18})-([a-p]{64})")
# In letters: digits in a row could look like a number of a person, which a request must not hold.
_TO_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_TO_DIGITS = str.maketrans("abcdefghijklmnop", "0123456789abcdef")

ConnectorKey = tuple[str, str]
"""Department and connector."""

InvitationPlace = tuple[datetime, bytes]
"""When an invitation was made, and the digest of its secret."""

NO_PLACE: ConnectorKey = ("", "")
"""Before the first connector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledName:
    """A connector: its newest certificate (the one that ends last), and how many it has had."""

    certificate: Certificate
    certificates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """The last report of a connector.

    Attributes:
        received_at: on the pool's clock, aware.
        report: None where the stored one is of another form.
    """

    received_at: datetime
    report: ConnectorReport | None


def invitation_id(digest: bytes) -> str:
    """Return the name of an invitation in lists, 32 letters from the digest of its secret; nobody enrols with it."""
    return digest[:16].hex().translate(_TO_LETTERS)


def invitation_cursor(created_at: datetime, digest: bytes) -> str:
    """Return the cursor behind an invitation."""
    micros = (created_at - _EPOCH) // timedelta(microseconds=1)
    return f"{micros}-{digest.hex()}".translate(_TO_LETTERS)


def parse_invitation_cursor(text: str) -> InvitationPlace | None:
    """Return the place that a cursor names; None for an empty one.

    Raises:
        InvalidError: REQUEST_INVALID, it is none.
    """
    if not text:
        return None
    found = _CURSOR.fullmatch(text)
    try:
        if found is not None:
            micros, digest = (part.translate(_TO_DIGITS) for part in found.groups())
            return _EPOCH + timedelta(microseconds=int(micros)), bytes.fromhex(digest)
    except OverflowError:
        pass
    raise InvalidError(
        Reason.REQUEST_INVALID, 'after: got a cursor of another form; expected that of a `Link: rel="next"`'
    )


class ConnectorStore(Protocol):
    """Stores reports, and lists what is known of connectors. Every call joins the transaction given to it."""

    def connectors_page(
        self, reader: Reader, *, department: str | None, after: ConnectorKey, limit: int
    ) -> Sequence[EnrolledName | DamagedRow]:
        """Return connectors, of a department or of all, in the order of department and name.

        Those after *after*; fewer than *limit* only at the end. One whose newest certificate is a row that the pool
        did not write is only named.
        """
        ...

    def invitations_page(
        self, reader: Reader, *, department: str | None, before: InvitationPlace | None, limit: int
    ) -> Sequence[OneTimeToken | DamagedRow]:
        """Return invitations, of a department or of all, newest first, used and ended ones too.

        Those that are older than *before*; fewer than *limit* only at the end. A row that the pool did not write is
        only named.
        """
        ...

    def put_report(self, work: UnitOfWork, connector: ConnectorKey, at: datetime, report: ConnectorReport) -> None:
        """Store a connector's report in place of the one before."""
        ...

    def reports(self, reader: Reader, connectors: Collection[ConnectorKey]) -> Mapping[ConnectorKey, StoredReport]:
        """Return the last reports of connectors; those that never reported are left out."""
        ...

    def unheard(self, reader: Reader, *, since: datetime, now: datetime) -> Mapping[str, int]:
        """Count, by department, the connectors whose last report is older than *since* and did not say that they ended.

        Those without a certificate that is in force *now* are left out, and departments without any.
        """
        ...


class MemoryConnectorStore(ConnectorStore):
    """The in-memory adapter, over the in-memory store of identities."""

    def __init__(self, identities: MemoryIdentityStore) -> None:
        self._identities = identities
        self._reports: dict[ConnectorKey, StoredReport] = {}

    @override
    def connectors_page(
        self, reader: Reader, *, department: str | None, after: ConnectorKey, limit: int
    ) -> Sequence[EnrolledName | DamagedRow]:
        found: dict[ConnectorKey, list[Certificate]] = {}
        for one in self._identities.all_certificates():
            found.setdefault((one.department, one.connector), []).append(one)
        keys = [key for key in sorted(found) if key > after and department in {None, key[0]}]
        return [
            EnrolledName(
                certificate=max(found[key], key=lambda one: (one.not_after, one.serial)), certificates=len(found[key])
            )
            for key in keys[:limit]
        ]

    @override
    def invitations_page(
        self, reader: Reader, *, department: str | None, before: InvitationPlace | None, limit: int
    ) -> Sequence[OneTimeToken | DamagedRow]:
        ordered = sorted(self._identities.all_invitations(), key=lambda one: (one.created_at, one.digest), reverse=True)
        return [
            one
            for one in ordered
            if department in {None, one.department} and (before is None or (one.created_at, one.digest) < before)
        ][:limit]

    @override
    def put_report(self, work: UnitOfWork, connector: ConnectorKey, at: datetime, report: ConnectorReport) -> None:
        before = self._reports.get(connector)
        self._reports[connector] = StoredReport(received_at=at, report=report)

        def restore() -> None:
            if before is None:
                self._reports.pop(connector, None)
            else:
                self._reports[connector] = before

        on_rollback(work, restore)

    @override
    def reports(self, reader: Reader, connectors: Collection[ConnectorKey]) -> Mapping[ConnectorKey, StoredReport]:
        return {key: self._reports[key] for key in connectors if key in self._reports}

    @override
    def unheard(self, reader: Reader, *, since: datetime, now: datetime) -> Mapping[str, int]:
        in_force = {
            (one.department, one.connector)
            for one in self._identities.all_certificates()
            if one.revoked_at is None and one.not_after > now
        }
        return Counter(
            key[0]
            for key, stored in self._reports.items()
            if stored.received_at < since
            and key in in_force
            and not (stored.report is not None and stored.report.ended)
        )
