"""Refold: golden rows of the subjects that a step touches, from all of their claims.

A family is a set of handles that were ever linked. How the links of now join them decides which of them share a golden
record: it stands under the representative, and the others point at it. A handle that was joined and is not any more
gets a record of its own by the same function.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from exchange.hub.drawing.golden_codec import GoldenCodec
from exchange.hub.fold.asof import subject
from exchange.hub.fold.claim import Claim, Instant
from exchange.hub.fold.fold import Plan, conflicts, fold
from exchange.hub.fold.golden import Conflict, Provenance, pack_provenance
from exchange.hub.fold.identity import Handle, bucket_of
from exchange.hub.store.model import GoldenFlag, GoldenRow, ItemRow
from exchange.hub.store.sealing import Keyring, golden_context, item_context, seal
from schemas.record import Operation

__all__ = ["SUBJECT_LIBRARIES", "Refold", "Refolded"]

SUBJECT_LIBRARIES: Final = ("population", "legal-entity", "address")
"""Libraries with one golden record a subject (三大基础数据库); the others have one an item."""

_NONE: Final = GoldenFlag(0)
_log = structlog.get_logger()


@dataclass
class Refolded:
    """Rows to write.

    Attributes:
        golden: of subject libraries.
        items: of item libraries.
        conflicts: of each subject that was folded.
        subjects: how many records were folded.
        set_aside: how many could not be.
    """

    golden: list[GoldenRow] = field(default_factory=list)
    items: list[ItemRow] = field(default_factory=list)
    conflicts: dict[Handle, frozenset[Conflict]] = field(default_factory=dict)
    subjects: int = 0
    set_aside: int = 0

    def add(self, other: "Refolded") -> None:
        """Add what was made of other subjects."""
        self.golden += other.golden
        self.items += other.items
        self.conflicts |= other.conflicts
        self.subjects += other.subjects
        self.set_aside += other.set_aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Refold:
    """Folds the subjects of one step.

    Attributes:
        plan: the active rules.
        library: whose.
        ring: keys of the handles.
        codec: of the library's golden records.
        applied: number of the step's batch in each bucket.
        valid: the instant of the fold.
    """

    plan: Plan
    library: str
    ring: Keyring
    codec: GoldenCodec
    applied: Mapping[int, int]
    valid: Instant

    def subjects(self, families: Collection[frozenset[Handle]], claims: Iterable[Claim]) -> Refolded:
        """Return the rows of a subject library.

        Args:
            families: handles that were ever linked with one another.
            claims: every claim of every one of them.
        """
        own = _by_handle(claims, self.plan.resources)
        found = Refolded()
        for family in sorted(families, key=min):
            stated = [claim for handle in sorted(family) for claim in own.get(handle, ())]
            if not stated:
                continue  # known to another library alone
            joined = subject(stated, self.plan, self.valid)
            for handle in sorted(family):
                head = joined.of(handle)
                if head == handle:
                    members = joined.members(handle)
                    mine = [claim for claim in stated if claim.handle in members]
                    self._stand(found, handle, mine, GoldenFlag.LINKED if len(family) > 1 else _NONE)
                else:
                    self._point(found, handle, head)
        return found

    def about_items(self, items: Collection[bytes], claims: Iterable[Claim]) -> Refolded:
        """Return the rows of an item library.

        Args:
            items: those that the step touches.
            claims: every claim of every subject that it touches.
        """
        by_item: dict[bytes, list[Claim]] = {}
        for claim in claims:
            if claim.item in items and claim.position.resource in self.plan.resources:
                by_item.setdefault(claim.item, []).append(claim)
        found = Refolded()
        for item, stated in sorted(by_item.items()):
            # Of an item that moved to another subject, the last claim says whose it is.
            owner = max(stated, key=lambda one: (one.position, one.operation is not Operation.VOID)).handle
            key = self.ring.of(owner)
            if key is None:
                continue
            # An item's claims are of one resource, so that none contradicts another.
            value, prov, flags, _ = self._folded(found, [one for one in stated if one.handle == owner])
            row = ItemRow(
                library=self.library, item=item, handle=owner, rules=self.plan.version,
                applied=self.applied[bucket_of(owner)], flags=flags, sealed=b"", prov=prov,
            )  # fmt: skip
            found.items.append(replace(row, sealed=seal(key, item_context(row), value)))
        return found

    def _stand(self, found: Refolded, handle: Handle, claims: Sequence[Claim], flags: GoldenFlag) -> None:
        key = self.ring.of(handle)
        if key is None:
            return  # erased: what it had stays sealed under a key that is gone
        value, prov, more, pairs = self._folded(found, claims)
        row = self._row(handle, flags | more, prov)
        found.golden.append(replace(row, sealed=seal(key, golden_context(row), value)))
        found.conflicts[handle] = pairs

    def _point(self, found: Refolded, handle: Handle, head: Handle) -> None:
        key = self.ring.of(handle)
        if key is None:
            return
        row = self._row(handle, GoldenFlag.MOVED | GoldenFlag.LINKED, head)
        found.golden.append(replace(row, sealed=seal(key, golden_context(row), b"")))
        found.conflicts[handle] = frozenset()

    def _row(self, handle: Handle, flags: GoldenFlag, prov: bytes) -> GoldenRow:
        return GoldenRow(
            handle=handle, library=self.library, rules=self.plan.version, applied=self.applied[bucket_of(handle)],
            flags=flags, sealed=b"", prov=prov,
        )  # fmt: skip

    def _folded(self, found: Refolded, claims: Sequence[Claim]) -> tuple[bytes, bytes, GoldenFlag, frozenset[Conflict]]:
        """Return value, provenance, flags and conflicts; of a subject that cannot be folded an empty one, set aside."""
        try:
            golden = fold(self.plan, claims, self.valid)
            pairs = conflicts(self.plan, claims, self.valid)
            (value,) = self.codec.encode([golden])
            prov = pack_provenance(Provenance.of(golden))
        except Exception as error:  # noqa: BLE001 - whatever it is, one subject must not stop all the others
            found.set_aside += 1
            _log.error("hub_subject_set_aside", library=self.library, claims=len(claims), error=type(error).__name__)
            return b"", b"", GoldenFlag.QUARANTINED, frozenset()
        found.subjects += 1
        return value, prov, _NONE, pairs


def _by_handle(claims: Iterable[Claim], resources: Collection[int]) -> dict[Handle, list[Claim]]:
    own: dict[Handle, list[Claim]] = {}
    for claim in (one for one in claims if one.position.resource in resources):
        own.setdefault(claim.handle, []).append(claim)
    return own
