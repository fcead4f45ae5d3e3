"""Replay: golden records made again from the claims, page by page of subjects, each page in one transaction.

    after other rules were activated     records that nothing touches get the version that is active now
    after the cache was dropped          records come back
    when a clock has changed a record    a claim that began, or ended, since it was folded counts

A subject is answered under one version of the rules at any time, the one that its row names; a replay that is stopped
goes on from the last handle. Steps wait for a page and a page for a step, by the lock of their group.

`differing` is the check in operation: it folds subjects again and compares. A golden row that somebody put back whole,
with all of its columns, opens; here it is found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from exchange.hub.drawing.golden_codec import GoldenCodec, RecordCodec
from exchange.hub.drawing.refold import SUBJECT_LIBRARIES, Refold, Refolded
from exchange.hub.drawing.step import GROUP
from exchange.hub.drawing.stored_claims import conflict_changes, open_claims
from exchange.hub.fold.claim import Instant
from exchange.hub.fold.fold import plan
from exchange.hub.fold.golden import unpack_provenance
from exchange.hub.fold.identity import Handle, bucket_of
from exchange.hub.store.keys import HubKeys
from exchange.hub.store.model import GoldenFlag, GoldenRow
from exchange.hub.store.rules_store import RulesStore
from exchange.hub.store.sealing import Keyring, golden_context, unseal
from exchange.hub.store.store import HubStore
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.errors import ConflictError, Reason

__all__ = ["Page", "Replay"]

_PAGE: Final = 500  # subjects


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page did.

    Attributes:
        last: handle after which the next one begins; None at the end.
        subjects: folded.
        set_aside: subjects that could not be folded.
    """

    last: Handle | None
    subjects: int = 0
    set_aside: int = 0


class Replay:
    """Makes the golden records of a subject library again.

    Args:
        library: whose.
        database: of the store.
        store: of claims and golden records.
        rules: of libraries.
        keys: of the hub.
        records: decodes claims.
        golden: codec of the library's golden records.
        now: microseconds UTC.
    """

    def __init__(
        self,
        *,
        library: str,
        database: Database,
        store: HubStore,
        rules: RulesStore,
        keys: HubKeys,
        records: RecordCodec,
        golden: GoldenCodec,
        now: Callable[[], Instant],
    ) -> None:
        if library not in SUBJECT_LIBRARIES:
            raise ValueError(f"got the library {library}; expected one of {', '.join(SUBJECT_LIBRARIES)}")
        self._library = library
        self._database = database
        self._store = store
        self._rules = rules
        self._keys = keys
        self._records = records
        self._golden = golden
        self._now = now

    def page(self, after: Handle | None = None, limit: int = _PAGE) -> Page:
        """Make the records of the next subjects again, and of those that are linked with them.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, the library has no active rules.
            CorruptError: ROW_FORGED, a row is not one that the hub wrote.
        """
        with self._database.begin() as work:
            self._store.lock_group(work, GROUP)
            handles = self._store.subjects(work, b"" if after is None else after, limit)
            if not handles:
                return Page(last=None)
            refolded, applied = self._folded(work, handles, numbered=True)
            self._store.put_golden(work, refolded.golden)
            self._store.put_conflicts(work, conflict_changes(self._store, work, self._library, refolded, applied))
        return Page(last=handles[-1], subjects=refolded.subjects, set_aside=refolded.set_aside)

    def run(self) -> int:
        """Make every record again; return how many subjects were folded."""
        done, page = 0, self.page()
        while page.last is not None:
            done += page.subjects
            page = self.page(page.last)
        return done

    def differing(self, handles: Sequence[Handle]) -> frozenset[Handle]:
        """Return the subjects whose golden record is not what their claims give under its rules.

        A record of other rules than those that are active, and one that a clock has changed since, is not compared.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, the library has no active rules.
            CorruptError: ROW_FORGED, a row is not one that the hub wrote.
        """
        found: set[Handle] = set()
        with self._database.begin() as work:  # one moment for claims and records; nothing is written
            self._store.lock_group(work, GROUP)
            refolded, _ = self._folded(work, handles, numbered=False)
            fresh = {row.handle: row for row in refolded.golden}
            stored = self._store.golden(work, fresh)
            ring = Keyring.unwrapped(self._keys, self._store.keys(work, fresh).values())
            for handle, row in fresh.items():
                key, before = ring.of(handle), stored.get(handle)
                if key is None or (before is not None and not self._comparable(before, row)):
                    continue
                if before is None or self._shown(before, key) != self._shown(row, key):
                    found.add(handle)
        return frozenset(found)

    def _folded(
        self, work: UnitOfWork, handles: Sequence[Handle], *, numbered: bool
    ) -> tuple[Refolded, dict[int, int]]:
        self._rules.lock(work, self._library, shared=True)
        active = self._rules.active(work, self._library)
        if active is None:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the library {self._library} has no active rules; the data authority activates some first",
            )
        families = frozenset(self._store.related(work, handles).values())
        everyone = frozenset[Handle]().union(*families)
        buckets = {bucket_of(one) for one in everyone}
        applied = (
            dict(self._store.next_batch(work, buckets, self._now(), "")) if numbered else dict.fromkeys(buckets, 0)
        )
        ring = Keyring.unwrapped(self._keys, self._store.lock_keys(work, everyone).values())
        refold = Refold(
            plan=plan(active.rules, self._store.resources(work)),
            library=self._library,
            ring=ring,
            codec=self._golden,
            applied=applied,
            valid=self._now(),
        )
        claims = open_claims(self._records, self._store.claims(work, everyone), ring)
        return refold.subjects(families, claims), applied

    def _comparable(self, before: GoldenRow, after: GoldenRow) -> bool:
        if before.rules != after.rules:
            return False
        if before.flags & (GoldenFlag.MOVED | GoldenFlag.QUARANTINED):
            return True
        change = unpack_provenance(before.prov).next_change
        return change is None or change > self._now()

    def _shown(self, row: GoldenRow, key: bytes) -> tuple[object, ...]:
        plain = unseal(key, golden_context(row), row.sealed)
        # Whether others were ever linked changes no value; a step that laid its batch over a record does not say it.
        return row.flags & ~GoldenFlag.LINKED, row.prov, plain
