"""Approvals to lower a classification: one person requests it, another approves (four-eyes principle).

    asked ──approve──▶ approved ──register──▶ used
      └────refuse────▶ refused

Registering a version that lowers a level, drops `personal` or `sensitive`, or shows more than a mask did, ends in 409
(`registry.governance.classification.lowered_error`), unless a request with that schema was approved. An approval is
narrow:

    one schema    identified by its fingerprint, so that another text with the same meaning may be registered
    one subject   and once: a second lowering needs another approval
    its findings  those of the day of the request; if another version was registered since, and more would be lowered,
                  the approval does not cover it
    30 days       then a new request is needed

The requester does not decide, under whatever account or role, and only a person decides
(`registry.governance.two_persons`). `exchange.access.decision.roles` defines who may request and decide. Every step is
an entry of the audit log, and none is ever deleted here.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeAlias

from typing_extensions import override

from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Actor, ActorKind
from schemas.canonical import Json
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = ["VALID", "Approval", "ApprovalState", "ApprovalStore", "Approvals", "MemoryApprovals", "Persons"]

VALID = timedelta(days=30)
"""How long an approval may be used."""
Persons: TypeAlias = Callable[[Reader, Sequence[str]], Mapping[str, str]]
_MAX_REASON = 2_000  # characters


class ApprovalState(StrEnum):
    """State of a request."""

    ASKED = "asked"
    APPROVED = "approved"
    REFUSED = "refused"
    USED = "used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Request and its decision.

    Attributes:
        id: UUIDv7. subject: under which the schema would be registered.
        fingerprint: of the schema (`registry.subjects.fingerprint`). text: the schema as submitted with the request.
        findings: what it lowers, as texts.
        reason: the requester's. asked_by: account name. asked_at: aware.
        state: see ApprovalState.
        decided_by, decided_at, answer: account name, time and reason of the decision; "" and None before.
    """

    id: str
    subject: str
    fingerprint: bytes
    text: str
    findings: tuple[str, ...]
    reason: str
    asked_by: str
    asked_at: datetime
    state: ApprovalState = ApprovalState.ASKED
    decided_by: str = ""
    decided_at: datetime | None = None
    answer: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {
            "id": self.id,
            "subject": self.subject,
            "schema": self.text,
            "findings": list(self.findings),
            "reason": self.reason,
            "askedBy": self.asked_by,
            "askedAt": self.asked_at.isoformat(),
            "state": self.state.value,
            "decidedBy": self.decided_by,
            "decidedAt": None if self.decided_at is None else self.decided_at.isoformat(),
            "answer": self.answer,
        }


class ApprovalStore(Protocol):
    """Port: stores requests."""

    def add(self, work: UnitOfWork, approval: Approval) -> None:
        """Store a new request."""
        ...

    def transition(self, work: UnitOfWork, approval: Approval, expected: ApprovalState) -> bool:
        """Store a request in its new state if it is still in the *expected* one; return whether it was."""
        ...

    def get(self, reader: Reader, approval_id: str) -> Approval | None:
        """Return a request."""
        ...

    def find(
        self,
        reader: Reader,
        *,
        subject: str | None = None,
        state: ApprovalState | None = None,
        fingerprint: bytes | None = None,
    ) -> list[Approval]:
        """Return requests by subject, state and fingerprint, oldest first; None does not restrict."""
        ...

    def listed(
        self, reader: Reader, *, subject: str | None = None, state: ApprovalState | None = None
    ) -> list[Approval | DamagedRow]:
        """Return requests as `find` does, for a list: a row that the registry did not write is named."""
        ...


