"""Timer of grants: expiry of those whose time is over, and review of those that show unmasked what nobody wrote out.

One that cannot be changed (a forged one, say) does not stop the others, and is tried again later.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from exchange.access.decision.grant_rules import Event
from exchange.access.decision.roles import decide_control
from exchange.access.grants.exposure import SchemaMasks, undecided_exposure
from exchange.access.grants.life_cycle import remind, suspend_unmasked
from exchange.access.grants.store import AccessStore
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.review import SchemaMaskSource
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, ActorKind, Grant, Role
from schemas.errors import ConflictError, PoolError, UnavailableError
from schemas.names import Topic

__all__ = ["TIMER", "TIMER_CALL", "GrantTimer"]


TIMER: Final = Actor(kind=ActorKind.MACHINE, id="timer", department="", role=Role.OPERATOR)
"""The pool itself, as the actor of what happens by the clock."""
TIMER_CALL: Final = RequestContext(trace="0" * 32, client="timer")
_log = structlog.get_logger()
_RETRY_AFTER = 600_000_000  # microseconds; each failure writes an audit entry, and the timer must not fill the log


class GrantTimer:
    """What happens to grants by the clock."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        access: AccessStore,
        attributes: AttributeProvider,
        views: SchemaMaskSource,
        run_out: Callable[[str, Event], Grant],
        await_releases: Callable[[], None],
        unmasked_for: timedelta,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._views = views
        self._run_out = run_out  # applies an event to a grant, as the timer
        self._await_releases = await_releases
        self._unmasked_for = unmasked_for
        self._clock = clock
        self._review_again_at: dict[str, int] = {}  # grants that could not be reviewed → when to try again
        self._retry_at: dict[str, int] = {}  # grants that could not be expired → when to try again

    def expire(self) -> int:
        """Expire the grants whose time is over, as the pool's own timer; return their number.

        A grant that cannot be expired (a forged one, say) does not stop the others; the reason is logged.

        Raises:
            UnavailableError: the database cannot list them.
        """
        with self._database.read() as reader:
            now = self._attributes.now(reader)
        expired, after = 0, ""
        while True:
            with self._database.read() as reader:
                overdue = self._access.overdue(reader, now, after=after)
            if not overdue:
                break
            for grant_id in overdue:
                if self._retry_at.get(grant_id, 0) > self._clock():
                    continue
                try:
                    self._run_out(grant_id, Event.EXPIRE)
                except ConflictError:
                    continue  # another gateway was faster
                except PoolError as error:
                    _log.warning("expiry_failed", grant=grant_id, reason=error.reason)
                    if not isinstance(error, UnavailableError):
                        self._retry_at[grant_id] = self._clock() + _RETRY_AFTER
                else:
                    expired += 1
            after = overdue[-1]
        if expired:
            self._await_releases()
        return expired

    def review_unmasked(self) -> int:
        """Tell, and later suspend, active grants that show unmasked what no request wrote out; return their number.

        Such grants were approved before this rule, or before the schema's mask became stricter. The first turn that
        meets one stores the time after which it is suspended, with an entry; until then its view stays as it is, since
        its consumer holds what it delivered. As with `expire`, one that cannot be changed does not stop the others.

        Raises:
            UnavailableError: the database cannot list them.
        """
        changed, suspended, after = 0, 0, ""
        masks: dict[Topic, SchemaMasks] = {}
        while True:
            with self._database.read() as reader:
                active = self._access.active(reader, after=after)
            if not active:
                break
            for grant_id in active:
                if self._review_again_at.get(grant_id, 0) > self._clock():
                    continue
                try:
                    event = self._review_one(grant_id, masks)
                except ConflictError:
                    continue  # another gateway was faster
                except PoolError as error:
                    _log.warning("review_failed", grant=grant_id, reason=error.reason)
                    if not isinstance(error, UnavailableError):
                        self._review_again_at[grant_id] = self._clock() + _RETRY_AFTER
                else:
                    changed += event is not None
                    suspended += event is Event.SUSPEND_UNMASKED
            after = active[-1]
        if suspended:
            self._await_releases()
        return changed

    def _review_one(self, grant_id: str, masks: dict[Topic, SchemaMasks]) -> Event | None:
        with self._database.read() as reader:
            grant = self._access.get(reader, grant_id)
            if grant.topic not in masks:
                masks[grant.topic] = self._views.masks(reader, grant.topic)
            undecided = undecided_exposure(grant, masks[grant.topic])
            now = self._attributes.now(reader)
        if not undecided or (grant.suspend_after is not None and now < grant.suspend_after):
            return None
        event = Event.REMIND if grant.suspend_after is None else Event.SUSPEND_UNMASKED
        action = Action.GRANT_REMIND if event is Event.REMIND else Action.GRANT_SUSPEND_UNMASKED
        standing = self._attributes.standing(TIMER)
        decision = decide_control(TIMER, action, standing=standing, grant=grant, proven=True)
        with self._enforcer.act(TIMER, action, str(grant.topic), TIMER_CALL, decision) as (work, act):
            grant = self._access.lock_for_update(work, grant_id)
            now = self._attributes.now(work)
            if event is Event.REMIND:
                after = now + self._unmasked_for
                changed = remind(grant, by=TIMER, at=now, suspend_after=after)
                act.note(suspend_after=after.isoformat())
            else:
                changed = suspend_unmasked(grant, by=TIMER, at=now)
            self._access.put(work, changed, entry_id=act.entry_id, at=now)
            act.grant = reference_to(changed)
            act.note(
                unmasked=list(undecided.unmasked),
                filter_discloses=list(undecided.disclosed),
                consumer=grant.consumer,
                provider=grant.provider,
                state=str(changed.state),
            )
        return event
