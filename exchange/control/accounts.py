"""Account service: accounts and invitations, proposed by one person and confirmed by another; rotation and revocation.

    propose   an account, another token, the person of an old account, an invitation   one person
    confirm   makes what was proposed                                                  another person
    refuse    ends a proposal; revoke ends an account; rotate: one's own token         one person

Who may do what for whom is in `exchange.access.decision.roles`; which two persons, in `exchange.identity.proposals`.
Every step is an entry, whose resource is the department in whose name it is done, so that the department can read it.

**Set-up.** The token that `pool init` makes has a role of its own: it adds the first two data authorities, two persons,
and nothing else. With the second it ends.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from exchange.access.decision.roles import Standing, decide_control, refuse_standing
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.quotas import Quotas, check_quota
from exchange.identity.account_rules import check_person, staff_number
from exchange.identity.enrolment import Enrolment
from exchange.identity.proposals import (
    MAX_OPEN,
    VALID,
    Proposal,
    ProposalKind,
    ProposalState,
    ProposalStore,
    check_confirmation,
    has_officer,
)
from exchange.identity.store import Account, IdentityStore
from exchange.identity.tokens import Users
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.directory.departments import Departments
from schemas.access import Action, Actor, Allow, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from schemas.identifiers import uuid7
from schemas.names import ConnectorId

__all__ = ["AccountService", "ListedAccount"]

FIRST_AUTHORITIES: Final = 2
"""Data authorities that the token of `pool init` adds; fewer than that are never left."""


@dataclass(frozen=True, slots=True)
class ListedAccount:
    """An account of a list, and when it was last used (to the minute); None = never."""

    account: Account
    last_used: datetime | None


class AccountService:
    """Audited acts on accounts and invitations.

    Args:
        database: opens readers.
        enforcer: decides, acts, records.
        attributes: of actors.
        departments: that are there.
        store: of accounts and invitations.
        users: accounts.
        proposals: of one person, for another.
        enrolment: makes invitations.
        now: the time, aware.
        enrolment_address: host:port for invitations.
        on_set_up: called when the second data authority exists; removes the file of the first token.
        quotas: of departments.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        departments: Departments,
        store: IdentityStore,
        users: Users,
        proposals: ProposalStore,
        enrolment: Enrolment,
        now: Callable[[], datetime],
        enrolment_address: Callable[[], str],
        on_set_up: Callable[[], None] = lambda: None,
        quotas: Quotas | None = None,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._departments = departments
        self._store = store
        self._users = users
        self._proposals = proposals
        self._enrolment = enrolment
        self._now = now
        self._enrolment_address = enrolment_address
        self._on_set_up = on_set_up
        self._quotas = quotas or Quotas()

    def propose_account(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        name: str,
        role: Role,
        department: str,
        person: str,
        digest: bytes,
    ) -> Proposal | None:
        """Propose an account; the token of `pool init` adds it at once, and gets None.

        Raises:
            RefusedError: the actor may not; PERSON_UNKNOWN, the actor's account names no person; ROLE_FORBIDDEN, the
                person holds another account.
            InvalidError, ConflictError: see `Users.add`.
        """
        if department:
            self._check_department(department)
        with self._act(actor, call, Action.USER_ADD, department, name, new_role=role) as (work, act):
            act.note(account=name, role=str(role), department=department)
            if actor.role is Role.BOOTSTRAP:
                self._add_authority(work, actor, name=name, person=person, digest=digest)
                proposal = None
            else:
                used = [one for one in self._users.all(work) if one.department == department and not one.revoked_at]
                check_quota("accounts", len(used), self._quotas.accounts, "revoke those that are not used")
                account = self._users.check(
                    work, name=name, role=role, department=department, person=person, by=actor.id, at=self._now()
                )
                if self._store.account(work, name) is not None:
                    raise ConflictError(
                        Reason.ALREADY_EXISTS, f"the account name {name!r} has been used before; take another"
                    )
                proposal = self._propose(
                    work, actor, ProposalKind.ACCOUNT, department, name, role=role, person=account.person, digest=digest
                )
                act.note(proposal=proposal.id)
        if proposal is None:
            self.finish_set_up()
        return proposal

    def propose_token(self, actor: Actor, call: RequestContext, name: str, digest: bytes) -> Proposal:
        """Propose another token for another's account: one whose token is lost or has ended.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND.
        """
        account = self._account(name)
        with self._act(actor, call, Action.USER_ADD, account.department, name, new_role=account.role) as (work, act):
            proposal = self._propose(
                work, actor, ProposalKind.TOKEN, account.department, name, role=account.role, digest=digest
            )
            act.note(account=name, department=account.department, proposal=proposal.id, token=True)
        return proposal

    def propose_person(self, actor: Actor, call: RequestContext, name: str, person: str) -> Proposal:
        """Propose the person of an account of an earlier version, which names none.

        Raises:
            RefusedError: the actor may not; ROLE_FORBIDDEN, the person holds another account.
            InvalidError: NOT_FOUND, NAME_INVALID; REQUEST_INVALID, the account names its person already.
        """
        account = self._account(name)
        if account.person:
            raise InvalidError(Reason.REQUEST_INVALID, f"the account {name!r} names its person, and that never changes")
        with self._act(actor, call, Action.USER_ADD, account.department, name, new_role=account.role) as (work, act):
            number = staff_number(person)
            check_person(number, account.role, account.department, self._users.all(work))
            proposal = self._propose(
                work, actor, ProposalKind.PERSON, account.department, name, role=account.role, person=number
            )
            act.note(account=name, department=account.department, proposal=proposal.id)
        return proposal

    def propose_invitation(
        self, actor: Actor, call: RequestContext, department: str, connector: str | None
    ) -> Proposal:
        """Propose a one-time enrolment token of a department, for one connector or for any new one.

        Raises:
            RefusedError: the actor may not.
            InvalidError: DEPARTMENT_UNKNOWN, NAME_INVALID.
        """
        self._check_department(department)
        name = "" if connector is None else str(ConnectorId(connector))
        with self._act(actor, call, Action.DEPARTMENT_INVITE, department, department) as (work, act):
            proposal = self._propose(work, actor, ProposalKind.INVITATION, department, name)
            act.note(connector=connector or "*", proposal=proposal.id)
        return proposal

    def confirm(
        self, actor: Actor, call: RequestContext, proposal_id: str, digest: bytes | None
    ) -> tuple[Proposal, str]:
        """Confirm a proposal, which makes what it proposes; return it, and the enrolment token of an invitation.

        Args:
            actor: another person than who proposed it.
            call: context.
            proposal_id: which.
            digest: SHA-256 of the account's token, as its holder told it to the one who confirms; None where the
                proposal is of no token.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, PERSON_UNKNOWN, OTHER_DEPARTMENT.
            InvalidError: NOT_FOUND; REQUEST_INVALID, another token than the proposed one.
            ConflictError: TRANSITION_NOT_ALLOWED, it is decided or has ended; what `Users.add` raises.
        """
        proposal = self._open_proposal(proposal_id)
        with self._act(
            actor, call, Action.PROPOSAL_CONFIRM, proposal.department, proposal.subject, new_role=proposal.role
        ) as (work, act):
            act.note(proposal=proposal.id, kind=str(proposal.kind), proposed_by=proposal.proposed_by)
            act.note(account=proposal.subject) if proposal.role else act.note(connector=proposal.subject or "*")
            now = self._now()
            self._store.lock_department(work, proposal.department)
            self._check_confirmation(work, actor, proposal, digest, now)
            decided = replace(proposal, state=ProposalState.CONFIRMED, decided_by=actor.id, decided_at=now)
            if not self._proposals.decide(work, decided):
                raise _decided(self._get(work, proposal_id))
            return decided, self._carry_out(work, decided, now)

    def refuse(self, actor: Actor, call: RequestContext, proposal_id: str, reason: str) -> Proposal:
        """Refuse a proposal, or withdraw one's own.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND; REQUEST_INVALID, without a reason.
            ConflictError: TRANSITION_NOT_ALLOWED, it is decided.
        """
        reason = _checked_reason(reason)
        proposal = self._open_proposal(proposal_id)
        with self._act(actor, call, Action.PROPOSAL_REFUSE, proposal.department, proposal.subject) as (work, act):
            act.note(proposal=proposal.id, kind=str(proposal.kind), proposed_by=proposal.proposed_by, reason=reason)
            refused = replace(
                proposal, state=ProposalState.REFUSED, decided_by=actor.id, decided_at=self._now(), reason=reason
            )
            if not self._proposals.decide(work, refused):
                raise _decided(self._get(work, proposal_id))
        return refused

    def proposals(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        state: ProposalState | None = None,
        before: str = "",
        limit: int = MAX_PAGE,
    ) -> Sequence[Proposal | DamagedRow]:
        """List proposals, newest first, decided ones too: of the actor's department, or all.

        Those that are older than the one with the id *before*; fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may see none.
        """
        department = actor.department or None
        decision = decide_control(
            actor, Action.USER_READ, standing=self._attributes.standing(actor), department=department
        )
        self._enforcer.admit(actor, Action.USER_READ, "proposals", call, decision)
        with self._database.read() as reader:
            return self._proposals.page(reader, department=department, state=state, before=before, limit=limit)

    def accounts(
        self, actor: Actor, call: RequestContext, *, after: str = "", limit: int = MAX_PAGE
    ) -> Sequence[ListedAccount | DamagedRow]:
        """List accounts after a name, revoked ones too: of the actor's department, or all.

        Fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may see none.
        """
        department = actor.department or None
        decision = decide_control(
            actor, Action.USER_READ, standing=self._attributes.standing(actor), department=department
        )
        self._enforcer.admit(actor, Action.USER_READ, "*", call, decision)
        with self._database.read() as reader:
            uses = self._store.last_uses(reader)
            found = self._store.accounts_page(reader, department=department, after=after, limit=limit)
        return [one if isinstance(one, DamagedRow) else ListedAccount(one, uses.get(one.name)) for one in found]

    def own(self, actor: Actor, call: RequestContext) -> ListedAccount:
        """Return the actor's own account.

        Raises:
            RefusedError: the actor has none any more: its department is inactive, say.
        """
        standing = self._attributes.standing(actor)
        decision = Allow() if standing is Standing.ACTIVE else refuse_standing(actor, standing)
        self._enforcer.admit(actor, Action.USER_READ, actor.id, call, decision)
        with self._database.read() as reader:
            account = self._store.account(reader, actor.id)
            if account is None:
                raise InvalidError(Reason.NOT_FOUND, "got the token of no account; a connector has none")
            return ListedAccount(account, self._store.last_uses(reader).get(account.name))

    def rotate(self, actor: Actor, call: RequestContext, digest: bytes) -> Account:
        """Rotate the token of the actor's own account; the old one has ended when this returns.

        Raises:
            RefusedError: the actor may not.
            ConflictError: ALREADY_EXISTS, the token is another account's.
        """
        with self._act(actor, call, Action.USER_ROTATE, actor.department, actor.id) as (work, act):
            act.note(account=actor.id)
            return self._users.rotate(work, actor.id, digest, self._now())

    def revoke(self, actor: Actor, call: RequestContext, name: str, reason: str) -> Account:
        """Revoke an account; its next call is refused, and the unused invitations that it took part in have ended.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND; REQUEST_INVALID, without a reason.
            ConflictError: TRANSITION_NOT_ALLOWED, it is one of the last two data authorities.
        """
        reason = _checked_reason(reason)
        with self._database.read() as reader:
            account = self._users.revocable(reader, name)
        with self._act(actor, call, Action.USER_REVOKE, account.department, name) as (work, act):
            act.note(account=name, department=account.department, because=reason)
            self._store.lock_department(work, account.department)
            if account.role is Role.DATA_AUTHORITY and account.person:
                others = [one for one in self._authorities(work) if one.name != name]
                if len(others) < FIRST_AUTHORITIES:
                    raise ConflictError(
                        Reason.TRANSITION_NOT_ALLOWED,
                        f"{FIRST_AUTHORITIES} data authorities have to stay, or nobody could confirm anything; add a "
                        "third first. Is its token stolen? Then its holder rotates it",
                    )
            now = self._now()
            # Who confirmed an invitation has its token, and would enrol a connector after the account has ended.
            act.note(invitations_withdrawn=self._store.withdraw_invitations_of(work, name, now))
            return self._users.revoke(work, name, now)

    def finish_set_up(self) -> None:
        """Remove the file of the first token where that token has ended; called at a start, in case it was killed."""
        with self._database.read() as reader:
            ended = all(one.revoked_at is not None for one in self._users.all(reader) if one.role is Role.BOOTSTRAP)
        if ended:
            self._on_set_up()

    def _add_authority(self, work: UnitOfWork, actor: Actor, *, name: str, person: str, digest: bytes) -> None:
        """Add one of the first two data authorities; the token that adds the second ends with it."""
        self._store.lock_department(work, "")
        now = self._now()
        self._users.in_use(work, actor.id)  # another call may have added the second meanwhile
        self._users.add(
            work,
            name=name,
            role=Role.DATA_AUTHORITY,
            department="",
            person=person,
            digest=digest,
            by=actor.id,
            at=now,
        )
        if len(self._authorities(work)) >= FIRST_AUTHORITIES:
            self._users.rotate(work, actor.id, secrets.token_bytes(32), now)  # nobody has a token of this digest
            self._users.revoke(work, actor.id, now)

    def _authorities(self, reader: Reader) -> list[Account]:
        """Return the data authorities that can sign: in use, and with a person."""
        return [
            one
            for one in self._users.all(reader)
            if one.role is Role.DATA_AUTHORITY and one.revoked_at is None and one.person
        ]

    def _propose(
        self,
        work: UnitOfWork,
        actor: Actor,
        kind: ProposalKind,
        department: str,
        subject: str,
        *,
        role: Role | None = None,
        person: str = "",
        digest: bytes = b"",
    ) -> Proposal:
        if not self._users.persons(work, [actor.id]):
            raise RefusedError(
                Reason.PERSON_UNKNOWN,
                "your account names no person, so nobody could know whether two persons sign; two others must set its "
                "staff number first (`pool user set-person`)",
            )
        self._store.lock_department(work, department)
        now = self._now()
        open_ones = [
            one
            for one in self._proposals.find(work, department=department, state=ProposalState.OPEN, limit=MAX_PAGE)
            if now < one.expires_at
        ]
        if len(open_ones) >= MAX_OPEN:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"{len(open_ones)} proposals wait for a decision already; decide on them first",
            )
        for other in open_ones:
            if (other.kind, other.subject) == (kind, subject) and subject:
                raise ConflictError(
                    Reason.ALREADY_EXISTS,
                    f"this is proposed already, as {other.id}; confirm or refuse that one",
                    details={"proposal": other.id},
                )
        proposal = Proposal(
            id=uuid7(int(now.timestamp() * 1_000_000)),
            kind=kind,
            department=department,
            subject=subject,
            role=role,
            person=person,
            digest=digest,
            proposed_by=actor.id,
            proposed_at=now,
            expires_at=now + VALID,
        )
        self._proposals.add(work, proposal)
        return proposal

    def _check_confirmation(
        self, work: UnitOfWork, actor: Actor, proposal: Proposal, digest: bytes | None, now: datetime
    ) -> None:
        if now >= proposal.expires_at:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the proposal ended at {proposal.expires_at.isoformat()}; propose it again",
            )
        if proposal.department:
            self._departments.get(work, proposal.department)
        proposer = self._store.account(work, proposal.proposed_by)
        if proposer is None:
            raise RefusedError(Reason.PERSON_UNKNOWN, "the account that proposed it is not known; propose it again")
        refusal = check_confirmation(
            proposal,
            actor,
            proposer=proposer,
            persons=self._users.persons(work, [proposal.proposed_by, actor.id]),
            officer=has_officer(self._users.all(work), proposal.department, now),
        )
        if refusal is not None:
            raise RefusedError(refusal.reason, refusal.explanation)
        if proposal.digest and (digest is None or not secrets.compare_digest(proposal.digest, digest)):
            raise InvalidError(
                Reason.REQUEST_INVALID,
                "the token's fingerprint is missing, or another than the proposed one; ask the account's holder for it "
                "yourself. If it differs, somebody has put another token in its place: refuse the proposal",
            )

    def _carry_out(self, work: UnitOfWork, proposal: Proposal, now: datetime) -> str:
        """Make what a confirmed proposal proposes; return the enrolment token of an invitation, else nothing."""
        signed = f"{proposal.proposed_by}+{proposal.decided_by}"
        match proposal.kind:
            case ProposalKind.INVITATION:
                return self._enrolment.invite(
                    work,
                    department=proposal.department,
                    connector=proposal.subject or None,
                    address=self._enrolment_address(),
                    by=signed,
                    at=now,
                )
            case ProposalKind.TOKEN:
                self._users.rotate(work, proposal.subject, proposal.digest, now)
            case ProposalKind.PERSON:
                self._users.set_person(work, proposal.subject, proposal.person)
            case ProposalKind.ACCOUNT if proposal.role is not None:
                self._users.add(
                    work,
                    name=proposal.subject,
                    role=proposal.role,
                    department=proposal.department,
                    person=proposal.person,
                    digest=proposal.digest,
                    by=signed,
                    at=now,
                )
        return ""

    def _act(
        self,
        actor: Actor,
        call: RequestContext,
        action: Action,
        department: str,
        subject: str,
        new_role: Role | None = None,
    ) -> AbstractContextManager[tuple[UnitOfWork, AuditedAct]]:
        decision = decide_control(
            actor,
            action,
            standing=self._attributes.standing(actor),
            department=department or None,
            new_role=new_role,
        )
        return self._enforcer.act(actor, action, department or subject, call, decision)

    def _check_department(self, department: str) -> None:
        with self._database.read() as reader:
            self._departments.get(reader, department)

    def _account(self, name: str) -> Account:
        with self._database.read() as reader:
            return self._users.in_use(reader, name)

    def _open_proposal(self, proposal_id: str) -> Proposal:
        with self._database.read() as reader:
            proposal = self._get(reader, proposal_id)
        if proposal.state is not ProposalState.OPEN:
            raise _decided(proposal)
        return proposal

    def _get(self, reader: Reader, proposal_id: str) -> Proposal:
        proposal = self._proposals.get(reader, proposal_id)
        if proposal is None:
            raise InvalidError(Reason.NOT_FOUND, f"there is no proposal {proposal_id[:64]!r}; list them first")
        return proposal


def _checked_reason(text: str) -> str:
    reason = text.strip()
    if not reason or len(reason) > 2_000:
        raise InvalidError(Reason.REQUEST_INVALID, "got no reason, or one of more than 2,000 characters; say why")
    return reason


def _decided(proposal: Proposal) -> ConflictError:
    return ConflictError(
        Reason.TRANSITION_NOT_ALLOWED, f"the proposal is {proposal.state} already; what is decided stays decided"
    )
