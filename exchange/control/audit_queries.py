"""Audit queries: search the log, show and prove an entry, return the newest checkpoint. Every query is an entry itself.

A department sees the entries whose actor is its own and those whose resource is its own; of the former, where the
resource is another's, without ranges (`exchange.control.entry_view`). A query has one entry: what was asked, its
digest, and how many entries the answer holds; nothing is answered that has none.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Protocol

from exchange.access.decision.roles import decide_control
from exchange.audit.store import EntryParty, EntryQuery, EntryStore, StoredLeaf
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.entry_view import EVERYTHING, entry_view
from schemas.access import Action, Actor, Allow, Deny
from schemas.canonical import canonical
from schemas.errors import InvalidError, Reason

__all__ = ["AuditQueries", "OwnResources", "SignedLog"]

OwnResources = Callable[[str], frozenset[str]]
"""Returns the names under which entries are about a department: its topics, their subjects, its own id."""

_CRITERIA = ("department", "resource", "purpose", "grant", "action", "decision", "since", "until")


class SignedLog(Protocol):
    """The signed log, as far as its tiles and checkpoints have come."""

    def prove(self, entry_id: str, *, by_hash: bool) -> str:
        """Return an entry's inclusion proof as a C2SP tlog-proof text; *by_hash*: without the entry's own bytes.

        Raises:
            UnavailableError: the log has not reached the entry yet.
        """
        ...

    def require_signed(self, entry_id: str, leaf: bytes) -> None:
        """Check that the signed log has an entry with these bytes.

        Raises:
            UnavailableError: LOG_BEHIND.
            CorruptError: LEAF_MISMATCH, it has another one.
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
        own_resources: OwnResources,
    ) -> None:
        self._enforcer = enforcer
        self._attributes = attributes
        self._entries = entries
        self._log = log
        self._own_resources = own_resources

    def search(self, actor: Actor, call: RequestContext, query: EntryQuery) -> list[dict[str, Any]]:
        """Return entries, newest first, as the actor sees them, each with its index and its proof status.

        Raises:
            RefusedError: the actor may not read the log.
        """
        authorized = self._enforcer.admit(actor, Action.AUDIT_READ, "*", call, self._decide(actor, Action.AUDIT_READ))
        party = self._party(actor)
        query = replace(query, party=party)
        found = self._documents(query)
        # Before the answer, so that none is without a trace.
        self._enforcer.record(authorized, {**_asked(query), "count": len(found)})
        return found

    def show(self, actor: Actor, call: RequestContext, entry_id: str) -> dict[str, Any]:
        """Return one entry as `search` does; with `leaf`, its exact bytes in base64, if the actor sees all of it.

        Raises:
            RefusedError: the actor may not read the log.
            InvalidError: NOT_FOUND, there is none, or none that the actor may see.
        """
        decision = self._decide(actor, Action.AUDIT_READ)
        with self._enforcer.announce(actor, Action.AUDIT_READ, entry_id, call, decision):
            found = self._find(actor, entry_id)
            document = self._document(found, self._party(actor), self._covered())
        if not document["withheld"]:
            document["leaf"] = base64.b64encode(found.leaf).decode()
        return document

    def prove(self, actor: Actor, call: RequestContext, entry_id: str) -> str:
        """Return an entry's inclusion proof as a C2SP tlog-proof text, verifiable offline.

        Where the actor does not see all of the entry, the proof is of its leaf hash, and does not hold its bytes.

        Raises:
            RefusedError: the actor may not, or the entry is another department's.
            InvalidError: NOT_FOUND.
            UnavailableError: the log has not reached it yet; in a second or two it has.
        """
        with self._enforcer.announce(
            actor, Action.AUDIT_PROVE, entry_id, call, self._decide(actor, Action.AUDIT_PROVE)
        ):
            found = self._find(actor, entry_id)
            withheld = entry_view(json.loads(found.leaf), self._party(actor)).withheld
            return self._log.prove(entry_id, by_hash=bool(withheld))

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

    def _party(self, actor: Actor) -> EntryParty | None:
        if not actor.department:
            return EVERYTHING
        return EntryParty(department=actor.department, resources=self._own_resources(actor.department))

    def _find(self, actor: Actor, entry_id: str) -> StoredLeaf:
        found = self._entries.find(EntryQuery(entry=entry_id, party=self._party(actor), limit=1))
        if not found:
            raise InvalidError(Reason.NOT_FOUND, "no entry that you may see has this id")
        return found[0]

    def _documents(self, query: EntryQuery) -> list[dict[str, Any]]:
        covered = self._covered()
        return [self._document(found, query.party, covered) for found in self._entries.find(query)]

    def _document(self, found: StoredLeaf, party: EntryParty | None, covered: int) -> dict[str, Any]:
        view = entry_view(json.loads(found.leaf), party)
        return {
            "entry": view.entry,
            "withheld": list(view.withheld),
            "leaf_hash": found.leaf_hash.hex(),
            "index": found.index,
            "proof": _status(found.index, covered),
        }

    def _covered(self) -> int:
        latest = self._log.latest_checkpoint()
        return latest[0] if latest else 0

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(
            actor, action, standing=self._attributes.standing(actor), department=actor.department or None
        )


def _asked(query: EntryQuery) -> dict[str, Any]:
    """Return what a search's entry says of the query: never the case number, but a digest over all that was asked."""
    asked = {name: value for name, value in asdict(replace(query, party=None)).items() if value is not None}
    return {
        "query": {name: asked[name] for name in _CRITERIA if name in asked},
        "digest": hashlib.sha256(canonical(asked)).hexdigest(),
    }


def _status(index: int | None, covered: int) -> str:
    if index is None:
        return "waiting"  # durable, without an index yet
    return "signed" if index < covered else "placed"
