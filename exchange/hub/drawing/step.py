"""One step of drawing (stream processing): position → fetch → decode → lock → claims → fold → one commit → acknowledge.

    1  read the position of the resource's grant          5  seal and add the claims
    2  fetch what follows it, over the client             6  lay them over golden records; fold the rest
    3  decode; identifiers to handles, keys of new ones   7  golden records, conflicts and position: one commit
    4  lock group, rules and keys                         8  acknowledge at the pool

Whatever ends a step before the commit of 7 rolls all of it back: claims, golden records, conflicts, batch numbers and
position are of one moment. After it the acknowledgement trails, and the next one carries it. Where the outcome of the
commit is unknown, the next step reads the position, which says it.

A void states no value, and so no subject: it goes to every handle under which its item has come. A record that names
another subject than before is a void under the former handle, at the same place, and a claim under the new one: from
then on, as a licence gets another holder, or, where it is a correction, as if it had never been about the former. A
record that names nobody is counted by its place, and makes no claim. A subject that was erased gets a claim without a
value: that something came stays known, what it said does not.

A subject whose claims cannot be folded is set aside, and the step goes on: it is answered as unavailable, never with
the record that it had before.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from exchange.hub.drawing.golden_codec import GoldenCodec, RecordCodec
from exchange.hub.drawing.laying import Laying
from exchange.hub.drawing.refold import SUBJECT_LIBRARIES, Refold, Refolded
from exchange.hub.drawing.source import DrawnRecord, DrawnResource, HubSource, Release
from exchange.hub.drawing.stored_claims import conflict_changes, open_claims
from exchange.hub.fold.claim import Claim, Instant, Position, Value
from exchange.hub.fold.fold import Plan, plan
from exchange.hub.fold.identity import Handle, Link, bucket_of, handle_of
from exchange.hub.store.keys import HubKeys
from exchange.hub.store.model import DrawPosition, GoldenFlag, LinkRow, SealedClaim
from exchange.hub.store.rules_store import RulesStore
from exchange.hub.store.sealing import Keyring, new_key, seal_claim
from exchange.hub.store.store import HubStore, position_moved
from registry.database.unit_of_work import Database, UnitOfWork
from schemas import failpoints
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.record import Operation, unframe

__all__ = ["GROUP", "Step", "StepResult"]

GROUP: Final = 0
"""The one group of buckets: a subject's handles may lie in any two of them."""
_VALUE: Final = ""
"""Name under which a claim carries its framed value until it is sealed; no field has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step did.

    Attributes:
        claims: added.
        subjects: folded.
        laid: of them, those that were decided without reading their claims.
        unnamed: records that name no subject.
        set_aside: subjects that could not be folded.
        caught_up: whether the end of the topic was reached.
    """

    claims: int = 0
    subjects: int = 0
    laid: int = 0
    unnamed: int = 0
    set_aside: int = 0
    caught_up: bool = False


