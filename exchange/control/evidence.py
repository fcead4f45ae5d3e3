"""Evidence bundles: entries with their proofs, and the grants that they name, as one file for a third person.

A bundle is an export with proofs: who makes one may export the log and prove its entries. It has two entries, before
(what was asked) and after (how many entries, and the SHA-256 of its manifest), which are never folded.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from exchange.access.decision.roles import decide_control
from exchange.access.grants.grant_json import to_text
from exchange.access.grants.store import AccessStore
from exchange.audit.oversight.evidence_bundle import README, README_ZH, pack_bundle
from exchange.audit.search.entry_rows import iso_time
from exchange.audit.store import EntryQuery, EntryStore, StoredLeaf
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.audit_queries import AuditQueries, SignedLog, describe_query
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, Allow, Deny
from schemas.canonical import Json, canonical
from schemas.errors import CorruptError, InvalidError, Reason, UnavailableError
from schemas.identifiers import uuid7

__all__ = ["MOST_ENTRIES", "EvidenceBundles"]

MOST_ENTRIES: Final = 1_000
"""Entries of one bundle."""

_MOST_BYTES: Final = 16 * 1024 * 1024  # of their leaves: about 3 kB each is usual


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBundles:
    """Makes evidence bundles.

    Attributes:
        enforcer: enforces and records.
        attributes: standing of actors.
        database: for grants.
        queries: who sees what of the log.
        entries: of the log.
        log: proofs and checkpoints.
        access: grants.
        public_key: returns the log's public key, as text.
        clock: microseconds UTC.
    """

    enforcer: Enforcer
    attributes: AttributeProvider
    database: Database
    queries: AuditQueries
    entries: EntryStore
    log: SignedLog
    access: AccessStore
    public_key: Callable[[], str]
    clock: Callable[[], int]

    def make(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        ids: Sequence[str] = (),
        query: EntryQuery | None = None,
        party: str | None = None,
    ) -> bytes:
        """Return the bundle, a ZIP file (`exchange.audit.oversight.evidence_bundle`), of some entries or of a search.

        An entry that is not signed yet is in it without a proof, and the manifest says `waiting`.

        Args:
            actor: who asks.
            call: the context.
            ids: of the entries.
            query: of the entries, in place of ids; limit and cursor do not count.
            party: with a query, as in `AuditQueries.search`.

        Raises:
            RefusedError: the actor may not export or prove the log, or not that department's.
            InvalidError: NOT_FOUND, an id of none that the actor may see; REQUEST_INVALID, more than 1,000 entries or
                16 MiB of them: narrow the time or the criteria.
            UnavailableError: nothing was made; RATE_LIMITED, the actor has done too much.
        """
        if bool(ids) is (query is not None) or len(ids) > MOST_ENTRIES:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"expected ids of entries, {MOST_ENTRIES:,} at most, or a query; one of the two"
            )
        party = self.queries.party_named(actor, party)
        authorized = self.enforcer.admit(actor, Action.AUDIT_EXPORT, "*", call, self._decide(actor, party))
        begun = self.clock()
        if query is not None:
            until = begun if query.until is None else min(query.until, begun)
            query = replace(query, after=None, until=until, limit=MOST_ENTRIES + 1)
            asked: dict[str, Any] = describe_query(query, party)
        else:
            digest = hashlib.sha256(canonical([*sorted(ids)])).hexdigest()
            asked = {"query": {"entries": len(ids)}, "digest": digest}
        search_id = uuid7(begun)
        self.enforcer.record(authorized, {**asked, "format": "bundle"}, entry_id=search_id)
        end: dict[str, Json] = {"digest": asked["digest"], "count": 0, "complete": False}
        try:
            found = self._found(actor, ids, query, party)
            files, listed = self._files(actor, found)
            search = {**asked, "at": iso_time(begun), "by": actor.id, "entry": search_id}
            if ids:
                search["ids"] = sorted(ids)
            files["search.json"] = canonical(search)
            packed, manifest = pack_bundle(files, listed)
            end = {"digest": asked["digest"], "count": len(found), "complete": True, "manifest": manifest}
        finally:
            self.enforcer.record(authorized, end)
        return packed

    def _decide(self, actor: Actor, party: str | None) -> Allow | Deny:
        decision: Allow | Deny = Allow()
        for action in (Action.AUDIT_READ, Action.AUDIT_PROVE, Action.AUDIT_EXPORT):
            decision = self.queries.decide(actor, action, party)
            if isinstance(decision, Deny):
                return decision
        return decision

    def _found(
        self, actor: Actor, ids: Sequence[str], query: EntryQuery | None, party: str | None
    ) -> Sequence[StoredLeaf]:
        reader = self.queries.reader(actor)
        if query is None:
            found = []
            for one in dict.fromkeys(ids):
                some = self.entries.find(EntryQuery(entry=one, party=reader, limit=1))
                if not some:
                    raise InvalidError(Reason.NOT_FOUND, "one of the ids is of no entry that you may see")
                found += some
        else:
            restricted = self.queries.reader(actor, party)
            found = self.entries.find(replace(query, party=restricted))
        if len(found) > MOST_ENTRIES or sum(len(one.leaf) for one in found) > _MOST_BYTES:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got more entries than fit into a bundle; expected {MOST_ENTRIES:,} at most and "
                f"{_MOST_BYTES // 2**20} MiB of them: narrow the time or the criteria, or make several",
            )
        return found

    def _files(self, actor: Actor, found: Sequence[StoredLeaf]) -> tuple[dict[str, bytes], list[dict[str, Json]]]:
        files = {"README.txt": README.encode(), "说明.txt": README_ZH.encode(), "log.pub": self.public_key().encode()}
        listed: list[dict[str, Json]] = []
        named: set[tuple[str, int, str]] = set()
        for one in found:
            view = self.queries.view(actor, one)
            entry = one.entry()
            if entry is None:  # a damaged row: its leaf stands in the log's files, and not here
                listed.append({"id": None, "index": one.index, "leaf_hash": one.leaf_hash.hex(), "proof": "damaged"})
                continue
            name = str(entry["id"])
            if view.withheld:
                files[f"entries/{name}.view.json"] = canonical(view.entry)
            else:
                files[f"entries/{name}.json"] = bytes(one.leaf)
            proof = self._proof(name, by_hash=bool(view.withheld))
            if proof is not None:
                files[f"proofs/{name}.tlog-proof"] = proof.encode()
            listed.append(
                {
                    "id": name,
                    "index": one.index,
                    "leaf_hash": one.leaf_hash.hex(),
                    "proof": "waiting" if proof is None else "signed",
                    "withheld": list(view.withheld),
                }
            )
            grant = view.entry.get("grant")
            if grant:
                named.add((str(grant["id"]), int(grant["version"]), str(grant["hash"])))
        for grant_id, version, digest in sorted(named):
            text = self._grant(actor, grant_id, version, digest)
            if text is not None:
                files[f"grants/{grant_id}.{version}.json"] = text
        latest = self.log.latest_checkpoint()
        if latest is not None:
            files["checkpoint"] = latest[1].encode()
        return files, listed

    def _proof(self, entry_id: str, *, by_hash: bool) -> str | None:
        try:
            return self.log.prove(entry_id, by_hash=by_hash)
        except UnavailableError as error:
            if error.reason is not Reason.LOG_BEHIND:
                raise
            return None

    def _grant(self, actor: Actor, grant_id: str, version: int, digest: str) -> bytes | None:
        """Return the text of a version of a grant that has this hash, if the actor may read the grant."""
        with self.database.read() as reader, suppress(CorruptError):
            for one in self.access.versions(reader, grant_id):
                text = to_text(one.grant).encode()
                if one.grant.version != version or hashlib.sha256(text).hexdigest() != digest:
                    continue
                standing = self.attributes.standing(actor)
                decision = decide_control(actor, Action.GRANT_READ, standing=standing, grant=one.grant, proven=True)
                return text if decision else None
        return None
