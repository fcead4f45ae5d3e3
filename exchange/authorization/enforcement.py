"""Enforcer (policy enforcement point): takes a decision, runs the act, and writes its audit entry; every act uses it.

    with enforcer.act(actor, Action.GRANT_APPROVE, str(topic), call, decision) as (work, act):
        grants.put(work, approved)                 one transaction: the act and its entry, or neither
        act.note(...)

The record path has transactions of its own (a batch's entry is written in the broker's, a release's entry in the one
that locks the grant), so it uses the two halves separately:

    authorized = enforcer.admit(actor, Action.FETCH, str(topic), call, decision, grant)
    ...
    ledger.write(work, [authorized.entry(data)])

A denial is recorded before it is returned. Repeated denials of one actor are aggregated into one entry a minute with
their count, so that a client in a retry loop cannot fill the log. If the entry cannot be written, nothing happens: no
record leaves, no state changes, and even a denial becomes "unavailable".

A call whose purpose, case number, person or resource holds a personal number is refused before anything is decided, and
its denial has those texts left out (`exchange.authorization.text_screen`).
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

from exchange.authorization.request_context import RequestContext
from exchange.authorization.text_screen import TextFinding, TextScreen, finding_data, refused_text
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Allow, Deny
from schemas.audit import AuditEntry, Decision, Flow, GrantRef, folded_data
from schemas.canonical import Json
from schemas.errors import PoolError, RefusedError
from schemas.identifiers import random_id, uuid7

__all__ = ["AuditWriter", "AuditedAct", "Authorized", "Enforcer"]

_AGGREGATION = 60_000_000  # microseconds in which repeated denials become one entry
_MAX_AGGREGATES = 10_000


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
            actor = replace(actor, on_behalf_of=self.call.on_behalf_of)
        return AuditEntry(
            pool=self.pool_id,
            id=entry_id or uuid7(self.clock()),
            at=self.clock(),
            trace=self.call.trace,
            gateway="",
            salt=random_id(),
            actor=actor,
            action=self.action,
            resource=self.resource,
            grant=self.grant,
            purpose=self.call.purpose,
            case=self.call.case,
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
        self.data.update(attributes)

    def entry(self, authorized: Authorized) -> AuditEntry:
        """Build the entry of the act."""
        if self.grant is not None:
            authorized = replace(authorized, grant=self.grant)
        return authorized.entry(self.data, entry_id=self.entry_id)


class _DenialCount:
    def __init__(self, since: int) -> None:
        self.since = since
        self.count = 0


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
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._pool_id = pool_id
        self._clock = clock  # microseconds UTC
        self.screen = screen or TextScreen()
        self._lock = threading.Lock()
        self._denials: dict[tuple[str, ...], tuple[_DenialCount, AuditEntry]] = {}

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
            UnavailableError: the denial could not be recorded.
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
            UnavailableError: nothing happened.
        """
        authorized = self.admit(actor, action, resource, call, decision, grant)
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
            UnavailableError: nothing happened.
        """
        authorized = self.admit(actor, action, resource, call, decision)
        self.record(authorized, attributes or {})
        try:
            yield
        except PoolError as error:
            self._failed(authorized, error)
            raise

    def _failed(self, authorized: Authorized, error: PoolError) -> None:
        self.record(authorized, {"failed": str(error.reason)})

    def record(self, authorized: Authorized, data: Mapping[str, Json]) -> None:
        """Write the entry of an authorized act in a transaction of its own.

        Raises:
            UnavailableError: it is not written.
        """
        self._write([authorized.entry(data)])

    def flush(self) -> None:
        """Write the aggregated denials whose minute is over; called about once a minute."""
        self._flush(self._clock() - _AGGREGATION)

    def close(self) -> None:
        """Write all aggregated denials."""
        self._flush(None)

    def _deny(self, authorized: Authorized, decision: Deny, data: Mapping[str, Json] | None = None) -> None:
        actor = authorized.actor
        key = (actor.department, actor.id, actor.certificate, authorized.action, authorized.resource, decision.reason)
        now = self._clock()
        with self._lock:
            earlier = self._denials.get(key)
            if earlier is not None and now - earlier[0].since < _AGGREGATION:
                earlier[0].count += 1
                return
            is_full = len(self._denials) >= _MAX_AGGREGATES
        entry = replace(authorized.entry(data or {}), decision=Decision.DENY, reason=decision.reason)
        entries = [entry]
        if earlier is not None and earlier[0].count:
            entries.insert(0, _aggregate(*earlier, at=now))
        self._write(entries)
        with self._lock:
            self._denials[key] = (_DenialCount(now), entry)
        if is_full:
            self._flush(None)

    def _flush(self, before: int | None) -> None:
        with self._lock:
            ended = {key: one for key, one in self._denials.items() if before is None or one[0].since <= before}
            for key in ended:
                del self._denials[key]
        entries = [_aggregate(*one, at=self._clock()) for one in ended.values() if one[0].count]
        if entries:
            self._write(entries)

    def _write(self, entries: Sequence[AuditEntry]) -> None:
        with self._database.begin() as work:
            self._ledger.write(work, entries, last=True)


def _aggregate(denials: _DenialCount, first: AuditEntry, *, at: int) -> AuditEntry:
    data = folded_data(count=denials.count, since=denials.since)
    return replace(first, id=uuid7(at), at=at, salt=random_id(), data=data)
