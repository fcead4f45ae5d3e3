"""Taking a classification back needs two people: one who asks, another who approves.

    asked ──approve──▶ approved ──register──▶ used
      └────refuse────▶ refused

Registering a version that lowers a level, drops `personal` or `sensitive`, or shows more than a mask did, ends in 409
(`registry.governance.classification.refusal`). Whoever has a reason asks for it, with the very schema. What is
approved is narrow:

    one schema    known by its shape, the digest of all that it says; another text that says the same may be registered
    one subject   and once: a second lowering is asked for again
    what was seen the findings of the day it was asked; if another version came in between and more would be taken back,
                  the approval does not cover it
    30 days       then it is asked for again

Who asked does not decide, whatever the role, and deciding is an act of a person. Who may ask and decide at all, the
gate knows (`exchange.access.decision.roles`). Every step is an entry of the audit log, and none is ever deleted here.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from typing_extensions import override

from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.access import Actor, ActorKind
from schemas.canonical import Json
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = ["VALID", "Approval", "ApprovalState", "ApprovalStore", "Approvals", "MemoryApprovals"]

VALID = timedelta(days=30)
"""How long an approval may be used."""
_MOST_WORDS = 2_000  # characters of a reason


class ApprovalState(StrEnum):
    """Where a request stands."""

    ASKED = "asked"
    APPROVED = "approved"
    REFUSED = "refused"
    USED = "used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One request, and what became of it.

    Attributes:
        id: UUIDv7. subject: under which the schema would be registered.
        shape: 32 bytes, the digest of what the schema says. text: the schema as it was asked for.
        findings: what it takes back, in words.
        because: the requester's reason. asked_by: account name. asked_at: aware.
        state: see ApprovalState.
        decided_by, decided_at, answer: account name, time and words of who decided; "" and None before.
    """

    id: str
    subject: str
    shape: bytes
    text: str
    findings: tuple[str, ...]
    because: str
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
            "reason": self.because,
            "askedBy": self.asked_by,
            "askedAt": self.asked_at.isoformat(),
            "state": self.state.value,
            "decidedBy": self.decided_by,
            "decidedAt": None if self.decided_at is None else self.decided_at.isoformat(),
            "answer": self.answer,
        }


class ApprovalStore(Protocol):
    """Stores requests."""

    def add(self, work: UnitOfWork, approval: Approval) -> None:
        """Store a new request."""
        ...

    def move(self, work: UnitOfWork, approval: Approval, before: ApprovalState) -> bool:
        """Store what became of a request if it is still in the state *before*; tell whether it was."""
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
        shape: bytes | None = None,
    ) -> list[Approval]:
        """Return requests by subject, state and shape, oldest first; None does not limit."""
        ...