@dataclass(frozen=True, slots=True)
class _Named:
    """A record with what it says of its subject."""

    record: DrawnRecord
    handle: Handle | None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a step adds.

    Attributes:
        claims: numbered.
        touched: handles of their subjects, and of those that they link.
        ring: keys of everybody concerned.
        fresh: handles that were not known before.
        applied: number of the batch in each bucket.
    """

    claims: list[Claim]
    touched: set[Handle]
    ring: Keyring
    fresh: set[Handle]
    applied: Mapping[int, int]


class Step:
    """Draws one resource. Used by one thread.

    Args:
        resource: which.
        source: the pool.
        database: of the store.
        store: of claims and golden records.
        rules: of libraries.
        keys: of the hub.
        golden: codec of the library's golden records.
        now: microseconds UTC.
        month: number of the current month, for keys of new subjects.
    """

    def __init__(
        self,
        *,
        resource: DrawnResource,
        source: HubSource,
        database: Database,
        store: HubStore,
        rules: RulesStore,
        keys: HubKeys,
        golden: GoldenCodec,
        now: Callable[[], Instant],
        month: Callable[[], int],
    ) -> None:
        self._resource = resource
        self._source = source
        self._database = database
        self._store = store
        self._rules = rules
        self._keys = keys
        self._golden = golden
        self._codec = RecordCodec(source.schema)
        self._now = now
        self._month = month

    def run(self) -> StepResult:
        """Draw once, and return what was done.

        Raises:
            ConflictError: VERSION_CONFLICT, another worker has moved the position; TRANSITION_NOT_ALLOWED, the library
                has no active rules, or they do not name the resource.
            CorruptError: a row of the hub is not its own; LOG_CORRUPT, somebody has written beside this worker.
            PoolError: what the pool answers.
        """
        grant = self._resource.grant
        with self._database.read() as reader:
            before = self._store.position(reader, grant, GROUP)
        release = self._source.fetch(grant, b"" if before is None else before.position)
        if before is not None and release.next_position == before.position:
            return StepResult(caught_up=release.caught_up)
        named, unnamed = self._name(release)
        result = self._write(before, release, named)
        failpoints.reached("hub_after_commit")
        self._source.commit(grant, release.next_position)
        return replace(result, unnamed=unnamed, caught_up=release.caught_up)

    def _name(self, release: Release) -> tuple[list[_Named], int]:
        """Return the records with their subjects, and how many name none."""
        values = self._codec.decode([one.value for one in release.records])
        named: list[_Named] = []
        unnamed = 0
        for record, fields in zip(release.records, values, strict=True):
            if fields is None:
                named.append(_Named(record, None))
                continue
            try:
                named.append(self._named(record, fields))
            except InvalidError:
                # The number stays with its department, whose schema's rules have let it pass; its place is counted.
                unnamed += 1
        return named, unnamed

    def _named(self, record: DrawnRecord, fields: Mapping[str, Value]) -> _Named:
        key = self._keys.handle_key()
        subject = self._resource.subject.read(fields)
        if subject is None:
            raise InvalidError(Reason.IDENTIFIER_INVALID, "got a record without an identifier of its subject")
        handle = handle_of(key, subject)
        links = []
        for other in (one.read(fields) for one in self._resource.links):
            if other is not None and other != subject:
                linked = handle_of(key, other)
                links.append(Link.of(handle, linked, citizen=subject.citizen, other_citizen=other.citizen))
        return _Named(record, handle, tuple(links))

    def _write(self, before: DrawPosition | None, release: Release, named: Sequence[_Named]) -> StepResult:
        with self._database.begin() as work:
            self._store.lock_group(work, GROUP)
            if self._store.position(work, self._resource.grant, GROUP) != before:
                raise position_moved()
            made, number = self._plan(work)
            claims = self._place(work, number, release.generation, named)
            # A subject that is linked with one of this batch, or will be, gets its number too: its record may change.
            ends = {end for one in claims for link in one.links for end in (link.left, link.right)}
            touched = {one.handle for one in claims} | ends
            everyone = touched.union(*self._store.related(work, touched).values())
            ring, fresh = self._ring(work, everyone)
            applied = self._store.next_batch(work, {bucket_of(one) for one in everyone}, self._now(), release.entry)
            batch = _Batch(
                [replace(one, applied=applied[bucket_of(one.handle)]) for one in claims], touched, ring, fresh, applied
            )
            failpoints.reached("hub_before_claims")
            self._add_claims(work, batch.claims, ring)
            refolded, laid = self._fold(work, made, batch)
            failpoints.reached("hub_before_golden")
            self._store.put_golden(work, refolded.golden)
            self._store.put_items(work, refolded.items)
            failpoints.reached("hub_before_conflicts")
            changed = conflict_changes(self._store, work, self._resource.library, refolded, applied)
            self._store.put_conflicts(work, changed)
            failpoints.reached("hub_before_position")
            after = DrawPosition(
                grant=self._resource.grant,
                group=GROUP,
                position=release.next_position,
                vector=_advanced(() if before is None else before.vector, release),
            )
            self._store.move_position(work, before, after)
            failpoints.reached("hub_before_commit")
        return StepResult(claims=len(claims), subjects=refolded.subjects, laid=laid, set_aside=refolded.set_aside)

    def _plan(self, work: UnitOfWork) -> tuple[Plan, int]:
        library = self._resource.library
        self._rules.lock(work, library, shared=True)
        active = self._rules.active(work, library)
        numbers = self._store.resources(work)
        number = numbers.get(str(self._resource.topic))
        if active is None or number is None or str(self._resource.topic) not in active.rules.resources:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the library {library} has no active rules that name {self._resource.topic}; the data authority "
                "activates some first",
            )
        return plan(active.rules, numbers), number

    def _place(self, work: UnitOfWork, number: int, generation: int, named: Sequence[_Named]) -> list[Claim]:
        """Return the claims of a batch: voids under each handle that their item had, records that moved under both."""
        known = {
            item: set(handles)
            for item, handles in self._store.handles_of(work, number, {one.record.item for one in named}).items()
        }
        claims: list[Claim] = []
        for one in named:
            record = one.record
            had = known.setdefault(record.item, set())
            position = Position(number, generation, record.partition, record.offset)
            claim = Claim(
                handle=one.handle or Handle(b""),
                position=position,
                item=record.item,
                operation=record.operation,
                applied=0,
                recorded_at=record.recorded_at,
                valid_from=record.valid_from,
                valid_to=record.valid_to,
                values={_VALUE: record.value} if one.handle is not None else None,
                links=one.links,
            )
            if one.handle is None:
                claims += [replace(claim, handle=handle) for handle in sorted(had)]
                continue
            claims += [_left(claim, handle) for handle in sorted(had - {one.handle})]
            claims.append(claim)
            had.add(one.handle)
        return claims

    def _ring(self, work: UnitOfWork, handles: set[Handle]) -> tuple[Keyring, set[Handle]]:
        """Return the keys of subjects, locked against erasure; those of new subjects are made, and named."""
        missing = handles - self._store.keys(work, handles).keys()
        month = self._month()
        self._store.add_keys(work, [new_key(self._keys, month, one) for one in sorted(missing)])
        return Keyring.unwrapped(self._keys, self._store.lock_keys(work, handles).values()), missing

    def _add_claims(self, work: UnitOfWork, claims: Sequence[Claim], ring: Keyring) -> None:
        rows: list[SealedClaim] = []
        links: list[LinkRow] = []
        for claim in claims:
            value = _framed(claim)
            row = SealedClaim.of(claim, schema=unframe(value)[0] if value else 0, sealed=None)
            key = ring.of(claim.handle)
            if key is None:
                rows.append(row)
                continue
            rows.append(replace(row, sealed=seal_claim(row, key, claim.links, value)))
            links += [
                LinkRow(left=one.left, right=one.right, claim=claim.position, applied=claim.applied)
                for one in claim.links
            ]
        self._store.add_claims(work, rows)
        self._store.add_links(work, links)

    def _fold(self, work: UnitOfWork, made: Plan, batch: _Batch) -> tuple[Refolded, int]:
        """Return the rows to write, and how many of the subjects were decided without their claims."""
        families = frozenset(self._store.related(work, batch.touched).values())
        valid = self._now()
        if self._resource.library not in SUBJECT_LIBRARIES:
            claims = open_claims(
                self._codec, self._store.claims(work, frozenset[Handle]().union(*families)), batch.ring
            )
            return self._refold(made, batch, valid).about_items({one.item for one in batch.claims}, claims), 0
        laid = self._lay(work, made, batch, families, valid)
        left = [one for one in families if not one & laid.conflicts.keys()]
        claims = open_claims(self._codec, self._store.claims(work, frozenset[Handle]().union(*left)), batch.ring)
        decided = laid.subjects
        laid.add(self._refold(made, batch, valid).subjects(left, claims))
        return laid, decided

    def _refold(self, made: Plan, batch: _Batch, valid: Instant) -> Refold:
        return Refold(
            plan=made,
            library=self._resource.library,
            ring=batch.ring,
            codec=self._golden,
            applied=batch.applied,
            valid=valid,
        )

    def _lay(
        self, work: UnitOfWork, made: Plan, batch: _Batch, families: Collection[frozenset[Handle]], valid: Instant
    ) -> Refolded:
        """Return the rows of the subjects that golden record and provenance alone decide."""
        own: dict[Handle, list[Claim]] = {}
        for claim in batch.claims:
            own.setdefault(claim.handle, []).append(claim)
        alone = {handle for family in families if len(family) == 1 for handle in family}
        once = {handle: claims[0] for handle, claims in own.items() if len(claims) == 1 and handle in alone}
        golden = self._store.golden(work, once)
        tried = {
            handle: claim
            for handle, claim in once.items()
            if claim.values is not None
            and batch.ring.of(handle) is not None
            and (golden[handle].flags == GoldenFlag(0) if handle in golden else handle in batch.fresh)
        }
        decoded = self._codec.decode([_framed(claim) for claim in tried.values()])
        stated = {handle: values or {} for handle, values in zip(tried, decoded, strict=True)}
        laying = Laying(
            plan=made,
            library=self._resource.library,
            ring=batch.ring,
            codec=self._golden,
            applied=batch.applied,
            valid=valid,
        )
        return laying.lay([*tried.values()], stated, golden)


def _advanced(vector: tuple[int, ...], release: Release) -> tuple[int, ...]:
    """Return the next offset of each partition after a release."""
    after = [*vector]
    for one in release.records:
        after += [0] * (one.partition + 1 - len(after))
        after[one.partition] = max(after[one.partition], one.offset + 1)
    return tuple(after)


def _left(claim: Claim, former: Handle) -> Claim:
    """Return the void under the handle of a subject that a record was about before."""
    since = claim.recorded_at if claim.valid_from is None else claim.valid_from
    return replace(
        claim,
        handle=former,
        operation=Operation.VOID,
        valid_from=None if claim.operation is Operation.CORRECT else since,
        valid_to=None,
        values=None,
        links=(),
    )


def _framed(claim: Claim) -> bytes:
    """Return the framed value that a claim has on its way into the store; empty for a void."""
    value = None if claim.values is None else claim.values.get(_VALUE)
    return value if isinstance(value, bytes) else b""
