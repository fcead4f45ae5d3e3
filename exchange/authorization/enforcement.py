"""Enforcer (policy enforcement point): takes a decision, runs the act, and writes its audit entry; every act uses it.

    with enforcer.act(actor, Action.GRANT_APPROVE, str(topic), call, decision) as (work, act):
        grants.put(work, approved)                 one transaction: the act and its entry, or neither
        act.note(...)

The record path has transactions of its own (a batch's entry is written in the broker's, a release's entry in the one
that locks the grant), so it uses the two halves separately:

    authorized = enforcer.admit(actor, Action.FETCH, str(topic), call, decision, grant)
    ...
    ledger.write(work, [authorized.entry(data)])

A denial is recorded before it is returned. What one actor repeats within a minute (denials, failures, lists and
searches) is aggregated into one entry with its count (`exchange.authorization.entry_folding`), so that nobody fills the
log in a loop; beyond a budget a minute the actor is slowed (`exchange.authorization.actor_budgets`). If an entry cannot
be written, nothing happens: no record leaves, no state changes, and even a denial becomes "unavailable".

A call whose purpose, case number, person or resource holds a personal number is refused before anything is decided, and
its denial has those texts left out (`exchange.authorization.text_screen`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

from exchange.authorization.actor_budgets import ActorBudgets, Budget
from exchange.authorization.entry_folding import MINUTE, EntryFolds
from exchange.authorization.entry_texts import MAX_DECLARED, MAX_RESOURCE, bounded, bounded_data
from exchange.authorization.request_context import RequestContext
from exchange.authorization.text_screen import TextFinding, TextScreen, finding_data, refused_text
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Allow, Deny
from schemas.audit import AuditEntry, Decision, Flow, GrantRef
from schemas.canonical import Json
from schemas.errors import PoolError, RefusedError, UnavailableError
from schemas.identifiers import random_id, uuid7

__all__ = ["AuditWriter", "AuditedAct", "Authorized", "Enforcer"]

_WRITTEN_TOGETHER = 500  # entries of folds in one transaction
_OF_SCHEMAS = frozenset(
    {
        Action.SCHEMA_REGISTER,
        Action.SCHEMA_READ,
        Action.SCHEMA_READ_BY_ID,
        Action.SCHEMA_CONFIGURE,
        Action.SCHEMA_DELETE,
    }
)


class AuditWriter(Protocol):
    """Writes audit entries."""

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        """Number the entries and store them within *work*; return their leaf hashes.

        *last*: nothing follows in *work*, so that they may be sent with its commit.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized:
    """An authorized act: builds its audit entry."""

    pool_id: str
    actor: Actor
    action: Action
    resource: str
    call: RequestContext
    grant: GrantRef | None
    clock: Callable[[], int]

    def entry(self, data: Mapping[str, Json], *, flow: Flow | None = None, entry_id: str = "") -> AuditEntry:
        """Build the act's entry; *data* is what is specific to the action."""
        actor = self.actor
        if self.call.on_behalf_of:
            actor = replace(actor, on_behalf_of=bounded(self.call.on_behalf_of, MAX_DECLARED))
        return AuditEntry(
            pool=self.pool_id,
            id=entry_id or uuid7(self.clock()),
            at=self.clock(),
            trace=self.call.trace,
            gateway="",
            salt=random_id(),
            actor=actor,
            action=self.action,
            resource=bounded(self.resource, MAX_RESOURCE),
            grant=self.grant,
            purpose=bounded(self.call.purpose, MAX_DECLARED),
            case=bounded(self.call.case, MAX_DECLARED),
            flow=flow,
            data=data,
        )


class AuditedAct:
    """An authorized act within its transaction: the id and the data of its entry."""

    def __init__(self, entry_id: str) -> None:
        self.entry_id = entry_id
        self.data: dict[str, Json] = {}
        self.grant: GrantRef | None = None
        self.following: list[tuple[Authorized, AuditedAct]] = []  # acts of the same transaction, after this one

    def note(self, **attributes: Json) -> None:
        """Add data to the entry; never a record's value."""
        self.data.update(bounded_data(attributes))

    def entry(self, authorized: Authorized) -> AuditEntry:
        """Build the entry of the act."""
        if self.grant is not None:
            authorized = replace(authorized, grant=self.grant)
        return authorized.entry(self.data, entry_id=self.entry_id)


