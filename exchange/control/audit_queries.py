"""Audit queries: search the log, prove an entry, return the newest checkpoint. Every query is an entry itself."""

import json
from dataclasses import replace
from typing import Any, Protocol

from exchange.access.decision.roles import decide_control
from exchange.audit.store import EntryQuery, EntryStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from schemas.access import Action, Actor, Allow, Deny
from schemas.errors import InvalidError, Reason

__all__ = ["AuditQueries", "SignedLog"]


class SignedLog(Protocol):
    """The signed log, as far as its tiles and checkpoints have come."""

    def prove(self, entry_id: str) -> str:
        """Return an entry's inclusion proof as a C2SP tlog-proof text.

        Raises:
            UnavailableError: the log has not reached the entry yet.
        """
        ...

    def latest_checkpoint(self) -> tuple[int, str] | None:
        """Return size and signed note of the newest checkpoint; None while nothing has been signed."""
        ...


class AuditQueries:
    """Queries of the audit log; each is an audited act."""

    def __init__(
        self,
        *,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        entries: EntryStore,
        log: SignedLog,
    ) -> None:
        self._enforcer = enforcer
        self._attributes = attributes
        self._entries = entries
        self._log = log

    def search(self, actor: Actor, call: RequestContext, query: EntryQuery) -> list[dict[str, Any]]:
        """Return entries, newest first, each with its index in the log and whether a signed checkpoint covers it.

        An account of a department sees the entries of its own department alone.

        Raises:
            RefusedError: the actor may not read the log.
        """
        criteria = {
            name: getattr(query, name)
            for name in ("department", "resource", "purpose", "grant", "action", "decision", "since", "until")
            if getattr(query, name) is not None
        }
        decision = self._decide(actor, Action.AUDIT_READ)
        if actor.department:
            query = replace(query, department=actor.department)
        # Written before the search, so that no search is without a trace.
        with self._enforcer.announce(actor, Action.AUDIT_READ, "*", call, decision, {"query": criteria}):
            latest = self._log.latest_checkpoint()
            covered = latest[0] if latest else 0
            return [
                {
                    "entry": json.loads(found.leaf),
                    "leaf_hash": found.leaf_hash.hex(),
                    "index": found.index,
                    "proof": _status(found.index, covered),
                }
                for found in self._entries.find(query)
            ]

    def prove(self, actor: Actor, call: RequestContext, entry_id: str) -> str:
        """Return an entry's inclusion proof as a C2SP tlog-proof text, verifiable offline.

        Raises:
            RefusedError: the actor may not, or the entry is another department's.
            InvalidError: NOT_FOUND.
            UnavailableError: the log has not reached it yet; in a second or two it has.
        """
        with self._enforcer.announce(
            actor, Action.AUDIT_PROVE, entry_id, call, self._decide(actor, Action.AUDIT_PROVE)
        ):
            query = EntryQuery(entry=entry_id, department=actor.department or None, limit=1)
            if not self._entries.find(query):
                raise InvalidError(Reason.NOT_FOUND, "no entry that you may see has this id")
            return self._log.prove(entry_id)

    def checkpoint(self, actor: Actor, call: RequestContext) -> str:
        """Return the newest signed checkpoint.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND, nothing has been signed yet.
        """
        self._enforcer.admit(actor, Action.AUDIT_PROVE, "checkpoint", call, self._decide(actor, Action.AUDIT_PROVE))
        latest = self._log.latest_checkpoint()
        if latest is None:
            raise InvalidError(Reason.NOT_FOUND, "the log is empty; there is no checkpoint yet")
        return latest[1]

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(
            actor, action, standing=self._attributes.standing(actor), department=actor.department or None
        )


def _status(index: int | None, covered: int) -> str:
    if index is None:
        return "waiting"  # durable, without an index yet
    return "signed" if index < covered else "placed"
