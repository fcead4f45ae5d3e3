"""Replay after a restore: what was revoked, ended and released since the backup holds again before a listener starts.

Everything is done in the restore's one transaction, each act with its entry, by the program `restore`. The rule is to
take away whatever is in doubt:

    accounts           revoked in the log: revoked again; changed in another way: their tokens end
    connectors         certificates that changed, and those of a signing key that changed: revoked
    invitations        all unused ones are withdrawn, all open proposals refused: nobody knows which were used
    grants             changed in the log: suspended, and terminated where they had ended before their time; where a
                       schema, a department or a catalogue entry changed, or the log was lost: every active one is
                       suspended
    requests           changed in the log: closed where they were withdrawn or had lapsed, and where they are agreed to;
                       an officer's signature does not count. Which signatures were withdrawn is not known
    quotas             what the log says was released is counted

What was made after the backup is lost and is made again. Two data authorities have to be left who can act: where the
log says that their tokens changed and fewer would be left, the tokens of the backup stay, and the statement says so.
"""

import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import sqlalchemy as sa

from exchange.access.decision.grant_rules import Event
from exchange.access.grants.life_cycle import advance
from exchange.access.grants.postgres import PostgresAccessStore
from exchange.access.grants.store import GrantQuery
from exchange.access.grants.succession import CLOSED_WITH_A_PARTY, close
from exchange.authorization.attributes import reference_to
from exchange.backup.gap import Gap, GapGrant, OldRows
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.postgres_proposals import PostgresProposals
from exchange.identity.proposals import ProposalState
from registry.database.unit_of_work import UnitOfWork, connection_of
from schemas.access import Action, Actor, ActorKind, Grant, GrantState, Role
from schemas.audit import GrantRef
from schemas.canonical import Json
from schemas.errors import CorruptError
from schemas.identifiers import uuid7

__all__ = ["RESTORER", "Replay", "Stores"]

RESTORER = Actor(kind=ActorKind.MACHINE, id="restore", department="", role=Role.DATA_AUTHORITY)
"""The program that acts; suspending and terminating grants is open to programs (`grant_rules`)."""

_BECAUSE = "the pool was restored from a backup"
_IDENTITY = "identity_"
# Rows whose changes are replayed one by one, and rows that widen nothing: a request counts as far as its sealed grant
# does, and a case or a ticket gives nobody a record.
_OWN_FAMILIES = (_IDENTITY, "erasure_", "share_request", "violation_", "correction_")
_ENDED = frozenset({Action.GRANT_TERMINATE, Action.GRANT_END_BY_AGREEMENT, Action.GRANT_COMPLETE})
_CLOSED = frozenset({Action.REQUEST_WITHDRAW, Action.REQUEST_LAPSE})
_AGREED = frozenset({GrantState.COUNTERSIGNED, GrantState.APPROVED})
_ADD_RELEASED = sa.text("""
INSERT INTO access_quota (grant_id, day, released) VALUES (:grant, :day, :count)
ON CONFLICT (grant_id, day) DO UPDATE SET released = access_quota.released + excluded.released
""")
_UNUSED = sa.text("SELECT DISTINCT department FROM identity_invitation WHERE used_at IS NULL")
_FORGET_POSITIONS = sa.text("DELETE FROM access_position")


