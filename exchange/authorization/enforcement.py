"""The gate: decide, act, record. Every act passes here, and the shape exists once.

    with gate.act(actor, Action.GRANT_APPROVE, str(topic), call, decision) as (work, passage):
        grants.put(work, approved)                 one transaction: the act and its entry, or neither
        passage.note(...)

The record path has transactions of its own (a batch's entry joins the broker's, a release's entry joins the
grant's lock), so it takes the two halves apart:

    passage = gate.admit(actor, Action.FETCH, str(topic), call, decision, grant)
    ...
    ledger.write(work, [passage.entry(data)])

A denial is recorded before it is told. Denials that one actor repeats fold into one entry a minute with their
count, so that a loop that knocks cannot fill the log. If the entry cannot be written, nothing happens: no record
leaves, no state changes, and even a refusal becomes "unavailable".
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from exchange.authorization.request_context import RequestContext
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Allow, Deny
from schemas.audit import AuditEntry, Decision, Flow, GrantRef, folded_data
from schemas.canonical import Json
from schemas.errors import PoolError, RefusedError
from schemas.identifiers import random_id, uuid7

__all__ = ["AuditWriter", "AuditedAct", "Authorized", "Enforcer"]

_FOLD = 60_000_000  # microseconds in which repeated denials become one entry
_MOST_FOLDS = 10_000


class AuditWriter(Protocol):
    """What the gate needs of the audit ledger."""

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        """Number the entries and store them within *work*, with its commit if they are the *last* thing in it.

        Returns their leaf hashes.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized:
    """An act that was allowed: makes its entry."""

    pool_id: str
    actor: Actor
    action: Action
    resource: str
    call: RequestContext
    grant: GrantRef | None
    clock: Callable[[], int]

    def entry(self, data: Mapping[str, Json], *, flow: Flow | None = None, entry_id: str = "") -> AuditEntry:
        """Make the act's entry; *data* is what only this action has to say."""
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
    """An allowed act within its transaction: knows its entry's id, and notes what the entry shall say."""

    def __init__(self, entry_id: str) -> None:
        self.entry_id = entry_id
        self.data: dict[str, Json] = {}
        self.grant: GrantRef | None = None

    def note(self, **attributes: Json) -> None:
        """Add facts to the entry. Never a record's value."""
        self.data.update(attributes)


class _Fold:
    def __init__(self, since: int) -> None:
        self.since = since
        self.count = 0


class Enforcer:
    """Decides nothing itself: takes decisions, and lets nothing pass without its entry."""

    def __init__(self, database: Database, ledger: AuditWriter, *, pool_id: str, clock: Callable[[], int]) -> None:
        self._database = database
        self._ledger = ledger
        self._pool_id = pool_id
        self._clock = clock  # microseconds UTC
        self._lock = threading.Lock()
        self._folds: dict[tuple[str, ...], tuple[_Fold, AuditEntry]] = {}

    def admit(
        self,
        actor: Actor,
        action: Action,
        resource: str,
        call: RequestContext,
        decision: Allow | Deny,
        grant: GrantRef | None = None,
    ) -> Authorized:
        """Let an allowed act on; record a denial and raise it.

        Raises:
            RefusedError: with the decision's reason and explanation.
            UnavailableError: the denial could not be recorded.
        """
        passage = Authorized(
            pool_id=self._pool_id,
            actor=actor,
            action=action,
            resource=resource,
            call=call,
            grant=grant,
            clock=self._clock,
        )
        if isinstance(decision, Deny):
            self._deny(passage, decision)
            raise RefusedError(decision.reason, decision.explanation)
        return passage

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
        passage = self.admit(actor, action, resource, call, decision, grant)
        act = AuditedAct(uuid7(self._clock()))
        try:
            with self._database.begin() as work:
                yield work, act
                if act.grant is not None:
                    passage = replace(passage, grant=act.grant)
                self._ledger.write(work, [passage.entry(act.data, entry_id=act.entry_id)], last=True)
        except PoolError as error:
            self._failed(passage, error)
            raise

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

        The log may thus tell of an act that a crash prevented, but never miss one that happened.

        Raises:
            RefusedError: the decision denies it.
            UnavailableError: nothing happened.
        """
        passage = self.admit(actor, action, resource, call, decision)
        self.record(passage, attributes or {})
        try:
            yield
        except PoolError as error:
            self._failed(passage, error)
            raise

    def _failed(self, passage: Authorized, error: PoolError) -> None:
        self.record(passage, {"failed": str(error.reason)})

    def record(self, authorized: Authorized, data: Mapping[str, Json]) -> None:
        """Write the entry of an authorized act in a transaction of its own.

        Raises:
            UnavailableError: it is not written.
        """
        self._write([authorized.entry(data)])

    def flush(self) -> None:
        """Write the folded denials whose minute is over; called about once a minute, and at the end with close()."""
        self._flush(self._clock() - _FOLD)

    def close(self) -> None:
        """Write every folded denial."""
        self._flush(None)

    def _deny(self, passage: Authorized, decision: Deny) -> None:
        actor = passage.actor
        key = (actor.department, actor.id, actor.certificate, passage.action, passage.resource, decision.reason)
        now = self._clock()
        with self._lock:
            held = self._folds.get(key)
            if held is not None and now - held[0].since < _FOLD:
                held[0].count += 1
                return
            crowded = len(self._folds) >= _MOST_FOLDS
        entry = replace(passage.entry({}), decision=Decision.DENY, reason=decision.reason)
        entries = [entry]
        if held is not None and held[0].count:
            entries.insert(0, _folded(*held, at=now))
        self._write(entries)
        with self._lock:
            self._folds[key] = (_Fold(now), entry)
        if crowded:
            self._flush(None)

    def _flush(self, before: int | None) -> None:
        with self._lock:
            over = {key: held for key, held in self._folds.items() if before is None or held[0].since <= before}
            for key in over:
                del self._folds[key]
        entries = [_folded(*held, at=self._clock()) for held in over.values() if held[0].count]
        if entries:
            self._write(entries)

    def _write(self, entries: Sequence[AuditEntry]) -> None:
        with self._database.begin() as work:
            self._ledger.write(work, entries, last=True)


def _folded(fold: _Fold, first: AuditEntry, *, at: int) -> AuditEntry:
    data = folded_data(count=fold.count, since=fold.since)
    return replace(first, id=uuid7(at), at=at, salt=random_id(), data=data)
