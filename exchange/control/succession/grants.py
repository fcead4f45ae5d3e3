"""Succession of grants and requests: each goes over to the successor, or is closed, with an entry of its own.

A grant that goes over is active at once. Where the successor holds others of the resource, and all of them together
were never decided on (`exchange.access.grants.holding.check_resumption`), it is suspended in the same transaction: the
others are ended and it is resumed, or a new request is made.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from exchange.access.decision.grant_rules import Event
from exchange.access.decision.roles import decide_control
from exchange.access.grants.holding import check_resumption
from exchange.access.grants.life_cycle import advance
from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.access.grants.succession import CLOSED_WITH_A_PARTY, MOVED, close, succeed
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.review import GrantReview
from exchange.requests.model import TERMINAL, RequestState
from exchange.requests.store import RequestStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Allow, Deny, Grant, GrantState
from schemas.errors import ConflictError, CorruptError, RefusedError
from schemas.names import Topic

__all__ = ["GrantSuccession", "Handover"]

_PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """A succession that is carried out.

    Attributes:
        actor, call: who carries it out.
        department: that has ended.
        into: its successor.
        reason: in words.
        duties: code in the department's duty list → code in the successor's.
    """

    actor: Actor
    call: RequestContext
    department: str
    into: str
    reason: str
    duties: Mapping[str, str]


class GrantSuccession:
    """Moves and closes grants."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        access: AccessStore,
        attributes: AttributeProvider,
        requests: RequestStore,
        review: GrantReview,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._requests = requests
        self._review = review

    def move_of_topic(self, work: UnitOfWork, act: AuditedAct, handover: Handover, topic: Topic) -> int:
        """Let the grants on a resource follow its entry to the new provider, in the transaction of an open act.

        Return their number. One whose consumer is the successor stays; it is ended afterwards.
        """
        query = GrantQuery(provider=handover.department, topic=topic, states=MOVED, limit=_PAGE)
        moved = 0
        while page := self._access.page(work, query):
            for one in page:
                if isinstance(one, DamagedRow) or one.consumer == handover.into:
                    continue
                resource = str(one.topic)
                decision = self._decide(work, handover.actor, Action.GRANT_SUCCEED, one)
                following = self._enforcer.follow(
                    act, handover.actor, Action.GRANT_SUCCEED, resource, handover.call, decision
                )
                self._move(work, following, handover, one.id)
                moved += 1
            query = replace(query, after=_cursor(page[-1]))
        return moved

    def move_rest(self, handover: Handover) -> None:
        """Move every other grant of the department; those that cannot go over stay, to be ended."""
        for grant in self._open(handover.department):
            if {grant.consumer, grant.provider} == {handover.department, handover.into}:
                continue
            try:
                self._move_alone(handover, grant)
            except (ConflictError, CorruptError):
                continue  # ended or damaged meanwhile: the caller ends what is left

    def _move_alone(self, handover: Handover, grant: Grant) -> None:
        actor, action, call = handover.actor, Action.GRANT_SUCCEED, handover.call
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=True)
        with self._enforcer.act(actor, action, str(grant.topic), call, decision) as (work, act):
            for party in sorted({handover.department, handover.into}):
                self._access.lock_holding(work, party, grant.topic.name)
            moved = self._move(work, act, handover, grant.id)
            self._suspend_undecided(work, act, handover, moved)

    def _move(self, work: UnitOfWork, act: AuditedAct, handover: Handover, grant_id: str) -> Grant:
        now = self._attributes.now(work)
        grant = self._access.lock_for_update(work, grant_id)
        moved = succeed(grant, handover.department, handover.into, handover.duties)
        self._access.put(work, moved, entry_id=act.entry_id, at=now)
        request = self._requests.get(work, grant_id)
        if request is not None and request.state not in TERMINAL:
            followed = replace(
                request,
                version=request.version + 1,
                consumer=moved.consumer,
                provider=moved.provider,
                duty=moved.duty or request.duty,
            )
            self._requests.put(work, followed)
        act.grant = reference_to(moved)
        side = "consumer" if grant.consumer == handover.department else "provider"
        act.note(party=side, before=handover.department, into=handover.into, because=handover.reason)
        return moved

    def _suspend_undecided(self, work: UnitOfWork, act: AuditedAct, handover: Handover, grant: Grant) -> None:
        if grant.state is not GrantState.ACTIVE or grant.consumer != handover.into:
            return
        holding = self._review.holding(work, grant)
        if not holding.others:
            return
        try:
            check_resumption(holding)
        except RefusedError as error:
            now, action = self._attributes.now(work), Action.GRANT_SUSPEND
            decision = self._decide(work, handover.actor, action, grant)
            following = self._enforcer.follow(act, handover.actor, action, str(grant.topic), handover.call, decision)
            suspended = advance(grant, Event.SUSPEND, by=handover.actor, at=now, reason=error.message)
            self._access.put(work, suspended, entry_id=following.entry_id, at=now)
            following.grant = reference_to(suspended)
            following.note(reason=error.message, state=str(suspended.state))

    def close_requests(self, actor: Actor, call: RequestContext, department: str, reason: str) -> None:
        """Close the requests in which a department that has ended is still a party."""
        for grant in self._open(department):
            if grant.state not in CLOSED_WITH_A_PARTY:
                continue
            decision = decide_control(
                actor, Action.GRANT_SUCCEED, standing=self._attributes.standing(actor), grant=grant, proven=True
            )
            try:
                with self._enforcer.act(actor, Action.GRANT_SUCCEED, str(grant.topic), call, decision) as (work, act):
                    now = self._attributes.now(work)
                    closed = close(self._access.lock_for_update(work, grant.id))
                    self._access.put(work, closed, entry_id=act.entry_id, at=now)
                    request = self._requests.get(work, grant.id)
                    if request is not None and request.state not in TERMINAL:
                        ended = replace(request, version=request.version + 1, state=RequestState.WITHDRAWN)
                        self._requests.put(work, ended)
                    act.grant = reference_to(closed)
                    act.note(before=department, because=reason, state=str(closed.state))
            except (ConflictError, CorruptError):
                continue

    def _open(self, department: str) -> Iterator[Grant]:
        """Yield the grants and requests in which a department is an active party, without damaged rows."""
        query = GrantQuery(party=department, states=MOVED, limit=_PAGE)
        while True:
            with self._database.read() as reader:
                page = self._access.page(reader, query)
            if not page:
                return
            yield from (one for one in page if not isinstance(one, DamagedRow))
            query = replace(query, after=_cursor(page[-1]))

    def _decide(self, work: UnitOfWork, actor: Actor, action: Action, grant: Grant) -> Allow | Deny:
        standing = self._attributes.standing_of(work, actor)
        return decide_control(actor, action, standing=standing, grant=grant, proven=True)


def _cursor(row: Grant | DamagedRow) -> str:
    return row.cursor if isinstance(row, DamagedRow) else row.id
