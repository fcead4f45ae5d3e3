"""Store of the hub: claims, golden records, keys, conflicts, marks, batches, positions. Port, and adapter in memory.

The stores never begin or commit: a write joins the `UnitOfWork` that it is given, a read takes any `Reader`. Claims are
only ever added; golden records are a cache of what the fold makes of them, and may be dropped at any time.

Order is per group of buckets: a writer holds the lock of its group until it commits, so that batches are numbered
without a gap and golden records follow one another. Another writer beside it finds the position moved, or
the place of a claim taken, and writes nothing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from typing_extensions import override

from exchange.hub.fold.claim import Instant
from exchange.hub.fold.identity import Handle
from exchange.hub.store.model import (
    ConflictRow,
    DrawPosition,
    GoldenRow,
    ItemRow,
    LinkRow,
    Mark,
    SealedClaim,
    WrappedKey,
)
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.errors import ConflictError, CorruptError, Reason

__all__ = ["HubStore", "MemoryHub", "claim_taken", "position_moved"]


class HubStore(Protocol):
    """Store of the hub."""

    def lock_group(self, work: UnitOfWork, group: int) -> None:
        """Wait until no other transaction writes in a group of buckets, and keep others out until this one ends."""
        ...

    def position(self, reader: Reader, grant: str, group: int) -> DrawPosition | None:
        """Return how far a grant was drawn; None before the first step.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def move_position(self, work: UnitOfWork, before: DrawPosition | None, after: DrawPosition) -> None:
        """Store a position in the place of the one that was read (compare-and-set).

        Raises:
            ConflictError: VERSION_CONFLICT, it is not that any more.
        """
        ...

    def next_batch(self, work: UnitOfWork, buckets: Collection[int], at: Instant, entry: str) -> Mapping[int, int]:
        """Number a batch of each bucket, at the time given or right after the batch before; return the numbers.

        Args:
            work: the open transaction, which holds the lock of their group.
            buckets: which.
            at: by the clock.
            entry: of the fetch whose records it has.
        """
        ...

    def last_batches(self, reader: Reader) -> Mapping[int, int]:
        """Return the number of the last batch of each bucket that has one.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def batches(self, reader: Reader, bucket: int) -> Sequence[Instant]:
        """Return the times of a bucket's batches 1, 2, 3 and so on.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def add_keys(self, work: UnitOfWork, keys: Sequence[WrappedKey]) -> None:
        """Store keys of new subjects; a subject that has one, or had one, keeps what it has."""
        ...

    def lock_keys(self, work: UnitOfWork, handles: Collection[Handle]) -> Mapping[Handle, WrappedKey]:
        """Return the keys of subjects, and keep them from being erased until the end of the transaction."""
        ...

    def keys(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, WrappedKey]:
        """Return the keys of subjects."""
        ...

    def subjects(self, reader: Reader, after: bytes, limit: int) -> Sequence[Handle]:
        """Return handles of subjects after one, erased ones too, in order; fewer than *limit* only at the end."""
        ...

    def erase_key(self, work: UnitOfWork, handle: Handle, at: Instant) -> bool:
        """Destroy a subject's wrapped key, after the steps that use it; return whether it had one."""
        ...

    def rewrap(self, work: UnitOfWork, keys: Sequence[WrappedKey]) -> int:
        """Store the same keys under another month; return how many still had one."""
        ...

    def keys_of_month(self, reader: Reader, kek: int, after: bytes, limit: int) -> Sequence[WrappedKey]:
        """Return keys that are wrapped under a month's KEK, in order of their handles."""
        ...

    def add_claims(self, work: UnitOfWork, claims: Sequence[SealedClaim]) -> None:
        """Store claims.

        Raises:
            CorruptError: LOG_CORRUPT, the place of one is taken: somebody has written beside this worker.
        """
        ...

    def claims(self, reader: Reader, handles: Collection[Handle]) -> Sequence[SealedClaim]:
        """Return the claims under handles, in order of handle and position."""
        ...

    def handles_of(self, reader: Reader, resource: int, items: Collection[bytes]) -> Mapping[bytes, frozenset[Handle]]:
        """Return the handles under which claims about items of a resource came."""
        ...

    def add_links(self, work: UnitOfWork, links: Collection[LinkRow]) -> None:
        """Store links; one that is known keeps its first claim."""
        ...

    def related(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, frozenset[Handle]]:
        """Return all handles that were ever linked with each, over any number of links, that handle among them."""
        ...

    def put_golden(self, work: UnitOfWork, rows: Sequence[GoldenRow]) -> None:
        """Store golden records in the place of those of their handles."""
        ...

    def golden(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, GoldenRow]:
        """Return golden records by handle."""
        ...

    def drop_golden(self, work: UnitOfWork) -> None:
        """Remove every golden record; the claims stay."""
        ...

    def put_items(self, work: UnitOfWork, rows: Sequence[ItemRow]) -> None:
        """Store golden records of items in the place of those of their keys."""
        ...

    def items(self, reader: Reader, library: str, handles: Collection[Handle]) -> Sequence[ItemRow]:
        """Return the items of a library that are about subjects, in order of their keys."""
        ...

    def open_conflicts(self, reader: Reader, handles: Collection[Handle]) -> Sequence[ConflictRow]:
        """Return the conflicts of subjects that are open, in no order."""
        ...

    def conflicts_in(self, reader: Reader, library: str, limit: int) -> Sequence[ConflictRow]:
        """Return open conflicts of a library, ordered by field, place of the loser and of the winner, and subject."""
        ...

    def put_conflicts(self, work: UnitOfWork, rows: Sequence[ConflictRow]) -> None:
        """Store conflicts that are opened, or that are closed."""
        ...

    def add_mark(self, work: UnitOfWork, mark: Mark) -> None:
        """Store a mark.

        Raises:
            ConflictError: ALREADY_EXISTS, such a one stands.
        """
        ...

    def end_mark(self, work: UnitOfWork, mark: Mark, applied: int) -> None:
        """End a mark that stands.

        Raises:
            ConflictError: VERSION_CONFLICT, it does not stand any more.
        """
        ...

    def marks(self, reader: Reader, handles: Collection[Handle]) -> Sequence[Mark]:
        """Return the marks of subjects, ended ones too, in order of handle, field, kind and beginning.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def number_resources(self, work: UnitOfWork, names: Collection[str]) -> None:
        """Assign a number to the resources that have none, in order of their names. A number is never given twice."""
        ...

    def resources(self, reader: Reader) -> Mapping[str, int]:
        """Return the numbers of resources.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...