class RecordAct(Protocol):
    """Writes the entry of an act of the restore, in its transaction."""

    def __call__(
        self,
        work: UnitOfWork,
        action: Action | str,
        resource: str,
        data: dict[str, Json],
        grant: GrantRef | None = None,
        entry_id: str = "",
    ) -> str:
        """Write it, and return its id."""
        ...


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores that are changed."""

    identity: PostgresIdentityStore
    proposals: PostgresProposals
    access: PostgresAccessStore


class Replay:
    """Takes away what is in doubt, in one transaction.

    Attributes:
        revoked, ended: accounts that were revoked, and whose tokens were ended.
        kept: data authorities whose tokens of the backup stay although they changed.
        certificates: serials that were revoked.
        suspended, terminated: grants.
    """

    def __init__(self, work: UnitOfWork, stores: Stores, record: RecordAct, now: datetime) -> None:
        self._work = work
        self._stores = stores
        self._record = record
        self._now = now
        self.revoked: list[str] = []
        self.ended: list[str] = []
        self.kept: list[str] = []
        self.certificates: list[str] = []
        self.suspended: list[str] = []
        self.terminated: list[str] = []

    def run(self, gap: Gap, old: OldRows, *, whole: bool) -> None:
        """Replay a gap; *whole*: the log of the time after the backup is there to the end."""
        self._accounts(gap, old)
        self._connectors(old)
        self._invitations()
        rows = [*old.older, *old.lost]
        everything = not whole or any(not table.startswith(_OWN_FAMILIES) for table, _ in rows)
        self._grants(gap, everything=everything)
        known = {grant.id for grant, _ in self._all_grants()}
        for (grant, day), count in gap.released.items():
            if grant in known:
                connection_of(self._work).execute(_ADD_RELEASED, {"grant": grant, "day": day, "count": count})
        # Of the generation before: a consumer starts again, and is told so.
        connection_of(self._work).execute(_FORGET_POSITIONS)

    def _accounts(self, gap: Gap, old: OldRows) -> None:
        store, work = self._stores.identity, self._work
        changed = {json.loads(key)[0] for table, key in old.older if table == "identity_account"}
        accounts = {one.name: one for one in store.accounts(work) if one.revoked_at is None}
        self.revoked = sorted(changed & gap.revoked & set(accounts))
        in_doubt = sorted(changed & set(accounts) - gap.revoked)
        authorities = [
            one
            for one in accounts.values()
            if one.role is Role.DATA_AUTHORITY and one.person and one.name not in self.revoked
        ]
        left = [one for one in authorities if one.name not in in_doubt]
        self.kept = [] if len(left) >= 2 else [one.name for one in authorities if one.name in in_doubt]
        self.ended = [name for name in in_doubt if name not in self.kept]
        for name in self.revoked:
            store.revoke_account(work, name, self._now)
            self._record(work, Action.USER_REVOKE, "", {"account": name, "because": _BECAUSE})
        for name in self.ended:  # nobody has a token of this digest
            store.change_account(work, replace(accounts[name], digest=secrets.token_bytes(32), expires_at=self._now))
            self._record(work, Action.USER_ROTATE, "", {"account": name, "because": _BECAUSE})

    def _connectors(self, old: OldRows) -> None:
        store, work = self._stores.identity, self._work
        holders: list[tuple[str, str | None, str | None]] = []  # department, connector, serial
        for table, key in sorted(old.older):
            if table == "identity_certificate":
                found = store.certificate(work, json.loads(key)[0])
                if found is not None and found.revoked_at is None:
                    holders.append((found.department, found.connector, found.serial))
            elif table == "identity_signing_key":
                department, connector, _ = json.loads(key)
                holders.append((department, connector, None))
        for department, connector, serial in holders:
            serials = store.revoke_certificates(
                work, department=department, connector=connector, serial=serial, at=self._now, by=RESTORER.id,
                because=_BECAUSE,
            )  # fmt: skip
            if serials:
                data: dict[str, Json] = {"department": department, "certificates": [*serials], "because": _BECAUSE}
                self._record(work, Action.CONNECTOR_REVOKE, connector or "", data)
                self.certificates += serials

    def _invitations(self) -> None:
        store, work = self._stores.identity, self._work
        for (department,) in connection_of(work).execute(_UNUSED).all():
            store.withdraw_invitations(work, department=department, connector=None, at=self._now)
            self._record(work, Action.DEPARTMENT_INVITE, department, {"withdrawn": True, "because": _BECAUSE})
        while found := self._stores.proposals.find(work, state=ProposalState.OPEN, limit=1_000):
            for one in found:
                refused = replace(
                    one, state=ProposalState.REFUSED, decided_by=RESTORER.id, decided_at=self._now, reason=_BECAUSE
                )
                self._stores.proposals.decide(work, refused)
                data: dict[str, Json] = {"proposal": one.id, "kind": str(one.kind), "reason": _BECAUSE}
                self._record(work, Action.PROPOSAL_REFUSE, one.department, data)

    def _grants(self, gap: Gap, *, everything: bool) -> None:
        for grant, damaged in self._all_grants():
            logged = gap.grants.get(grant.id)
            newer = logged is not None and logged.version > grant.version
            if not newer and not everything:
                continue
            current = grant
            if current.state is GrantState.ACTIVE:
                current = self._change(current, Event.SUSPEND, Action.GRANT_SUSPEND, damaged=damaged)
                self.suspended.append(grant.id)
            if newer and _is_ended(logged) and current.state is GrantState.SUSPENDED:
                self._change(current, Event.TERMINATE, Action.GRANT_TERMINATE)
                self.terminated.append(grant.id)
            if logged is not None and newer and not damaged:
                self._request(current, logged)

    def _request(self, grant: Grant, logged: GapGrant) -> None:
        """Take back the signatures and the approval that the log after the backup does not confirm."""
        if grant.state in CLOSED_WITH_A_PARTY and (logged.action in _CLOSED or grant.state in _AGREED):
            self._put(grant, close(grant), Action.REQUEST_WITHDRAW)
        elif grant.state is GrantState.SUBMITTED and grant.confirmed_by is not None:
            unsigned = replace(grant, version=grant.version + 1, confirmed_by=None, together_with=())
            self._put(grant, unsigned, Action.GRANT_WITHDRAW_SIGNATURE)

    def _all_grants(self) -> Sequence[tuple[Grant, bool]]:
        """Return all grants, and whether the row of each is damaged: then it is the newest version of the pool.

        A grant of which the pool wrote no version is left out: it releases nothing, and there is nothing to end.
        """
        access, work = self._stores.access, self._work
        found: list[tuple[Grant, bool]] = []
        after = ""
        while page := access.page(work, GrantQuery(after=after)):
            for one in page:
                if isinstance(one, Grant):
                    found.append((one, False))
                else:
                    with suppress(CorruptError):
                        found.append((access.last_proven(work, one.names["id"]), True))
            last = page[-1]
            after = last.id if isinstance(last, Grant) else last.cursor
        return found

    def _change(self, grant: Grant, event: Event, action: Action, *, damaged: bool = False) -> Grant:
        changed = advance(grant, event, by=RESTORER, at=self._now, reason=_BECAUSE)
        return self._put(grant, changed, action, damaged=damaged)

    def _put(self, grant: Grant, changed: Grant, action: Action, *, damaged: bool = False) -> Grant:
        entry_id = uuid7(int(self._now.timestamp() * 1_000_000))
        put = self._stores.access.put_over_damaged if damaged else self._stores.access.put
        changed = put(self._work, changed, entry_id=entry_id, at=self._now).grant
        data: dict[str, Json] = {"reason": _BECAUSE, "state": str(changed.state)}
        if damaged:
            data["damaged"] = True
        self._record(self._work, action, str(grant.topic), data, reference_to(changed), entry_id)
        return changed


def _is_ended(logged: GapGrant | None) -> bool:
    return logged is not None and logged.action in _ENDED
