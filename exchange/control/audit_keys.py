"""Keys of the trace (K_audit): list the epochs, and destroy those that are over, by two persons.

    propose     an operator or the data authority; its entry is the proposal, and is in the signed log a second later
    confirm     the data authority, another person; the pseudonyms of the batches before are removed, then the keys

The proposal is read from the signed log: a row that was put into the database is no proposal. What is destroyed is not
drawn again, and old backups of the pseudonyms say nothing any more. Entries, receipts and records stay.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from exchange.access.decision.roles import decide_control
from exchange.audit.store import EntryQuery, EntryStore, ReceiptStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.audit_queries import SignedLog
from exchange.identity.audit_pseudonyms import epoch_of, fingerprint
from exchange.identity.secrets import Secrets
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Actor, Allow, Deny
from schemas.audit import is_done
from schemas.errors import InvalidError, Reason

__all__ = ["AuditKeys"]

_LEAST_MONTHS = 6  # Cybersecurity Law (网络安全法), Art. 21 (3): logs are kept for six months at least
_PROPOSAL_VALID = 30 * 86_400 * 1_000_000  # microseconds


class AuditKeys:
    """Audited acts on the keys of the trace."""

    def __init__(
        self,
        *,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        entries: EntryStore,
        log: SignedLog,
        receipts: ReceiptStore,
        secrets: Secrets,
        clock: Callable[[], int],
    ) -> None:
        self._enforcer = enforcer
        self._attributes = attributes
        self._entries = entries
        self._log = log
        self._receipts = receipts
        self._secrets = secrets
        self._clock = clock  # microseconds UTC

    def epochs(self, actor: Actor, call: RequestContext) -> list[dict[str, Any]]:
        """Return the epochs whose keys this folder holds, oldest first, with the fingerprints of the keys.

        Raises:
            RefusedError: the actor may not.
        """
        decision = self._decide(actor, Action.AUDIT_KEYS_READ)
        authorized = self._enforcer.admit(actor, Action.AUDIT_KEYS_READ, "*", call, decision)
        epochs = self._secrets.audit_epochs()
        self._enforcer.record_read(authorized, {"count": len(epochs)})
        now = epoch_of(self._clock())
        return [
            {"epoch": epoch, "fingerprint": fingerprint(self._secrets.audit_key(epoch)).hex(), "over": epoch < now}
            for epoch in epochs
        ]

    def propose(self, actor: Actor, call: RequestContext, before: str) -> dict[str, Any]:
        """Propose to destroy the keys of the epochs before one; return the proposal, whose id is that of its entry.

        Raises:
            RefusedError: the actor may not.
            InvalidError: REQUEST_INVALID, no epoch, or one whose trace has to be kept.
        """
        decision = self._decide(actor, Action.AUDIT_KEYS_PROPOSE)
        with self._enforcer.act(actor, Action.AUDIT_KEYS_PROPOSE, "audit-keys", call, decision) as (_, act):
            self._check_over(before)
            epochs = self._epochs_before(before)
            act.note(before=before, epochs=list(epochs))
            return {"id": act.entry_id, "before": before, "epochs": epochs}

    def confirm(self, actor: Actor, call: RequestContext, proposal_id: str) -> dict[str, Any]:
        """Confirm a proposal: remove the pseudonyms of the batches before, then destroy the keys of their epochs.

        It may be repeated after a crash.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, it has proposed this.
            InvalidError: NOT_FOUND, no such proposal in the log, or one of more than 30 days ago.
            UnavailableError: LOG_BEHIND, the proposal is not signed yet.
        """
        decision = self._decide(actor, Action.AUDIT_KEYS_PRUNE)
        proposal = self._proposal(proposal_id) if isinstance(decision, Allow) else None
        if proposal is not None:
            by = proposal["actor"]["id"]
            refusal = refuse_second_signature(by, actor.id, self._attributes.persons(by, actor.id))
            decision = decision if refusal is None else refusal  # a denial is falsy: no `or` here
        with self._enforcer.act(actor, Action.AUDIT_KEYS_PRUNE, "audit-keys", call, decision) as (work, act):
            if proposal is None:
                raise InvalidError(
                    Reason.NOT_FOUND, "the log has no such proposal of the last 30 days; propose it again"
                )
            before = str(proposal["data"]["before"])
            self._check_over(before)
            epochs = self._epochs_before(before)
            batches = self._receipts.prune_keys(work, _start_of(before))
            act.note(proposal=proposal_id, before=before, epochs=list(epochs), batches=batches)
        # After the entry: a key that is destroyed without one would leave nobody to ask.
        for epoch in epochs:
            self._secrets.destroy_audit_key(epoch)
        return {"before": before, "epochs": epochs, "batches": batches}

    def _proposal(self, entry_id: str) -> dict[str, Any] | None:
        found = self._entries.find(EntryQuery(entry=entry_id, action=Action.AUDIT_KEYS_PROPOSE, limit=1))
        if not found:
            return None
        entry: dict[str, Any] = json.loads(found[0].leaf)
        # Of the leaf, not of its row, which the owner of the database can change.
        valid = entry["id"] == entry_id and is_done(entry, Action.AUDIT_KEYS_PROPOSE)
        if not valid or entry["at"] < self._clock() - _PROPOSAL_VALID:
            return None
        self._log.require_signed(entry_id, found[0].leaf)
        return entry

    def _epochs_before(self, before: str) -> list[str]:
        return [epoch for epoch in self._secrets.audit_epochs() if epoch < before]

    def _check_over(self, before: str) -> None:
        kept = _month(epoch_of(self._clock())) - _LEAST_MONTHS
        if _month(before) > kept:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the epoch {before}; expected {kept // 12:04}-{kept % 12 + 1:02} or an earlier one, as the trace "
                f"is kept for {_LEAST_MONTHS} months at least",
            )

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor))


def _month(epoch: str) -> int:
    """Return the number of an epoch, twelve a year.

    Raises:
        InvalidError: REQUEST_INVALID, for another form.
    """
    try:
        start = datetime.strptime(epoch, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidError(Reason.REQUEST_INVALID, "got an epoch of another form; expected YYYY-MM") from error
    return start.year * 12 + start.month - 1


def _start_of(epoch: str) -> int:
    return int(datetime.strptime(epoch, "%Y-%m").replace(tzinfo=UTC).timestamp()) * 1_000_000