def position_moved() -> ConflictError:
    """Return the error of a position that another worker has moved."""
    return ConflictError(
        Reason.VERSION_CONFLICT, "the position was moved by another worker of this group; nothing was written"
    )


def claim_taken() -> CorruptError:
    """Return the error of a claim whose place is taken though the position had not come to it."""
    return CorruptError(
        Reason.LOG_CORRUPT,
        "the hub holds a claim of a record that its position has not come to; somebody has written beside this worker: "
        "stop it, and compare hub_position with hub_claim",
    )


def mark_stands() -> ConflictError:
    """Return the error of a second mark of one kind."""
    return ConflictError(Reason.ALREADY_EXISTS, "such a mark stands on this field already")


def mark_ended() -> ConflictError:
    """Return the error of a mark that another act has ended."""
    return ConflictError(Reason.VERSION_CONFLICT, "the mark does not stand any more; read it again")


_Key = TypeVar("_Key")
_Row = TypeVar("_Row")


class MemoryHub(HubStore):
    """The adapter in memory, for tests."""

    def __init__(self) -> None:
        self._positions: dict[tuple[str, int], DrawPosition] = {}
        self._batches: dict[int, tuple[Instant, ...]] = {}
        self._keys: dict[Handle, WrappedKey] = {}
        self._claims: dict[tuple[object, ...], SealedClaim] = {}
        self._links: dict[tuple[Handle, Handle], LinkRow] = {}
        self._golden: dict[Handle, GoldenRow] = {}
        self._items: dict[tuple[str, bytes], ItemRow] = {}
        self._conflicts: dict[tuple[object, ...], ConflictRow] = {}
        self._marks: dict[tuple[Handle, str, str, str, int], Mark] = {}
        self._resources: dict[str, int] = {}

    @override
    def lock_group(self, work: UnitOfWork, group: int) -> None:
        pass  # transactions in memory run one at a time

    @override
    def position(self, reader: Reader, grant: str, group: int) -> DrawPosition | None:
        return self._positions.get((grant, group))

    @override
    def move_position(self, work: UnitOfWork, before: DrawPosition | None, after: DrawPosition) -> None:
        key = (after.grant, after.group)
        if self._positions.get(key) != before:
            raise position_moved()
        _put(work, self._positions, key, after)

    @override
    def next_batch(self, work: UnitOfWork, buckets: Collection[int], at: Instant, entry: str) -> Mapping[int, int]:
        for bucket in set(buckets):
            before = self._batches.get(bucket, ())
            _put(work, self._batches, bucket, (*before, max(at, before[-1] + 1) if before else at))
        return {bucket: len(self._batches[bucket]) for bucket in buckets}

    @override
    def last_batches(self, reader: Reader) -> Mapping[int, int]:
        return {bucket: len(times) for bucket, times in self._batches.items()}

    @override
    def batches(self, reader: Reader, bucket: int) -> Sequence[Instant]:
        return self._batches.get(bucket, ())

    @override
    def add_keys(self, work: UnitOfWork, keys: Sequence[WrappedKey]) -> None:
        for one in keys:
            if one.handle not in self._keys:
                _put(work, self._keys, one.handle, one)

    @override
    def lock_keys(self, work: UnitOfWork, handles: Collection[Handle]) -> Mapping[Handle, WrappedKey]:
        return self.keys(work, handles)

    @override
    def keys(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, WrappedKey]:
        return {one: self._keys[one] for one in handles if one in self._keys}

    @override
    def subjects(self, reader: Reader, after: bytes, limit: int) -> Sequence[Handle]:
        return [one for one in sorted(self._keys) if one > after][:limit]

    @override
    def erase_key(self, work: UnitOfWork, handle: Handle, at: Instant) -> bool:
        found = self._keys.get(handle)
        if found is None or found.wrapped is None:
            return False
        _put(work, self._keys, handle, replace(found, wrapped=None, erased_at=at))
        return True

    @override
    def rewrap(self, work: UnitOfWork, keys: Sequence[WrappedKey]) -> int:
        kept = [one for one in keys if one.handle in self._keys and self._keys[one.handle].wrapped is not None]
        for one in kept:
            _put(work, self._keys, one.handle, one)
        return len(kept)

    @override
    def keys_of_month(self, reader: Reader, kek: int, after: bytes, limit: int) -> Sequence[WrappedKey]:
        rows = [one for handle, one in sorted(self._keys.items()) if one.kek == kek and handle > after]
        return [one for one in rows if one.wrapped is not None][:limit]

    @override
    def add_claims(self, work: UnitOfWork, claims: Sequence[SealedClaim]) -> None:
        for one in claims:
            key = (one.handle, *one.position)
            if key in self._claims:
                raise claim_taken()
            _put(work, self._claims, key, one)

    @override
    def claims(self, reader: Reader, handles: Collection[Handle]) -> Sequence[SealedClaim]:
        wanted = set(handles)
        return sorted(
            (one for one in self._claims.values() if one.handle in wanted), key=lambda one: (one.handle, one.position)
        )

    @override
    def handles_of(self, reader: Reader, resource: int, items: Collection[bytes]) -> Mapping[bytes, frozenset[Handle]]:
        found: dict[bytes, set[Handle]] = {}
        for one in self._claims.values():
            if one.position.resource == resource and one.item in items:
                found.setdefault(one.item, set()).add(one.handle)
        return {item: frozenset(handles) for item, handles in found.items()}

    @override
    def add_links(self, work: UnitOfWork, links: Collection[LinkRow]) -> None:
        for one in sorted(links):
            if (one.left, one.right) not in self._links:
                _put(work, self._links, (one.left, one.right), one)

    @override
    def related(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, frozenset[Handle]]:
        return closures(handles, lambda some: [pair for pair in self._links if some & {*pair}])

    @override
    def put_golden(self, work: UnitOfWork, rows: Sequence[GoldenRow]) -> None:
        for one in rows:
            _put(work, self._golden, one.handle, one)

    @override
    def golden(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, GoldenRow]:
        return {one: self._golden[one] for one in handles if one in self._golden}

    @override
    def drop_golden(self, work: UnitOfWork) -> None:
        golden, items = self._golden, self._items
        self._golden, self._items = {}, {}

        def undo() -> None:
            self._golden, self._items = golden, items

        on_rollback(work, undo)

    @override
    def put_items(self, work: UnitOfWork, rows: Sequence[ItemRow]) -> None:
        for one in rows:
            _put(work, self._items, (one.library, one.item), one)

    @override
    def items(self, reader: Reader, library: str, handles: Collection[Handle]) -> Sequence[ItemRow]:
        found = (one for (name, _), one in sorted(self._items.items()) if name == library)
        return [one for one in found if one.handle in handles]

    @override
    def open_conflicts(self, reader: Reader, handles: Collection[Handle]) -> Sequence[ConflictRow]:
        return [one for one in self._conflicts.values() if one.handle in handles and one.closed is None]

    @override
    def conflicts_in(self, reader: Reader, library: str, limit: int) -> Sequence[ConflictRow]:
        found = [one for one in self._conflicts.values() if one.library == library and one.closed is None]
        return sorted(found, key=lambda one: (one.field, one.loser, one.winner, one.handle))[:limit]

    @override
    def put_conflicts(self, work: UnitOfWork, rows: Sequence[ConflictRow]) -> None:
        for one in rows:
            key = (one.handle, one.library, one.field, one.winner, one.loser, one.opened)
            _put(work, self._conflicts, key, one)

    @override
    def add_mark(self, work: UnitOfWork, mark: Mark) -> None:
        same = (mark.handle, mark.library, mark.field, mark.kind)
        if any(key[:4] == same and one.to_applied is None for key, one in self._marks.items()):
            raise mark_stands()
        _put(work, self._marks, (*same, mark.from_applied), mark)

    @override
    def end_mark(self, work: UnitOfWork, mark: Mark, applied: int) -> None:
        key = (mark.handle, mark.library, mark.field, mark.kind, mark.from_applied)
        found = self._marks.get(key)
        if found is None or found.to_applied is not None:
            raise mark_ended()
        _put(work, self._marks, key, replace(found, to_applied=applied))

    @override
    def marks(self, reader: Reader, handles: Collection[Handle]) -> Sequence[Mark]:
        return [one for _, one in sorted(self._marks.items(), key=lambda each: each[0]) if one.handle in handles]

    @override
    def number_resources(self, work: UnitOfWork, names: Collection[str]) -> None:
        for name in sorted(set(names) - set(self._resources)):
            _put(work, self._resources, name, len(self._resources) + 1)

    @override
    def resources(self, reader: Reader) -> Mapping[str, int]:
        return dict(self._resources)


def closures(
    handles: Collection[Handle], neighbours: Callable[[frozenset[Handle]], Iterable[tuple[Handle, Handle]]]
) -> Mapping[Handle, frozenset[Handle]]:
    """Return what each handle is linked with, over any number of links.

    Args:
        handles: which.
        neighbours: returns the links that any of some handles stands in.
    """
    group: dict[Handle, set[Handle]] = {one: {one} for one in handles}
    asked: set[Handle] = set()
    while fresh := frozenset(group) - asked:
        asked |= fresh
        for left, right in neighbours(fresh):
            one, other = group.setdefault(left, {left}), group.setdefault(right, {right})
            if one is not other:
                one |= other
                group |= dict.fromkeys(other, one)
    return {one: frozenset(group[one]) for one in handles}


def _put(work: UnitOfWork, rows: dict[_Key, _Row], key: _Key, row: _Row) -> None:
    before = rows.get(key)
    rows[key] = row
    on_rollback(work, lambda: rows.__delitem__(key) if before is None else rows.__setitem__(key, before))
