"""Settlement of a restore, by two persons: what the log says was lost is read, and the pool releases records again.

    status      what the statement says: entries, lanes, grants, lost orders; and how far each lane is by now
    propose     an operator or the data authority; its entry is the proposal
    confirm     the data authority, another person; from then on records are released

The proposal is read from the signed log: a row that was put into the database is no proposal.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from exchange.access.decision.roles import decide_control
from exchange.audit.store import EntryQuery, EntryStore, ReceiptStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.control.audit_queries import SignedLog
from registry.database.unit_of_work import Database
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Actor, Allow, Deny
from schemas.audit import RESTORED, is_done
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["RESTORE", "Restores"]

RESTORE = "restore"
"""Resource of the entries of restores."""

_VALID = 7 * 86_400 * 1_000_000  # microseconds for which a proposal may be confirmed
_MOST = 10_000  # entries of one statement


class Restores:
    """Audited acts on restores."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        entries: EntryStore,
        log: SignedLog,
        receipts: ReceiptStore,
        guard: RestoreGuard,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._entries = entries
        self._log = log
        self._receipts = receipts
        self._guard = guard
        self._clock = clock  # microseconds UTC

    def status(self, actor: Actor, call: RequestContext) -> dict[str, Any]:
        """Return the newest restore, and whether it is settled; empty where the pool was never restored.

        Raises:
            RefusedError: the actor may not.
        """
        decision = self._decide(actor, Action.RESTORE_READ)
        authorized = self._enforcer.admit(actor, Action.RESTORE_READ, RESTORE, call, decision)
        self._enforcer.record(authorized, {})
        entries = self._stated()
        statement = next((one for one in entries if "generation" in one["data"]), None)
        if statement is None:
            return {}
        lanes: dict[str, tuple[int, int]] = {}
        grants: dict[str, tuple[int, int]] = {}
        orders: dict[str, str] = {}
        for one in entries:
            if one["data"].get("of") == statement["id"]:
                lanes |= {lane: (has, had) for lane, has, had in one["data"].get("lanes", ())}
                orders |= dict(one["data"].get("orders", ()))
                grants |= {grant: (has, had) for grant, has, had in one["data"].get("grants", ())}
        with self._database.read() as reader:
            now = {str(lane): last for lane, last in self._receipts.last_sequences(reader).items()}
        found = self._guard.open_restore()
        return {
            "statement": statement["id"],
            "settled": found is None or found.statement != statement["id"],
            **{name: value for name, value in statement["data"].items() if name != "rows"},
            "lanes": [
                {"lane": lane, "restored": has, "before": had, "now": now.get(lane, 0)}
                for lane, (has, had) in sorted(lanes.items())
            ],
            "grants": [
                {"grant": grant, "restored": has, "before": had} for grant, (has, had) in sorted(grants.items())
            ],
            "orders": [{"case": case, "grant": grant} for case, grant in sorted(orders.items())],
        }

    def propose(self, actor: Actor, call: RequestContext) -> dict[str, Any]:
        """Propose to settle the open restore; return the proposal, whose id is that of its entry.

        Raises:
            RefusedError: the actor may not.
            ConflictError: TRANSITION_NOT_ALLOWED, no restore is open.
        """
        decision = self._decide(actor, Action.RESTORE_PROPOSE)
        with self._enforcer.act(actor, Action.RESTORE_PROPOSE, RESTORE, call, decision) as (_, act):
            statement = self._open()
            act.note(statement=statement)
            return {"id": act.entry_id, "statement": statement}

    def confirm(self, actor: Actor, call: RequestContext, proposal_id: str) -> dict[str, Any]:
        """Confirm a proposal: within a second every gateway releases records again.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, it has proposed this.
            InvalidError: NOT_FOUND, the log has no such proposal of the last seven days.
            ConflictError: TRANSITION_NOT_ALLOWED, no restore is open, or another one.
            UnavailableError: LOG_BEHIND, the proposal is not signed yet.
        """
        decision = self._decide(actor, Action.RESTORE_SETTLE)
        proposal = self._proposal(proposal_id) if isinstance(decision, Allow) else None
        if proposal is not None:
            by = proposal["actor"]["id"]
            refusal = refuse_second_signature(by, actor.id, self._attributes.persons(by, actor.id))
            decision = decision if refusal is None else refusal  # a denial is falsy: no `or` here
        with self._enforcer.act(actor, Action.RESTORE_SETTLE, RESTORE, call, decision) as (_, act):
            if proposal is None:
                raise InvalidError(
                    Reason.NOT_FOUND, "the log has no such proposal of the last 7 days; propose it again"
                )
            statement = self._open()
            if proposal["data"]["statement"] != statement:
                raise ConflictError(
                    Reason.TRANSITION_NOT_ALLOWED, "the proposal is about another restore; propose it again"
                )
            act.note(statement=statement, proposal=proposal_id)
            return {"statement": statement, "settled_by": [proposal["actor"]["id"], actor.id]}

    def _open(self) -> str:
        found = self._guard.open_restore()
        if found is None:
            raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "no restore waits for a settlement")
        return found.statement

    def _stated(self) -> list[Mapping[str, Any]]:
        """Return the entries of statements, newest first."""
        found = self._entries.find(EntryQuery(resource=RESTORE, action=RESTORED, limit=_MOST))
        return [json.loads(one.leaf) for one in found]

    def _proposal(self, entry_id: str) -> dict[str, Any] | None:
        found = self._entries.find(EntryQuery(entry=entry_id, action=Action.RESTORE_PROPOSE, limit=1))
        if not found:
            return None
        entry: dict[str, Any] = json.loads(found[0].leaf)
        # Of the leaf, not of its row, which the owner of the database can change.
        valid = entry["id"] == entry_id and is_done(entry, Action.RESTORE_PROPOSE)
        if not valid or entry["at"] < self._clock() - _VALID:
            return None
        self._log.require_signed(entry_id, found[0].leaf)
        return entry

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor))
