"""Append recovery: the receipts and entries of batches that a gateway committed before it died.

A broker with transactions of its own (Kafka) commits a batch before its receipt and entry are stored. If the gateway
dies in between, the records are visible without an entry. What the broker remembers of each lane is therefore compared
with the receipts, and what is missing is written, marked `recovered`:

    resume      when a connector goes on with its lane, here or at another gateway
    sweep       at start and every 10 s, on every gateway, for all lanes
    catch_up    before a gateway appends to a lane whose head it does not know

A publish entry may thus be later than the records are visible; a release entry never is. Several gateways may recover
the same batch: the store accepts one receipt for each sequence number, and the others return that one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from exchange.access.decision.policy import decide
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from exchange.authorization.serving import ServingGuard
from exchange.broker.port import Appended, Broker, LaneFault, Retention
from exchange.records.receipts import LaneReceipts, Publication
from exchange.records.retractions import read_retractions
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, ActorKind, Allow, Role
from schemas.errors import ConflictError, PoolError, Reason
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import Receipt

__all__ = ["AppendRecovery"]

_SETTLED = 15_000_000  # microseconds after which the gateway that appended is taken for dead
_SWEEPER = RequestContext(trace="0" * 32, client="sweeper")


class AppendRecovery:
    """Writes the receipts that are missing."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        broker: Broker,
        receipts: LaneReceipts,
        serving: ServingGuard,
        clock: Callable[[], int],
        window: float = RELEASE_WINDOW,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._broker = broker
        self._receipts = receipts
        self._serving = serving
        self._clock = clock
        self._window = window  # seconds
        self._sleep = sleep

    def resume(self, actor: Actor, call: RequestContext, topic: Topic) -> Receipt | None:
        """Take the actor's lane of this topic over and return its last receipt; None if there is none.

        Raises:
            RefusedError: the connector may not publish this.
            UnavailableError: LOG_BEHIND, while the log is not signed: the answer is a receipt.
        """
        self._serving.require()
        attributes = self._attributes.current(actor, topic)
        resource, actor = attributes.resource, attributes.in_zone(actor)
        decision = decide(actor, Action.RESUME, standing=attributes.standing, resource=resource)
        authorized = self._enforcer.admit(actor, Action.RESUME, str(topic) if resource else "", call, decision)
        lane = Lane(actor.department, ConnectorId(actor.id), topic)
        state = self._broker.resume(lane)
        self._receipts.forget_head(lane)
        sequence = state.receipts[-1].sequence if state else 0
        self._enforcer.record(authorized, {"lane": str(lane), "sequence": sequence})
        if state is None:
            return None
        # All that the broker remembers, not the last alone: a broker forgets a lane's older batches as it goes on, and
        # a batch that is forgotten before the sweeper comes would never get its entry.
        if self.catch_up(state.receipts):
            # The answer acknowledges them, and retractions may be among them: what was about to leave has left by then.
            self._sleep(self._window)
        last = Publication(authorized=replace(authorized, action=Action.PUBLISH), appended=state.receipts[-1])
        return self.receipt(last)

    def keeps_history(self, topic: Topic) -> bool:
        """Return whether earlier records of a key are kept beside the latest one: what a connector's voids mean to it.

        Raises:
            InvalidError: NOT_FOUND, there is no such topic.
        """
        return self._broker.topic(topic).keep is Retention.ALL

    def sweep(self, report: Callable[[LaneFault], None]) -> int:
        """Write what is missing of every lane; return the number of receipts written.

        *report* is called with each lane whose receipts the broker cannot read.

        Raises:
            PoolError: of the first lane that failed, when all others are done.
        """
        settled = self._clock() - _SETTLED  # a later one's own gateway is most likely about to write it
        written, failed = 0, None
        for state in self._broker.lanes():
            if isinstance(state, LaneFault):
                report(state)
                continue
            try:
                written += self.catch_up([one for one in state.receipts if one.recorded_at <= settled])
            except PoolError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return written

    def catch_up(self, appended: Sequence[Appended]) -> int:
        """Write what is missing of these batches, as their connector's acts; return the number of receipts written."""
        with self._database.read() as reader:
            missing = [one for one in appended if self._receipts.get(reader, one.lane, one.sequence) is None]
        for one in missing:
            connector = Actor(
                kind=ActorKind.MACHINE, id=one.lane.connector, department=one.lane.department, role=Role.CONNECTOR
            )
            # Decided by the gateway that appended it.
            authorized = self._enforcer.admit(connector, Action.PUBLISH, str(one.lane.topic), _SWEEPER, Allow())
            self.receipt(Publication(authorized=authorized, appended=one))
        return len(missing)

    def receipt(self, publication: Publication) -> Receipt:
        """Return the receipt of a batch that was appended before; write it, marked `recovered`, where it is missing."""
        lane, sequence = publication.appended.lane, publication.appended.sequence
        if publication.retractions is None:
            with self._database.read() as reader:
                receipt = self._receipts.get(reader, lane, sequence)
            if receipt is not None:
                return receipt
            publication = replace(publication, retractions=read_retractions(self._broker, publication.appended))
        while True:
            try:
                with self._database.begin() as work:
                    receipt = self._receipts.get(work, lane, sequence)
                    return receipt or self._receipts.write(work, [replace(publication, recovered=True)])[sequence]
            except ConflictError as error:
                if error.reason is not Reason.ALREADY_EXISTS:
                    raise
                # Another gateway was faster: the next attempt reads what it wrote.