class Approvals:
    """Service of requests, decisions and the use of approvals.

    Args:
        store: of requests.
        clock: returns the time, aware.
        new_id: returns a new UUIDv7.
        persons: returns the staff number of each account that names one, by account name.
    """

    def __init__(
        self, store: ApprovalStore, *, clock: Callable[[], datetime], new_id: Callable[[], str], persons: Persons
    ) -> None:
        self._store = store
        self._persons = persons
        self._clock = clock
        self._new_id = new_id

    def ask(
        self,
        work: UnitOfWork,
        actor: Actor,
        *,
        subject: str,
        fingerprint: bytes,
        text: str,
        findings: Sequence[str],
        reason: str,
    ) -> Approval:
        """Request that a schema may be registered although it lowers a classification.

        Args:
            work: the transaction.
            actor: the requester.
            subject: under which it would be registered.
            fingerprint: of the schema, 32 bytes.
            text: the schema.
            findings: what it lowers (`registry.governance.classification.lowered_since`).
            reason: the requester's.

        Raises:
            InvalidError: REQUEST_INVALID, when nothing is lowered, or no reason is given.
            ConflictError: ALREADY_EXISTS, when the same is requested or approved already; `details["approval"]` has its
                id.
        """
        if not findings:
            raise InvalidError(
                Reason.REQUEST_INVALID, "the schema lowers no classification; register it, no approval is needed"
            )
        for existing in self._store.find(work, subject=subject, fingerprint=fingerprint):
            if existing.state is ApprovalState.ASKED or self._covers(existing, findings):
                raise ConflictError(
                    Reason.ALREADY_EXISTS,
                    f"this is {existing.state} already, as {existing.id}; "
                    + ("register it" if existing.state is ApprovalState.APPROVED else "wait for the decision"),
                    details={"approval": existing.id},
                )
        approval = Approval(
            id=self._new_id(),
            subject=subject,
            fingerprint=fingerprint,
            text=text,
            findings=tuple(findings),
            reason=_checked_reason(reason, required=True),
            asked_by=actor.id,
            asked_at=self._clock(),
        )
        self._store.add(work, approval)
        return approval

    def decide(self, work: UnitOfWork, actor: Actor, approval_id: str, *, approve: bool, answer: str = "") -> Approval:
        """Approve or refuse a request.

        Raises:
            InvalidError: NOT_FOUND; REQUEST_INVALID, a refusal without a reason.
            RefusedError: SAME_PERSON, the actor is the requester; PERSON_UNKNOWN; ROLE_FORBIDDEN, the actor is a
                program.
            ConflictError: TRANSITION_NOT_ALLOWED, it is decided already.
        """
        approval = self.get(work, approval_id)
        if actor.kind is not ActorKind.HUMAN:
            raise RefusedError(Reason.ROLE_FORBIDDEN, "to decide is an act of a person; a program may not")
        accounts = (approval.asked_by, actor.id)
        refusal = refuse_second_signature(*accounts, self._persons(work, accounts))
        if refusal is not None:
            raise RefusedError(refusal.reason, refusal.explanation)
        decided = replace(
            approval,
            state=ApprovalState.APPROVED if approve else ApprovalState.REFUSED,
            decided_by=actor.id,
            decided_at=self._clock(),
            answer=_checked_reason(answer, required=not approve),
        )
        if not self._store.transition(work, decided, ApprovalState.ASKED):
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the request is {self.get(work, approval_id).state} already; what is decided stays decided",
            )
        return decided

    def consume(self, work: UnitOfWork, subject: str, fingerprint: bytes, findings: Sequence[str]) -> bool:
        """Mark an approval that covers a registration as used.

        Args:
            work: the registration's transaction.
            subject: under which it is registered.
            fingerprint: of the schema.
            findings: everything that it lowers now.

        Returns:
            Whether there was one.
        """
        for approval in self._store.find(work, subject=subject, state=ApprovalState.APPROVED, fingerprint=fingerprint):
            used = replace(approval, state=ApprovalState.USED)
            if self._covers(approval, findings) and self._store.transition(work, used, ApprovalState.APPROVED):
                return True
        return False

    def get(self, reader: Reader, approval_id: str) -> Approval:
        """Return a request.

        Raises:
            InvalidError: NOT_FOUND.
        """
        found = self._store.get(reader, approval_id)
        if found is None:
            raise InvalidError(Reason.NOT_FOUND, f"there is no request {approval_id[:64]!r}; list them first")
        return found

    def find(
        self, reader: Reader, *, subject: str | None = None, state: ApprovalState | None = None
    ) -> list[Approval | DamagedRow]:
        """Return requests, oldest first; None does not restrict. A row that the registry did not write is named."""
        return self._store.listed(reader, subject=subject, state=state)

    def _covers(self, approval: Approval, findings: Sequence[str]) -> bool:
        if approval.state is not ApprovalState.APPROVED or approval.decided_at is None:
            return False
        return set(findings) <= set(approval.findings) and self._clock() < approval.decided_at + VALID


class MemoryApprovals(ApprovalStore):
    """In-memory adapter, for tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._approvals: dict[str, Approval] = {}

    @override
    def add(self, work: UnitOfWork, approval: Approval) -> None:
        with self._lock:
            on_rollback(work, lambda: self._approvals.__delitem__(approval.id))
            self._approvals[approval.id] = approval

    @override
    def transition(self, work: UnitOfWork, approval: Approval, expected: ApprovalState) -> bool:
        with self._lock:
            stored = self._approvals.get(approval.id)
            if stored is None or stored.state is not expected:
                return False
            on_rollback(work, lambda: self._restore(stored))
            self._approvals[approval.id] = approval
            return True

    def _restore(self, approval: Approval) -> None:
        with self._lock:
            self._approvals[approval.id] = approval

    @override
    def get(self, reader: Reader, approval_id: str) -> Approval | None:
        with self._lock:
            return self._approvals.get(approval_id)

    @override
    def listed(
        self, reader: Reader, *, subject: str | None = None, state: ApprovalState | None = None
    ) -> list[Approval | DamagedRow]:
        return [*self.find(reader, subject=subject, state=state)]

    @override
    def find(
        self,
        reader: Reader,
        *,
        subject: str | None = None,
        state: ApprovalState | None = None,
        fingerprint: bytes | None = None,
    ) -> list[Approval]:
        with self._lock:
            return [
                one
                for _, one in sorted(self._approvals.items())
                if subject in (None, one.subject)
                and state in (None, one.state)
                and fingerprint in (None, one.fingerprint)
            ]


def _checked_reason(text: str, *, required: bool) -> str:
    reason = text.strip()
    if (required and not reason) or len(reason) > _MAX_REASON:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a reason of {len(reason)} characters; expected 1 to {_MAX_REASON}, in words that others can weigh",
        )
    return reason
