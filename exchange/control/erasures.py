"""Erasure service: propose, confirm, reject and carry out the destruction of a person's values (`pool erase`).

    propose     the key comes from the caller in the clear and is stored, and entered in the log, as its pseudonym
    confirm     by another person. In one transaction: the decision, a retraction up to the end of the partition, the
                removal from correction tickets, the entry. Then the list outside the database; the answer comes after
                the release window, so that nothing before it is released once this has returned
    carry_out   what is confirmed, one by one: the broker destroys the values and what it still holds of them; an entry
    retract_earlier   before a pool serves: voids that an earlier version stored become retractions
    replay      before a pool serves: what the list has and the database does not, since it was restored

If a gateway dies after the confirmation, another one carries it out; if it dies before the list is written, the next
`carry_out` writes it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from exchange.broker.port import Broker
from exchange.control.stored_retractions import stored_retractions
from exchange.corrections.store import CorrectionStore
from exchange.erasure.erasures import Erasure, ErasureList, ErasureState, ErasureStore, unknown_erasure
from exchange.erasure.retractions import Retraction, RetractionStore
from exchange.identity.pseudonyms import Pseudonyms, partitions
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE, collect
from registry.database.unit_of_work import Database, UnitOfWork
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Actor, ActorKind, Allow, Deny, Role
from schemas.errors import ConflictError, InvalidError, PoolError, Reason
from schemas.names import Topic
from schemas.record import key_bytes

__all__ = ["ErasureService"]

_TIMER = Actor(kind=ActorKind.MACHINE, id="timer", department="", role=Role.OPERATOR)
_TIMER_CALL = RequestContext(trace="0" * 32, client="timer")
_MAX_REASON = 2000  # characters
_READ_RECORDS = 16_384
_READ_BYTES = 16 * 1024 * 1024
_log = structlog.get_logger()


class ErasureService:
    """Erasures as acts of persons, and the pool's own act that follows."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        broker: Broker,
        store: ErasureStore,
        listed: ErasureList,
        retractions: RetractionStore,
        corrections: CorrectionStore,
        pseudonyms: Pseudonyms,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._broker = broker
        self._store = store
        self._listed = listed
        self._retractions = retractions
        self._corrections = corrections
        self._pseudonyms = pseudonyms
        self._now = now
        self._new_id = new_id
        self._sleep = sleep
        self._running = threading.Lock()
        self._destroyed: dict[str, int] = {}  # values of erasures that are not complete yet
        self._not_allowed: set[str] = set()  # erasures that this process's broker refuses to carry out

    def propose(self, actor: Actor, call: RequestContext, topic: Topic, key: Sequence[str], reason: str) -> Erasure:
        """Propose the erasure of a key.

        Args:
            actor: the proposer.
            call: its context.
            topic: whose values.
            key: the parts of the record key, in the schema's order.
            reason: in words; it goes into the log.

        Raises:
            RefusedError: the actor may not.
            InvalidError: RESOURCE_UNKNOWN, NOT_FOUND; RECORD_INVALID, no key; REQUEST_INVALID, no reason or one that
                holds the key.
        """
        provider = self._provider(topic)
        # Before the transaction: while the broker does not answer, nobody must wait for its connection.
        count = self._broker.topic(topic).partitions
        decision = self._decide(actor, Action.ERASURE_PROPOSE, provider)
        with self._enforcer.act(actor, Action.ERASURE_PROPOSE, str(topic), call, decision) as (work, act):
            _check_reason(reason, key)
            (pseudonym,) = self._pseudonyms.pseudonyms(topic, [key_bytes(key)])
            (partition,) = partitions([pseudonym], count)
            erasure = Erasure(
                id=self._new_id(),
                topic=topic,
                key=pseudonym,
                partition=partition,
                reason=reason,
                state=ErasureState.PROPOSED,
                proposed_by=actor.id,
                proposed_at=self._now(),
            )
            self._store.add(work, erasure)
            act.note(erasure=erasure.id, pseudonym=pseudonym.hex(), reason=reason)
        return erasure

    def confirm(self, actor: Actor, call: RequestContext, erasure_id: str) -> Erasure:
        """Confirm an erasure; when this returns, no value of the key from before is released any more.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, it proposed the erasure.
            InvalidError: NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED, it was decided before.
            UnavailableError: it is confirmed, and not yet in the list outside the database; the pool repeats that.
        """
        return self._decided(actor, call, erasure_id, Action.ERASURE_CONFIRM)

    def reject(self, actor: Actor, call: RequestContext, erasure_id: str, reason: str) -> Erasure:
        """Reject an erasure.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, it proposed the erasure.
            InvalidError: NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED, it was decided before.
        """
        return self._decided(actor, call, erasure_id, Action.ERASURE_REJECT, reason)

    def list(
        self, actor: Actor, call: RequestContext, *, after: str = "", limit: int = MAX_PAGE
    ) -> Sequence[Erasure | DamagedRow]:
        """Return the erasures that the actor may see: of its department's resources, or all.

        Those after an id; fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may see none.
        """
        decision = self._decide(actor, Action.ERASURE_READ, actor.department or None)
        authorized = self._enforcer.admit(actor, Action.ERASURE_READ, "*", call, decision)

        def read(key: str, most: int) -> Sequence[Erasure | DamagedRow]:
            with self._database.read() as reader:
                return self._store.page(reader, after=key, limit=most)

        def keep(rows: Sequence[Erasure | DamagedRow]) -> Sequence[Erasure | DamagedRow]:
            return [one for one in rows if not actor.department or self._provider_of(one) == actor.department]

        def key(one: Erasure | DamagedRow) -> str:
            return one.cursor if isinstance(one, DamagedRow) else one.id

        found = collect(read, keep, key, after=after, limit=limit)
        self._enforcer.record_read(authorized, {})
        return found

    def carry_out(self, broker: Broker | None = None) -> int:
        """Carry out what is confirmed; return the number of erasures that are done.

        One that fails does not stop the others; the reason is logged, and the next call tries again, unless this
        process may not do it at all.

        Args:
            broker: the pool's own if not given; one with the operator's certificate may do more.
        """
        using = broker or self._broker
        with self._running:
            with self._database.read() as reader:
                confirmed = self._store.list(reader, ErasureState.CONFIRMED)
            if not confirmed:
                return 0
            listed = {one.id for one in self._listed.all()}
            erased: list[Erasure] = []
            for erasure in confirmed:
                try:
                    if erasure.id not in listed:
                        self._listed.add(erasure)
                    if broker is not None or erasure.id not in self._not_allowed:
                        before = erasure.before or 0
                        count = using.erase(erasure.topic, erasure.partition, erasure.key, before)
                        # A repeated call finds none of those that an earlier one has replaced.
                        self._destroyed[erasure.id] = self._destroyed.get(erasure.id, 0) + count
                        erased.append(erasure)
                except PoolError as error:
                    if isinstance(error, ConflictError):
                        self._not_allowed.add(erasure.id)
                    _log.warning("erasure_failed", erasure=erasure.id, reason=error.reason, message=error.message)
            if not erased:
                return 0
            clean = using.destroy_erased({one.topic for one in erased})
            for erasure in erased:
                self._complete(erasure, self._destroyed.pop(erasure.id), clean=clean)
            return len(erased)

    def waiting(self) -> int:
        """Return the number of erasures that are confirmed and not carried out."""
        with self._database.read() as reader:
            return len(self._store.list(reader, ErasureState.CONFIRMED))

    def retract_earlier(self) -> int:
        """Store the voids from before retractions as such, of the topics that have any; return the number of topics.

        Call it before the pool serves, since until then the values before them are released. Each topic is read once.

        Raises:
            UnavailableError: the broker or the database does not answer; a repeated call goes on.
        """
        with self._database.read() as reader:
            topics = self._retractions.incomplete(reader)
        for topic in topics:
            for found in stored_retractions(self._broker, topic):
                with self._database.begin() as work:
                    self._retractions.add(work, topic, found)
            with self._database.begin() as work:
                self._retractions.complete(work, topic)
        return len(topics)

    def replay(self) -> int:
        """Carry out the listed erasures that the database does not have, as one that was restored; return their number.

        What the database has and the list does not, since somebody has removed it, is listed again. Call it before the
        pool serves.

        Raises:
            PoolError: they are not carried out; the pool must not serve.
        """
        with self._database.read() as reader:
            known = {one.id: one for one in self._store.list(reader)}
        listed = self._listed.all()
        ids = {one.id for one in listed}
        for one in known.values():
            if one.id not in ids and one.state in {ErasureState.CONFIRMED, ErasureState.DONE}:
                self._listed.add(one)
        missing = [
            one
            for one in listed
            if one.id not in known or known[one.id].state in {ErasureState.PROPOSED, ErasureState.REJECTED}
        ]
        for erasure in missing:
            self._confirm_again(erasure, known.get(erasure.id))
        if missing:
            self.carry_out()
            with self._database.read() as reader:
                waiting = {one.id for one in self._store.list(reader, ErasureState.CONFIRMED)}
            _log.warning("erasures_replayed", count=len(missing), waiting=len(waiting & {one.id for one in missing}))
        return len(missing)

    def _decided(
        self, actor: Actor, call: RequestContext, erasure_id: str, action: Action, reason: str = ""
    ) -> Erasure:
        with self._database.read() as reader:
            erasure = self._store.get(reader, erasure_id)
        if erasure is None:
            raise unknown_erasure(erasure_id)
        decision = self._decide(actor, action, self._provider_or_none(erasure.topic))
        if isinstance(decision, Allow):
            persons = self._attributes.persons(erasure.proposed_by, actor.id)
            refusal = refuse_second_signature(erasure.proposed_by, actor.id, persons)
            if refusal is not None:  # a denial counts as false, so `or` would pass it over
                decision = refusal
        confirmed = action is Action.ERASURE_CONFIRM
        # Before the transaction, as above. What is published from here on is none of this decision.
        before = self._broker.ends(erasure.topic).latest[erasure.partition] if confirmed else None
        with self._enforcer.act(actor, action, str(erasure.topic), call, decision) as (work, act):
            decided = erasure.decide(confirmed=confirmed, by=actor.id, at=self._now(), before=before)
            self._store.change(work, decided, ErasureState.PROPOSED)
            act.note(erasure=erasure.id, pseudonym=erasure.key.hex(), reason=reason or erasure.reason)
            if before is not None:
                act.note(partition=erasure.partition, before=before)
                self._retractions.add(work, erasure.topic, [_retraction(decided, before)])
                self._forget_tickets(work, act, erasure)
        if confirmed:
            self._listed.add(decided)
            self._sleep(RELEASE_WINDOW)  # what was about to leave has left by now, or never will
        return decided

    def _confirm_again(self, listed: Erasure, known: Erasure | None) -> None:
        """Store an erasure that was confirmed before the database was restored."""
        latest = self._latest(listed)
        # Positions from here on are given to other records than those that the restored database has lost.
        erasure = listed.limited(latest)
        decision = self._decide(_TIMER, Action.ERASURE_COMPLETE)
        resource = str(listed.topic)
        with self._enforcer.act(_TIMER, Action.ERASURE_COMPLETE, resource, _TIMER_CALL, decision) as (work, act):
            if known is None:
                self._store.add(work, erasure)
            else:
                self._store.change(work, erasure, known.state)
            act.note(erasure=erasure.id, pseudonym=erasure.key.hex(), replayed=True)
            self._retractions.add(work, erasure.topic, [_retraction(erasure, erasure.before or 0)])
            self._forget_tickets(work, act, erasure)

    def _forget_tickets(self, work: UnitOfWork, act: AuditedAct, erasure: Erasure) -> None:
        """Take the record out of correction tickets: what is claimed of a person goes with the person's values.

        After the retraction, for which who opens a ticket waits: so none is opened that this does not find.
        """
        tickets = self._corrections.erase(work, erasure.topic, erasure.key)
        if tickets:
            act.note(correction_tickets=tickets)

    def _latest(self, erasure: Erasure) -> int:
        """Return the end of an erasure's partition; 0 where the topic itself is lost."""
        try:
            return self._broker.ends(erasure.topic).latest[erasure.partition]
        except InvalidError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return 0

    def _complete(self, erasure: Erasure, destroyed: int, *, clean: bool) -> None:
        decision = self._decide(_TIMER, Action.ERASURE_COMPLETE)
        resource = str(erasure.topic)
        with self._enforcer.act(_TIMER, Action.ERASURE_COMPLETE, resource, _TIMER_CALL, decision) as (work, act):
            self._store.change(work, erasure.complete(destroyed=destroyed, at=self._now()), ErasureState.CONFIRMED)
            act.note(erasure=erasure.id, pseudonym=erasure.key.hex(), destroyed=destroyed, logs_clean=clean)
        if not clean:
            _log.warning("erasure_left_logs", erasure=erasure.id)

    def _provider(self, topic: Topic) -> str:
        provider = self._provider_or_none(topic)
        if provider is None:
            raise InvalidError(
                Reason.RESOURCE_UNKNOWN, f"got the topic {topic}, which is not in the catalogue; see `pool catalogue`"
            )
        return provider

    def _provider_of(self, one: Erasure | DamagedRow) -> str | None:
        try:
            return self._provider_or_none(Topic.parse(one.about) if isinstance(one, DamagedRow) else one.topic)
        except InvalidError:  # a damaged row may name anything
            return None

    def _provider_or_none(self, topic: Topic) -> str | None:
        resource = self._attributes.resource(topic)
        return resource.provider if resource else None

    def _decide(self, actor: Actor, action: Action, department: str | None = None) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor), department=department)


def _retraction(erasure: Erasure, before: int) -> Retraction:
    return Retraction(key=erasure.key, partition=erasure.partition, position=before)


def _check_reason(reason: str, key: Sequence[str]) -> None:
    if not reason.strip() or len(reason) > _MAX_REASON:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got no reason, or one of more than {_MAX_REASON} characters; expected some words"
        )
    if any(part and part in reason for part in key):
        raise InvalidError(
            Reason.REQUEST_INVALID, "the reason holds the key; expected words without it, as it goes into the log"
        )
