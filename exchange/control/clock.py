"""Clock settlement: two persons declare that the clock is right now, after a time of the future was stored.

The log's times must not fall, so a clock that was 20 days ahead for a second stops signing for 20 days.

    status      the machine's time, the database's, that of the newest checkpoint, and how far it is ahead
    propose     an operator or the data authority, with a reason
    confirm     the data authority, another person; signing goes on with the clock as it is

Nothing is signed meanwhile, so the proposal cannot be proven from the log: it must carry the tag of a process of the
pool (`exchange.audit.entry_tags`). The sequencer obeys the confirmation's entry until it is signed, and not a second
time. Both persons must have seen the same clock: a proposal is confirmed within a day of that clock.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from exchange.access.decision.roles import decide_control
from exchange.audit.store import LogStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Actor, Allow, Deny
from schemas.errors import ConflictError, InvalidError, Reason, UnavailableError

__all__ = ["ClockService"]

_TOLERANCE = 5.0  # seconds by which the clocks of machine and database may differ
_VALID = 86_400_000_000  # microseconds of this clock within which a proposal is confirmed
_RESOURCE = "clock"


class ClockService:
    """Audited acts on the clock."""

    def __init__(
        self,
        *,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        log: LogStore,
        clock: Callable[[], int],
        machine: Callable[[], int],
    ) -> None:
        self._enforcer = enforcer
        self._attributes = attributes
        self._log = log
        self._clock = clock  # of the process, microseconds UTC
        self._machine = machine  # its machine's, which may be ahead of it while a jump is held

    def status(self, actor: Actor, call: RequestContext) -> dict[str, Any]:
        """Return the times that are compared, and by how much the stored one is ahead.

        Raises:
            RefusedError: the actor may not.
        """
        self._enforcer.admit(actor, Action.CLOCK_READ, _RESOURCE, call, self._decide(actor, Action.CLOCK_READ))
        return self._times()

    def propose(self, actor: Actor, call: RequestContext, reason: str) -> dict[str, Any]:
        """Propose to take the clock for right; return the proposal, whose id is that of its entry, and the times.

        Raises:
            RefusedError: the actor may not.
            InvalidError: REQUEST_INVALID, no reason.
            ConflictError: TRANSITION_NOT_ALLOWED, no time of the future is stored.
        """
        decision = self._decide(actor, Action.CLOCK_PROPOSE)
        with self._enforcer.act(actor, Action.CLOCK_PROPOSE, _RESOURCE, call, decision) as (_, act):
            if not reason.strip():
                raise InvalidError(Reason.REQUEST_INVALID, "got no reason; expected why the clock is right now")
            times = self._times()
            if times["ahead_seconds"] <= 0:
                raise ConflictError(
                    Reason.TRANSITION_NOT_ALLOWED, "no time of the future is stored, so there is nothing to settle"
                )
            self._require_one_time()
            act.note(reason=reason, now=self._clock(), stored=self._log.signing_state().signed)
            return {"id": act.entry_id, **times}

    def confirm(self, actor: Actor, call: RequestContext, proposal_id: str) -> dict[str, Any]:
        """Confirm a proposal of another person; signing goes on within seconds.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, it has proposed this.
            InvalidError: NOT_FOUND, no such proposal of this clock's last day.
            UnavailableError: CLOCK_JUMPED, the clocks of database and machine differ: mend that first.
        """
        decision = self._decide(actor, Action.CLOCK_SETTLE)
        proposal = self._proposal(proposal_id) if isinstance(decision, Allow) else None
        if proposal is not None:
            by = proposal["actor"]["id"]
            refusal = refuse_second_signature(by, actor.id, self._attributes.persons(by, actor.id))
            decision = decision if refusal is None else refusal  # a denial is falsy: no `or` here
        with self._enforcer.act(actor, Action.CLOCK_SETTLE, _RESOURCE, call, decision) as (_, act):
            if proposal is None:
                raise InvalidError(
                    Reason.NOT_FOUND, "there is no such proposal of the last day of this clock; propose it again"
                )
            self._require_one_time()
            now = self._clock()
            stored = self._log.signing_state().signed
            act.note(proposal=proposal_id, **{"from": stored, "to": now})
        return {"settled": _text(now), "stored": _text(stored)}

    def _proposal(self, entry_id: str) -> dict[str, Any] | None:
        for leaf in self._log.gateway_entries(Action.CLOCK_PROPOSE):
            entry: dict[str, Any] = json.loads(leaf)
            if entry["id"] == entry_id:
                return entry if abs(self._clock() - entry["at"]) <= _VALID else None
        return None

    def _require_one_time(self) -> None:
        asked = self._machine()
        database = self._log.signing_state().now
        if database and not asked - _TOLERANCE * 1e6 <= database <= self._machine() + _TOLERANCE * 1e6:
            raise UnavailableError(
                Reason.CLOCK_JUMPED,
                f"the clocks of this machine ({_text(asked)}) and of the database ({_text(database)}) differ: mend the "
                "time service of one of them first",
            )

    def _times(self) -> dict[str, Any]:
        state, now = self._log.signing_state(), self._clock()
        return {
            "machine": _text(self._machine()),
            "process": _text(now),
            "database": _text(state.now),
            "stored": _text(state.signed),
            "ahead_seconds": max(0, state.signed - now) // 1_000_000,
        }

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor))


def _text(microseconds: int) -> str | None:
    """Return a time as ISO 8601 in UTC; None for a time that is not known."""
    if not microseconds:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds")
