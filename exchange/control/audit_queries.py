"""Audit queries: search the log, show and prove an entry, return the newest checkpoint. Every query is an entry itself.

A department sees the entries whose actor is its own and those whose resource is its own; of the former, where the
resource is another's, without ranges (`exchange.control.entry_view`). A query has one entry: what was asked, its
digest, and how many entries the answer holds; nothing is answered that has none. Searches that an actor repeats within
a minute are counted in one entry with their digests, but for those about a case or a person and for further pages: each
of those has an entry of its own, and so has each look-up of an entry, and each export has two.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from exchange.access.decision.roles import decide_control
from exchange.audit.search.entry_rows import DAMAGED, iso_time
from exchange.audit.store import CheckpointRow, EntryParty, EntryPlace, EntryQuery, EntryStore, StoredLeaf
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.entry_view import EVERYTHING, EntryView, entry_view
from schemas.access import Action, Actor, Allow, Deny
from schemas.canonical import canonical
from schemas.errors import CorruptError, InvalidError, Reason, RefusedError

__all__ = [
    "AuditQueries",
    "EntryPage",
    "OwnResources",
    "SignedLog",
    "cursor_text",
    "describe_query",
    "parse_cursor",
]

OwnResources = Callable[[str], frozenset[str]]
"""Returns the names under which entries are about a department: its topics, their subjects, its own id."""

_CRITERIA = (
    "department",
    "actor",
    "resource",
    "purpose",
    "grant",
    "action",
    "decision",
    "reason",
    "entry",
    "since",
    "until",
    "party",
)
_MINE = "mine"
_EXPORT_PAGE = 1_000  # entries in memory at a time
_CURSOR = re.compile(r"([a-j]{1,16})-([a-j]{1,18})")
# In letters: among other digits, a time and a row could look like a number of a person, which is refused.
_TO_LETTERS = str.maketrans("0123456789", "abcdefghij")
_TO_DIGITS = str.maketrans("abcdefghij", "0123456789")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPage:
    """A page of a search; `after` is the cursor of the next one, None where nothing more is there."""

    documents: list[dict[str, Any]]
    after: str | None = None


def cursor_text(place: EntryPlace) -> str:
    """Return the cursor behind an entry."""
    return f"{place.at}-{place.row}".translate(_TO_LETTERS)


def parse_cursor(text: str) -> EntryPlace:
    """Return the place that a cursor names.

    Raises:
        InvalidError: REQUEST_INVALID, it is none.
    """
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidError(
            Reason.REQUEST_INVALID, "got a cursor of another form; take `after` from the link of the page before"
        )
    at, row = (int(part.translate(_TO_DIGITS)) for part in found.groups())
    return EntryPlace(at, row)


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

    def covering_checkpoint(self, index: int) -> CheckpointRow | None:
        """Return the first checkpoint that covers the entry of an index; None while there is none."""
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
        clock: Callable[[], int],
    ) -> None:
        self._enforcer = enforcer
        self._attributes = attributes
        self._entries = entries
        self._log = log
        self._own_resources = own_resources
        self._clock = clock  # microseconds UTC

    def search(self, actor: Actor, call: RequestContext, query: EntryQuery, *, party: str | None = None) -> EntryPage:
        """Return a page of entries, newest first, as the actor sees them, each with its index and its proof status.

        Args:
            actor: who asks.
            call: the context.
            query: which entries.
            party: only entries that this department may see, as actor or by its resources; `mine` for the actor's own.
                Entries of others than its own a department does not see in any case.

        Raises:
            RefusedError: the actor may not read the log, or not that department's.
        """
        party = self.party_named(actor, party)
        decision = self.decide(actor, Action.AUDIT_READ, party)
        authorized = self._enforcer.admit(actor, Action.AUDIT_READ, "*", call, decision)
        reader = self._party(actor)
        query = replace(query, party=self._party_of(party) if party else reader)
        found = self._entries.find(query)
        covered = self._covered()
        documents = [self._document(one, reader, covered) for one in found]
        # Before the answer, so that none is without a trace.
        asked = describe_query(query, party)
        data = {**asked, "count": len(documents)}
        if _may_be_folded(query):
            self._enforcer.record_read(authorized, data, query=asked["digest"])
        else:
            self._enforcer.record(authorized, data)
        full = len(found) == query.limit
        return EntryPage(documents=documents, after=cursor_text(found[-1].place) if full else None)

    def export(
        self, actor: Actor, call: RequestContext, query: EntryQuery, *, form: str, party: str | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Return all entries that match, newest first, page by page: one page is in memory at a time.

        An export has two entries, which are never folded: before its first page, what is asked, and after its last, or
        where it is broken off, how many entries left. It holds what was in the log when it began. The actor is
        decided on again for each page, so that a revoked account reads no further.

        Args:
            actor: who asks.
            call: the context.
            query: which entries; limit and cursor do not count.
            form: what they are written as, for the entry.
            party: as in `search`.

        Raises:
            RefusedError: the actor may not export the log, or not that department's.
            UnavailableError: nothing was exported; RATE_LIMITED, the actor has done too much.
        """
        party = self.party_named(actor, party)
        decision = self.decide(actor, Action.AUDIT_EXPORT, party)
        authorized = self._enforcer.admit(actor, Action.AUDIT_EXPORT, "*", call, decision)
        begun = self._clock()
        query = replace(
            query, after=None, until=begun if query.until is None else min(query.until, begun), limit=_EXPORT_PAGE
        )
        asked = {**describe_query(query, party), "format": form}
        self._enforcer.record(authorized, asked)
        reader = self._party(actor)
        pages = self._pages(replace(query, party=self._party_of(party) if party else reader))
        first = next(pages)
        return self._exported(authorized, asked["digest"], reader, party, itertools.chain([first], pages))

    def _exported(
        self,
        authorized: Authorized,
        digest: str,
        reader: EntryParty | None,
        party: str | None,
        pages: Iterator[list[StoredLeaf]],
    ) -> Iterator[list[dict[str, Any]]]:
        count, complete = 0, False
        try:
            for page in pages:
                decision = self.decide(authorized.actor, Action.AUDIT_EXPORT, party)
                if isinstance(decision, Deny):
                    raise RefusedError(decision.reason, decision.explanation)
                covered = self._covered()
                count += len(page)
                yield [self._document(one, reader, covered) for one in page]
            complete = True
        finally:
            self._enforcer.record(authorized, {"digest": digest, "count": count, "complete": complete})

    def _pages(self, query: EntryQuery) -> Iterator[list[StoredLeaf]]:
        """Yield the pages of a search, at least one."""
        while True:
            page = self._entries.find(query)
            yield page
            if len(page) < query.limit:
                return
            query = replace(query, after=page[-1].place)

    def show(self, actor: Actor, call: RequestContext, entry_id: str) -> dict[str, Any]:
        """Return one entry as `search` does, and what proves it.

        A damaged entry is shown as in a search.
        `leaf` has the entry's exact bytes in base64, if the actor sees all of it; `checkpoint` the first one that
        covers it, None before.

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
        covering = None if found.index is None else self._log.covering_checkpoint(found.index)
        document["checkpoint"] = covering and {
            "size": covering.size,
            "root": covering.root.hex(),
            "at": iso_time(covering.at),
            "note": covering.note,
        }
        return document

    def prove(self, actor: Actor, call: RequestContext, entry_id: str) -> str:
        """Return an entry's inclusion proof as a C2SP tlog-proof text, verifiable offline.

        Where the actor does not see all of the entry, the proof is of its leaf hash, and does not hold its bytes.

        Raises:
            RefusedError: the actor may not, or the entry is another department's.
            InvalidError: NOT_FOUND.
            CorruptError: LOG_CORRUPT, the stored entry is damaged.
            UnavailableError: the log has not reached it yet; in a second or two it has.
        """
        with self._enforcer.announce(
            actor, Action.AUDIT_PROVE, entry_id, call, self._decide(actor, Action.AUDIT_PROVE)
        ):
            found = self._find(actor, entry_id)
            entry = found.entry()
            if entry is None:
                raise CorruptError(
                    Reason.LOG_CORRUPT,
                    "the stored entry is damaged: it is not what the pool wrote. `pool audit verify --database` "
                    "names it; its leaf stands in the log's files",
                )
            withheld = entry_view(entry, self._party(actor)).withheld
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

    @staticmethod
    def party_named(actor: Actor, party: str | None) -> str | None:
        """Return the department that a caller means: `mine` is its own."""
        return actor.department if party == _MINE else party

    def reader(self, actor: Actor, party: str | None = None) -> EntryParty | None:
        """Return the party whose entries an actor sees, or those of a department that it may read."""
        return self._party_of(party) if party else self._party(actor)

    def view(self, actor: Actor, found: StoredLeaf) -> EntryView:
        """Return what an actor sees of an entry."""
        entry = found.entry()
        return _damaged(found) if entry is None else entry_view(entry, self._party(actor))

    def _party(self, actor: Actor) -> EntryParty | None:
        return self._party_of(actor.department) if actor.department else EVERYTHING

    def _party_of(self, department: str) -> EntryParty:
        return EntryParty(department=department, resources=self._own_resources(department))

    def _find(self, actor: Actor, entry_id: str) -> StoredLeaf:
        found = self._entries.find(EntryQuery(entry=entry_id, party=self._party(actor), limit=1))
        if not found:
            raise InvalidError(Reason.NOT_FOUND, "no entry that you may see has this id")
        return found[0]

    def _document(self, found: StoredLeaf, party: EntryParty | None, covered: int) -> dict[str, Any]:
        entry = found.entry()
        # One row that its database's owner has changed must neither fail the search nor be shown as an entry.
        view = _damaged(found) if entry is None else entry_view(entry, party)
        return {
            "entry": view.entry,
            "time": iso_time(view.entry["at"]),
            "withheld": list(view.withheld),
            "leaf_hash": found.leaf_hash.hex(),
            "cursor": cursor_text(found.place),
            "index": found.index,
            "proof": _status(found.index, covered),
        }

    def _covered(self) -> int:
        latest = self._log.latest_checkpoint()
        return latest[0] if latest else 0

    def decide(self, actor: Actor, action: Action, party: str | None) -> Allow | Deny:
        """Decide a reading of the log, or of the entries of one department."""
        decision = self._decide(actor, action)
        if decision and party and actor.department not in {"", party}:
            return Deny(Reason.OTHER_DEPARTMENT, "you may read the entries of your own department alone")
        return decision

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(
            actor, action, standing=self._attributes.standing(actor), department=actor.department or None
        )


def _damaged(found: StoredLeaf) -> EntryView:
    """Return what is shown of a damaged row: where it stands in the search, and nothing of its leaf."""
    return EntryView(
        entry={"id": "", "at": found.place.at, "action": DAMAGED, "decision": DAMAGED}, withheld=("entry",)
    )


def describe_query(query: EntryQuery, party: str | None) -> dict[str, Any]:
    """Return what a search's entry says of the query: never the case number, but a digest over all that was asked."""
    asked = {name: value for name, value in asdict(replace(query, party=None)).items() if value is not None}
    if party:
        asked["party"] = party
    return {
        "query": {name: asked[name] for name in _CRITERIA if name in asked},
        "digest": hashlib.sha256(canonical(asked)).hexdigest(),
    }


def _may_be_folded(query: EntryQuery) -> bool:
    """Return whether a search is about nothing narrow: about a case, a person, one entry, or a further page, never."""
    asked = {name for name, value in asdict(replace(query, party=None, limit=0)).items() if value}
    return asked <= {*_CRITERIA} - {"actor", "entry"}


def _status(index: int | None, covered: int) -> str:
    if index is None:
        return "waiting"  # durable, without an index yet
    return "signed" if index < covered else "placed"
