"""Reads of requests: how one was decided on, its clock, and lists by state and deadline.

The parties of a grant and the pool's own roles read its request, as the grant itself; a read of one is an entry, lists
are folded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import AccessStore, GrantQuery, cursor_behind
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.reads import GrantReads
from exchange.control.requests.due_dates import due_of
from exchange.control.requests.law import unsigned
from exchange.control.requests.stored import StoredRequests
from exchange.deadlines.clock import Due, DueState
from exchange.deadlines.in_force import RulesInForce
from exchange.requests.model import Event, Ground, RequestState, ShareRequest, Step
from exchange.requests.refusals import GROUND_WORDS
from exchange.requests.request_json import to_json
from exchange.requests.rules import Clock
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from schemas.access import Action, Actor, Grant
from schemas.canonical import Json
from schemas.errors import CorruptError

__all__ = ["RequestReads", "RequestView"]

_ASKED = frozenset({RequestState.SUBMITTED, RequestState.COUNTERSIGNED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    """A request, and its clock.

    Attributes:
        grant: the current version of its grant, by which a list is ordered.
        request: as it is stored.
        clock: which one runs; None where none does.
        deadline: until when; None where none runs, or the rules cannot be read.
        due: how near that is.
    """

    grant: Grant
    request: ShareRequest
    clock: Clock | None = None
    deadline: Due | None = None
    due: DueState | None = None

    def to_json(self, *, history: bool) -> dict[str, Json]:
        """Return the document, with every event or with the last one alone."""
        document = to_json(self.request)
        del document["form"]
        steps = document.pop("history")
        assert isinstance(steps, list)  # noqa: S101 - of the form
        deadline = self.deadline
        return {
            **document,
            "clock": None if self.clock is None else str(self.clock),
            "due_at": None if deadline is None else deadline.at.isoformat(),
            "due_confirmed": None if deadline is None else not deadline.provisional,
            "due": None if self.due is None else str(self.due),
            "waits_for": [*unsigned(self.request)] if self.request.state in _ASKED else [],
            "refusal": _refusal(self.request),
            **({"history": steps} if history else {"last": steps[-1] if steps else None}),
        }


class RequestReads:
    """Audited reads of requests.

    Args:
        database: opens readers.
        enforcer: decides and records.
        access: the grants.
        requests: the stored requests.
        attributes: of actors, and the rules in force.
        grants: decides who may read a grant.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        access: AccessStore,
        requests: StoredRequests,
        attributes: AttributeProvider,
        grants: GrantReads,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._access = access
        self._requests = requests
        self._attributes = attributes
        self._grants = grants

    def show(self, actor: Actor, call: RequestContext, request_id: str) -> RequestView:
        """Return a request with its history.

        Raises:
            RefusedError: the actor may not see it; GRANT_FORGED.
            CorruptError: ROW_FORGED, its row is not one that the pool wrote.
        """

        def read(work: UnitOfWork, act: AuditedAct) -> Sequence[RequestView]:
            del act
            grant = self._access.get(work, request_id)
            return [self._view(grant, self._requests.of(work, grant), self._rules(work), work)]

        (found,) = self._grants.reading(actor, call, request_id, read)
        return found

    def page(
        self, actor: Actor, call: RequestContext, query: GrantQuery, *, due: DueState | None = None
    ) -> Sequence[RequestView | DamagedRow]:
        """List the requests that the actor may see: its department's, or all. A damaged row is named.

        Args:
            actor: who asks.
            call: the context.
            query: which grants.
            due: only those of which a clock runs that is so near its end.

        Raises:
            RefusedError: the actor may see none.
        """
        decision = decide_control(
            actor, Action.GRANT_READ, standing=self._attributes.standing(actor), department=actor.department or None
        )
        authorized = self._enforcer.admit(actor, Action.GRANT_READ, "*", call, decision)
        if actor.department:
            query = replace(query, party=actor.department)

        def read(after: str, limit: int) -> Sequence[RequestView | DamagedRow]:
            with self._database.read() as reader:
                grants = self._access.page(reader, replace(query, after=after, limit=limit))
                known = self._requests.some(reader, [one for one in grants if isinstance(one, Grant)])
                rules = self._rules(reader)
                return [self._listed(one, known, rules, reader) for one in grants]

        def keep(rows: Sequence[RequestView | DamagedRow]) -> Sequence[RequestView | DamagedRow]:
            return [one for one in rows if due is None or isinstance(one, DamagedRow) or one.due is due]

        def key(one: RequestView | DamagedRow) -> str:
            if isinstance(one, DamagedRow):
                return one.cursor
            return cursor_behind(query.order, one.grant.expires, one.grant.id)

        found = collect(read, keep, key, after=query.after, limit=query.limit)
        self._enforcer.record_read(authorized, {})
        return found

    def _listed(
        self,
        grant: Grant | DamagedRow,
        known: Mapping[str, ShareRequest | DamagedRow],
        rules: RulesInForce | None,
        reader: Reader,
    ) -> RequestView | DamagedRow:
        if isinstance(grant, DamagedRow):
            return grant
        request = known[grant.id]
        return request if isinstance(request, DamagedRow) else self._view(grant, request, rules, reader)

    def _view(self, grant: Grant, request: ShareRequest, rules: RulesInForce | None, reader: Reader) -> RequestView:
        found = None if rules is None else due_of(request, rules)
        if found is None or rules is None:
            return RequestView(grant=grant, request=request)
        clock, deadline = found
        near = deadline.state(self._attributes.now(reader), rules.calendar)
        return RequestView(grant=grant, request=request, clock=clock, deadline=deadline, due=near)

    def _rules(self, reader: Reader) -> RulesInForce | None:
        """Return the rules in force; None where a row of them is damaged: a request shows no deadline then."""
        try:
            return self._attributes.rules(reader)
        except CorruptError:
            return None


def _refusal(request: ShareRequest) -> dict[str, Json] | None:
    """Return what the last refusal of a request says, its ground in both languages; None where it was not refused."""
    refusals = [step for step in request.history if step.event in {Event.REJECT, Event.UPHOLD}]
    if not refusals or request.state not in {RequestState.REJECTED, RequestState.IN_DISPUTE}:
        return None
    last = refusals[-1]
    return {"reason": last.reason, "clause": last.clause, **_ground(refusals)}


def _ground(refusals: Sequence[Step]) -> dict[str, Json]:
    named = next((step.ground for step in reversed(refusals) if step.ground), "")
    if not named:
        return {"ground": None}
    english, chinese = GROUND_WORDS[Ground(named)]
    return {"ground": named, "ground_en": english, "ground_zh": chinese}