class Approvals:
    """Takes requests and decisions, and spends approvals.

    Args:
        store: where they are kept.
        clock: gives the time, aware.
        new_id: gives a new UUIDv7.
    """

    def __init__(self, store: ApprovalStore, *, clock: Callable[[], datetime], new_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    def ask(
        self,
        work: UnitOfWork,
        actor: Actor,
        *,
        subject: str,
        shape: bytes,
        text: str,
        findings: Sequence[str],
        because: str,
    ) -> Approval:
        """Ask that a schema may be registered although it takes something back.

        Args:
            work: the transaction.
            actor: who asks.
            subject: under which it would be registered.
            shape: digest of what the schema says, 32 bytes.
            text: the schema.
            findings: what it takes back (`registry.governance.classification.taken_back`).
            because: why, in words.

        Raises:
            InvalidError: REQUEST_INVALID, when nothing is taken back, or no reason is given.
            ConflictError: ALREADY_EXISTS, when the same is asked or approved already; `details["approval"]` names it.
        """
        if not findings:
            raise InvalidError(
                Reason.REQUEST_INVALID, "the schema takes nothing back; register it, no approval is needed"
            )
        for known in self._store.find(work, subject=subject, shape=shape):
            if known.state is ApprovalState.ASKED or self._covers(known, findings):
                raise ConflictError(
                    Reason.ALREADY_EXISTS,
                    f"this is {known.state} already, as {known.id}; "
                    + ("register it" if known.state is ApprovalState.APPROVED else "wait for the decision"),
                    details={"approval": known.id},
                )
        approval = Approval(
            id=self._new_id(),
            subject=subject,
            shape=shape,
            text=text,
            findings=tuple(findings),
            because=_words(because, required=True),
            asked_by=actor.id,
            asked_at=self._clock(),
        )
        self._store.add(work, approval)
        return approval

    def decide(self, work: UnitOfWork, actor: Actor, approval_id: str, *, approve: bool, answer: str = "") -> Approval:
        """Approve or refuse a request.

        Raises:
            InvalidError: NOT_FOUND; REQUEST_INVALID, a refusal without words.
            RefusedError: SAME_PERSON, who asked does not decide; ROLE_FORBIDDEN, a program does not either.
            ConflictError: TRANSITION_NOT_ALLOWED, it is decided already.
        """
        approval = self.get(work, approval_id)
        if actor.kind is not ActorKind.HUMAN:
            raise RefusedError(Reason.ROLE_FORBIDDEN, "to decide is an act of a person; a program may not")
        if actor.id == approval.asked_by:
            raise RefusedError(Reason.SAME_PERSON, "who asked does not decide; another person must")
        decided = replace(
            approval,
            state=ApprovalState.APPROVED if approve else ApprovalState.REFUSED,
            decided_by=actor.id,
            decided_at=self._clock(),
            answer=_words(answer, required=not approve),
        )
        if not self._store.move(work, decided, ApprovalState.ASKED):
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the request is {self.get(work, approval_id).state} already; what is decided stays decided",
            )
        return decided

    def spend(self, work: UnitOfWork, subject: str, shape: bytes, findings: Sequence[str]) -> bool:
        """Use up an approval that covers a registration.

        Args:
            work: the registration's transaction.
            subject: under which it is registered.
            shape: digest of what the schema says.
            findings: all that it takes back now.

        Returns:
            Whether there was one.
        """
        for approval in self._store.find(work, subject=subject, state=ApprovalState.APPROVED, shape=shape):
            used = replace(approval, state=ApprovalState.USED)
            if self._covers(approval, findings) and self._store.move(work, used, ApprovalState.APPROVED):
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

    def find(self, reader: Reader, *, subject: str | None = None, state: ApprovalState | None = None) -> list[Approval]:
        """Return requests, oldest first; None does not limit."""
        return self._store.find(reader, subject=subject, state=state)

    def _covers(self, approval: Approval, findings: Sequence[str]) -> bool:
        if approval.state is not ApprovalState.APPROVED or approval.decided_at is None:
            return False
        return set(findings) <= set(approval.findings) and self._clock() < approval.decided_at + VALID


class MemoryApprovals(ApprovalStore):
    """In-memory adapter: approvals for tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Approval] = {}

    @override
    def add(self, work: UnitOfWork, approval: Approval) -> None:
        with self._lock:
            on_rollback(work, lambda: self._held.__delitem__(approval.id))
            self._held[approval.id] = approval

    @override
    def move(self, work: UnitOfWork, approval: Approval, before: ApprovalState) -> bool:
        with self._lock:
            held = self._held.get(approval.id)
            if held is None or held.state is not before:
                return False
            on_rollback(work, lambda: self._restore(held))
            self._held[approval.id] = approval
            return True

    def _restore(self, approval: Approval) -> None:
        with self._lock:
            self._held[approval.id] = approval

    @override
    def get(self, reader: Reader, approval_id: str) -> Approval | None:
        with self._lock:
            return self._held.get(approval_id)

    @override
    def find(
        self,
        reader: Reader,
        *,
        subject: str | None = None,
        state: ApprovalState | None = None,
        shape: bytes | None = None,
    ) -> list[Approval]:
        with self._lock:
            return [
                one
                for _, one in sorted(self._held.items())
                if subject in (None, one.subject) and state in (None, one.state) and shape in (None, one.shape)
            ]


def _words(text: str, *, required: bool) -> str:
    words = text.strip()
    if (required and not words) or len(words) > _MOST_WORDS:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a reason of {len(words)} characters; expected 1 to {_MOST_WORDS}, in words that others can weigh",
        )
    return words
