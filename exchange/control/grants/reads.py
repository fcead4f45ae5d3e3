"""Reads of grants: one in words, lists, counts by state, and what is read of one grant.

The parties of a grant and the pool's own roles read it. Each read of one grant is an entry; lists are folded; counts,
which name nothing, leave none (`exchange.authorization.enforcement`).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

from exchange.access.decision.purposes import Purpose
from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import AccessStore, GrantQuery, cursor_behind
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.review import GrantReview, Review, SchemaMaskSource
from exchange.control.requests.stored import StoredRequests
from exchange.deadlines.clock import DueState
from exchange.duties.store import DutyStore
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Deny, Grant, GrantState
from schemas.errors import CorruptError, PoolError, Reason

__all__ = ["MOST_COUNTED", "GrantReads", "read_grant"]

MOST_COUNTED: Final = 1_000
"""Grants of one state that are counted; a state may have more."""
_WAITS: Final = frozenset({GrantState.SUBMITTED, GrantState.COUNTERSIGNED})
_Item = TypeVar("_Item")


class GrantReads:
    """Audited reads of grants.

    Args:
        database: opens readers.
        enforcer: decides and records.
        access: the grants.
        attributes: of actors and resources.
        masks: how schemas mask fields.
        duties: the duty lists.
        requests: the stored requests; without them, as the grants' rows tell them.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        access: AccessStore,
        attributes: AttributeProvider,
        masks: SchemaMaskSource,
        duties: DutyStore,
        requests: StoredRequests | None = None,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._review = GrantReview(access, masks, attributes, duties, requests)

    def show(self, actor: Actor, call: RequestContext, grant_id: str) -> Review:
        """Return a grant, and in words what an approver must know of it.

        Raises:
            RefusedError: the actor may not see it.
        """
        grant, proven = read_grant(self._database, self._access, grant_id)
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, Action.GRANT_READ, standing=standing, grant=grant, proven=proven)
        resource = str(grant.topic) if grant else grant_id
        with self._enforcer.act(actor, Action.GRANT_READ, resource, call, decision) as (work, act):
            grant = self._access.get(work, grant_id)
            act.grant = reference_to(grant)
            return self._review.review(work, grant, similar=actor.department != grant.consumer)

    def reading(
        self,
        actor: Actor,
        call: RequestContext,
        grant_id: str,
        read: Callable[[UnitOfWork, AuditedAct], Sequence[_Item]],
        *,
        of_provider: bool = False,
    ) -> Sequence[_Item]:
        """Return what is read of one grant, for those who may see it, with an entry.

        Args:
            actor: who asks.
            call: the context.
            grant_id: which grant.
            read: reads it, in the transaction of the entry.
            of_provider: for accounts of its provider and those of no department alone.

        Raises:
            RefusedError: the actor may not see it; GRANT_FORGED; NOT_PROVIDER.
        """
        grant, proven = read_grant(self._database, self._access, grant_id)
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, Action.GRANT_READ, standing=standing, grant=grant, proven=proven)
        if of_provider and decision and grant is not None and actor.department not in {"", grant.provider}:
            decision = Deny(
                Reason.NOT_PROVIDER,
                "this is told to the department that provides the records and to the pool's own roles; ask one",
            )
        resource = str(grant.topic) if grant else grant_id
        with self._enforcer.act(actor, Action.GRANT_READ, resource, call, decision) as (work, act):
            act.grant = reference_to(self._access.get(work, grant_id))
            return read(work, act)

    def reviews(
        self,
        actor: Actor,
        call: RequestContext,
        query: GrantQuery,
        *,
        unmasked: bool = False,
        due: DueState | None = None,
    ) -> Sequence[Review | DamagedRow]:
        """List grants as `list` does, each with what it shows beyond the schema's masks.

        Args:
            actor: who asks.
            call: the context.
            query: which grants.
            unmasked: only those that show unmasked what no request wrote out.
            due: only requests that wait and whose deadline is so near; a damaged row may be one of them.

        Raises:
            RefusedError: the actor may see none.
        """
        decision = decide_control(
            actor, Action.GRANT_READ, standing=self._attributes.standing(actor), department=actor.department or None
        )
        authorized = self._enforcer.admit(actor, Action.GRANT_READ, "*", call, decision)
        query = self._own(actor, query)
        if due is not None:
            query = replace(query, states=_WAITS if query.states is None else query.states & _WAITS)

        def read(after: str, limit: int) -> Sequence[Review | DamagedRow]:
            with self._database.read() as reader:
                return self._review.reviews(reader, self._access.page(reader, replace(query, after=after, limit=limit)))

        def keep(rows: Sequence[Review | DamagedRow]) -> Sequence[Review | DamagedRow]:
            found = [one for one in rows if not unmasked or (not isinstance(one, DamagedRow) and one.undecided)]
            return [one for one in found if due is None or isinstance(one, DamagedRow) or one.due is due]

        def key(one: Review | DamagedRow) -> str:
            if isinstance(one, DamagedRow):
                return one.cursor
            return cursor_behind(query.order, one.grant.expires, one.grant.id)

        found = collect(read, keep, key, after=query.after, limit=query.limit) if query.states != frozenset() else []
        self._enforcer.record_read(authorized, {})
        return found

    def list(self, actor: Actor, call: RequestContext, query: GrantQuery) -> Sequence[Grant | DamagedRow]:
        """List the grants that the actor may see: its department's, or all. A damaged row is named.

        Raises:
            RefusedError: the actor may see none.
        """
        decision = decide_control(
            actor, Action.GRANT_READ, standing=self._attributes.standing(actor), department=actor.department or None
        )
        authorized = self._enforcer.admit(actor, Action.GRANT_READ, "*", call, decision)
        with self._database.read() as reader:
            found = self._access.page(reader, self._own(actor, query))
        self._enforcer.record_read(authorized, {})
        return found

    def counts(self, actor: Actor, call: RequestContext) -> dict[GrantState, int]:
        """Return how many grants that the actor may see are in each state, `MOST_COUNTED` + 1 for any more.

        States without any are left out. It names no grant, so it leaves no entry, and counts rows that are damaged too.

        Raises:
            RefusedError: the actor may see none.
        """
        decision = decide_control(
            actor, Action.GRANT_READ, standing=self._attributes.standing(actor), department=actor.department or None
        )
        self._enforcer.admit(actor, Action.GRANT_READ, "*", call, decision)
        with self._database.read() as reader:
            return self._access.state_counts(reader, party=actor.department or None, most=MOST_COUNTED + 1)

    @staticmethod
    def _own(actor: Actor, query: GrantQuery) -> GrantQuery:
        return replace(query, party=actor.department) if actor.department else query

    def purposes(self) -> Sequence[Purpose | DamagedRow]:
        """Return the purposes that a request may name; they are public. A damaged row is named."""
        with self._database.read() as reader:
            return self._access.listed_purposes(reader)


def read_grant(database: Database, access: AccessStore, grant_id: str) -> tuple[Grant | None, bool]:
    """Return the grant, and whether the MAC of its current version was verified.

    Where it was not, the grant is the newest version that the pool wrote, or None; None also where it is unknown.
    """
    try:
        with database.read() as reader:
            return access.get(reader, grant_id), True
    except CorruptError:
        with database.read() as reader, suppress(CorruptError):
            return access.last_proven(reader, grant_id), False
        return None, False
    except PoolError as error:
        if error.reason is Reason.GRANT_UNKNOWN:
            return None, True
        raise