class Enforcer:
    """Enforces decisions that others make, and records every act and every denial."""

    def __init__(
        self,
        database: Database,
        ledger: AuditWriter,
        *,
        pool_id: str,
        clock: Callable[[], int],
        screen: TextScreen | None = None,
        budgets: ActorBudgets | None = None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._pool_id = pool_id
        self._clock = clock  # microseconds UTC
        self.screen = screen or TextScreen()
        self._budgets = budgets or ActorBudgets()
        self._folds = EntryFolds()

    def check_refusals(self, actor: Actor) -> None:
        """Check, before anything of a call is decided, that its actor has not had too many refused.

        Raises:
            UnavailableError: RATE_LIMITED.
        """
        self._budgets.check(actor, Budget.REFUSALS)

    def admit(
        self,
        actor: Actor,
        action: Action,
        resource: str,
        call: RequestContext,
        decision: Allow | Deny,
        grant: GrantRef | None = None,
    ) -> Authorized:
        """Return the authorization of an allowed act; record a denial and raise it.

        Raises:
            RefusedError: with the decision's reason and explanation.
            InvalidError: PERSONAL_NUMBER or CASE_FORM_MISMATCH, for what the call declares.
            UnavailableError: the denial could not be recorded; RATE_LIMITED, instead of a denial or refusal.
        """
        finding, authorized = self._screened(actor, action, resource, call, grant)
        if finding is not None:
            self._refuse_text(authorized, finding)
        if isinstance(decision, Deny):
            self._deny(authorized, decision)
            raise RefusedError(decision.reason, decision.explanation)
        return authorized

    def allowed(
        self,
        actor: Actor,
        action: Action,
        resource: str,
        call: RequestContext,
        decision: Allow | Deny,
        grant: GrantRef | None = None,
    ) -> Authorized | None:
        """Return the authorization of an act that `admit` would admit; None, and record nothing, for any other.

        For an act that is one of several: a caller that gets None leaves it out, and calls `admit` for it alone.
        """
        finding, authorized = self._screened(actor, action, resource, call, grant)
        return None if finding is not None or isinstance(decision, Deny) else authorized

    def _screened(
        self, actor: Actor, action: Action, resource: str, call: RequestContext, grant: GrantRef | None
    ) -> tuple[TextFinding | None, Authorized]:
        finding, actor, call, resource = self.screen.call(actor, call, resource)
        authorized = Authorized(
            pool_id=self._pool_id,
            actor=actor,
            action=action,
            resource=resource,
            call=call,
            grant=grant,
            clock=self._clock,
        )
        return finding, authorized

    def refuse_text(self, actor: Actor, action: Action, call: RequestContext, finding: TextFinding) -> None:
        """Record the refusal of a text that is in none of what `admit` screens, such as a reason, and raise it.

        Raises:
            InvalidError: PERSONAL_NUMBER or CASE_FORM_MISMATCH.
            UnavailableError: the refusal could not be recorded.
        """
        self._refuse_text(self.admit(actor, action, "", call, Allow()), finding)

    def _refuse_text(self, authorized: Authorized, finding: TextFinding) -> NoReturn:
        self._deny(authorized, Deny(finding.reason, finding.message), finding_data(finding))
        raise refused_text(finding)

    def refuse_rate(self, authorized: Authorized, error: UnavailableError) -> NoReturn:
        """Record that an authorized act is refused for its rate, and raise the error; repetitions are folded.

        Raises:
            UnavailableError: the error; RATE_LIMITED, the actor has had too much refused.
        """
        self._deny(authorized, Deny(error.reason, error.message))
        raise error

    @contextmanager
    def act(
        self,
        actor: Actor,
        action: Action,
        resource: str,
        call: RequestContext,
        decision: Allow | Deny,
        grant: GrantRef | None = None,
    ) -> Iterator[tuple[UnitOfWork, AuditedAct]]:
        """Run an act and its entry in one transaction; an act that fails is recorded as failed.

        Raises:
            RefusedError: the decision denies it.
            UnavailableError: nothing happened; RATE_LIMITED, the actor has done too much.
        """
        authorized = self.admit(actor, action, resource, call, decision, grant)
        self._spend(authorized)
        act = AuditedAct(uuid7(self._clock()))
        try:
            with self._database.begin() as work:
                yield work, act
                acts = [(authorized, act), *act.following]
                self._ledger.write(work, [one.entry(under) for under, one in acts], last=True)
        except PoolError as error:
            self._failed(authorized, error)
            raise

    def follow(
        self,
        act: AuditedAct,
        actor: Actor,
        action: Action,
        resource: str,
        call: RequestContext,
        decision: Allow | Deny,
    ) -> AuditedAct:
        """Let another act follow within the transaction of an open one; both entries are written together, in order.

        Raises:
            RefusedError: the decision denies it, so neither happens.
        """
        following = AuditedAct(uuid7(self._clock()))
        act.following.append((self.admit(actor, action, resource, call, decision), following))
        return following

    @contextmanager
    def announce(
        self,
        actor: Actor,
        action: Action,
        resource: str,
        call: RequestContext,
        decision: Allow | Deny,
        attributes: Mapping[str, Json] | None = None,
    ) -> Iterator[None]:
        """Run an act that has a transaction of its own, after its entry; a failure gets a second entry.

        The log may thus contain an act that a crash prevented, but never miss one that happened.

        Raises:
            RefusedError: the decision denies it.
            UnavailableError: nothing happened; RATE_LIMITED, the actor has done too much.
        """
        authorized = self.admit(actor, action, resource, call, decision)
        self.record(authorized, attributes or {})
        try:
            yield
        except PoolError as error:
            self._failed(authorized, error)
            raise

    def record(self, authorized: Authorized, data: Mapping[str, Json], *, entry_id: str = "") -> None:
        """Write the entry of an authorized act in a transaction of its own; with this id, if one is given.

        Raises:
            UnavailableError: it is not written; RATE_LIMITED, the actor has done too much.
        """
        self._spend(authorized)
        self._write([authorized.entry(bounded_data(data), entry_id=entry_id)])

    def record_read(self, authorized: Authorized, data: Mapping[str, Json], *, query: str = "") -> None:
        """Write the entry of a list or search, before it is answered; those that follow within a minute are folded.

        For what may be folded: never a search about a case or a person, an export or a single entry (`record`).

        Args:
            authorized: the read.
            data: of its entry.
            query: digest of what was asked; empty where there was nothing to ask.

        Raises:
            UnavailableError: it is not written.
        """
        self._fold(authorized.entry(bounded_data(data)), query=query)

    def flush(self) -> None:
        """Write the folds whose minute is over; called every few seconds."""
        self._flush(self._clock() - MINUTE)

    def close(self) -> None:
        """Write all folds."""
        self._flush(None)

    def _spend(self, authorized: Authorized) -> None:
        budget = Budget.SCHEMAS if authorized.action in _OF_SCHEMAS else Budget.ENTRIES
        self._budgets.spend(authorized.actor, budget)

    def _failed(self, authorized: Authorized, error: PoolError) -> None:
        self._fold(authorized.entry({"failed": str(error.reason)}))

    def _deny(self, authorized: Authorized, decision: Deny, data: Mapping[str, Json] | None = None) -> None:
        self._budgets.spend(authorized.actor, Budget.REFUSALS)
        entry = authorized.entry(bounded_data(data or {}))
        self._fold(replace(entry, decision=Decision.DENY, reason=decision.reason))

    def _fold(self, entry: AuditEntry, *, query: str = "") -> None:
        pending = self._folds.add(entry, self._clock(), query=query)
        if pending is None:
            return
        try:
            self._write(pending.entries)
        except BaseException:
            self._folds.failed(pending)
            raise
        self._folds.written(pending)
        if self._folds.is_full:
            self._flush(None)

    def _flush(self, before: int | None) -> None:
        taken = self._folds.take(before)
        for first in range(0, len(taken), _WRITTEN_TOGETHER):
            some = taken[first : first + _WRITTEN_TOGETHER]
            try:
                self._write([one.entry(self._clock()) for one in some])
            except BaseException:
                self._folds.put_back(taken[first:])
                raise

    def _write(self, entries: Sequence[AuditEntry]) -> None:
        with self._database.begin() as work:
            self._ledger.write(work, entries, last=True)
