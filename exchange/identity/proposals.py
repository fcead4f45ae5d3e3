"""Proposals: what one person proposes in a department's name and another confirms; port and in-memory adapter.

What may approve or connect is made by two persons: an account, another token of an account, the person of an account
of an earlier version, the invitation of a connector. A proposal has no effect before it is confirmed, and ends after
seven days.

    open ──confirm──▶ confirmed      by another person (`registry.governance.two_persons`)
      └───refuse────▶ refused        also by who proposed it

Who confirms (`check_confirmation`):

    in a department   one of the two is an officer of the department itself; where it has none yet, two data authorities
    an invitation     an officer of the department confirms, and gets the enrolment token
    of the pool       two data authorities

A token's fingerprint is given by both, and compared: each has it from the account's holder, so that neither can put a
token of its own in its place. No list shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from typing_extensions import override

from exchange.identity.proposal_state import ProposalState
from exchange.identity.store import Account
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Actor, Deny, Role
from schemas.errors import Reason

__all__ = [
    "MAX_OPEN",
    "VALID",
    "MemoryProposals",
    "Proposal",
    "ProposalKind",
    "ProposalState",
    "ProposalStore",
    "check_confirmation",
    "has_officer",
]

VALID: Final = timedelta(days=7)
"""How long a proposal may be confirmed."""

MAX_OPEN: Final = 100
"""Open proposals in one department's name."""


class ProposalKind(StrEnum):
    """What is proposed."""

    ACCOUNT = "account"
    TOKEN = "token"  # noqa: S105 - another token for an account
    PERSON = "person"  # the person of an account of an earlier version
    INVITATION = "invitation"  # of a connector


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A proposal and its decision.

    Attributes:
        id: UUIDv7.
        kind: see ProposalKind.
        department: internal id, in whose name; empty for the pool's own accounts.
        subject: account name, or the connector's name; empty for an invitation of any connector.
        role: of the account; None for an invitation.
        person: staff number of the account's holder; empty where it is not proposed.
        digest: SHA-256 of the proposed token, 32 bytes; empty where none is.
        proposed_by: account name. proposed_at, expires_at: aware.
        state: see ProposalState.
        decided_by, decided_at, reason: account name, time and reason of the decision; "" and None before.
    """

    id: str
    kind: ProposalKind
    department: str
    subject: str
    role: Role | None = None
    person: str = ""
    digest: bytes = b""
    proposed_by: str
    proposed_at: datetime
    expires_at: datetime
    state: ProposalState = ProposalState.OPEN
    decided_by: str = ""
    decided_at: datetime | None = None
    reason: str = ""


class ProposalStore(Protocol):
    """Port: stores proposals. None is ever deleted."""

    def add(self, work: UnitOfWork, proposal: Proposal) -> None:
        """Store a new proposal."""
        ...

    def decide(self, work: UnitOfWork, proposal: Proposal) -> bool:
        """Store a proposal with its decision if it is still open; return whether it was."""
        ...

    def get(self, reader: Reader, proposal_id: str) -> Proposal | None:
        """Return a proposal."""
        ...

    def find(
        self,
        reader: Reader,
        *,
        department: str | None = None,
        state: ProposalState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[Proposal]:
        """Return proposals, newest first; None does not restrict.

        Those that are older than the one with the id *before*; fewer than *limit* only at the end.
        """
        ...

    def page(
        self,
        reader: Reader,
        *,
        department: str | None = None,
        state: ProposalState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[Proposal | DamagedRow]:
        """Return proposals as `find` does, for a list: a row that the pool did not write is named."""
        ...


class MemoryProposals(ProposalStore):
    """In-memory adapter, for tests."""

    def __init__(self) -> None:
        self._proposals: dict[str, Proposal] = {}

    @override
    def add(self, work: UnitOfWork, proposal: Proposal) -> None:
        on_rollback(work, lambda: self._proposals.__delitem__(proposal.id))
        self._proposals[proposal.id] = proposal

    @override
    def decide(self, work: UnitOfWork, proposal: Proposal) -> bool:
        stored = self._proposals.get(proposal.id)
        if stored is None or stored.state is not ProposalState.OPEN:
            return False
        on_rollback(work, lambda: self._proposals.__setitem__(stored.id, stored))
        self._proposals[proposal.id] = replace(
            stored,
            state=proposal.state,
            decided_by=proposal.decided_by,
            decided_at=proposal.decided_at,
            reason=proposal.reason,
        )
        return True

    @override
    def get(self, reader: Reader, proposal_id: str) -> Proposal | None:
        return self._proposals.get(proposal_id)

    @override
    def find(
        self,
        reader: Reader,
        *,
        department: str | None = None,
        state: ProposalState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[Proposal]:
        found = [
            one
            for one in self._proposals.values()
            if department in {None, one.department} and state in {None, one.state} and (not before or one.id < before)
        ]
        return sorted(found, key=lambda one: one.id, reverse=True)[:limit]

    @override
    def page(
        self,
        reader: Reader,
        *,
        department: str | None = None,
        state: ProposalState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[Proposal | DamagedRow]:
        return self.find(reader, department=department, state=state, before=before, limit=limit)


def has_officer(accounts: Sequence[Account], department: str, at: datetime) -> bool:
    """Return whether a department has a security officer who could confirm: in use, with a person and a valid token."""
    return any(
        account.department == department
        and account.role is Role.SECURITY_OFFICER
        and account.revoked_at is None
        and account.person
        and at < account.expires_at
        for account in accounts
    )


def check_confirmation(
    proposal: Proposal, by: Actor, *, proposer: Account, persons: Mapping[str, str], officer: bool
) -> Deny | None:
    """Return why an account may not confirm a proposal, None where it may.

    Args:
        proposal: which.
        by: who confirms; its role was checked before.
        proposer: account of who proposed it, as it is now.
        persons: account name → staff number, of both.
        officer: whether the department has an officer who could confirm (`has_officer`).
    """
    refusal = refuse_second_signature(proposal.proposed_by, by.id, persons)
    if refusal is not None:
        return refusal
    if proposer.revoked_at is not None:
        return Deny(Reason.CERTIFICATE_REVOKED, "the account that proposed it has been revoked; propose it again")
    own = proposal.department
    if not own:
        return None
    if proposal.kind is ProposalKind.INVITATION and by.department != own:
        return Deny(Reason.OTHER_DEPARTMENT, "an invitation is confirmed by an officer of the department itself")
    if officer and own not in {by.department, proposer.department}:
        return Deny(
            Reason.OTHER_DEPARTMENT,
            "the department has an officer of its own; two data authorities act for it only until it has one",
        )
    return None
