"""Store of registered predicates: the port, and its adapter in memory. The stores never begin or commit."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from typing_extensions import override

from exchange.access.predicates.model import PredicateState, RegisteredPredicate, decided_before
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback

__all__ = ["MemoryPredicates", "PredicateStore"]


class PredicateStore(Protocol):
    """Port: stores versions of predicates. None is ever changed but by its decision, and none deleted."""

    def next_version(self, work: UnitOfWork, name: str) -> int:
        """Return the version that a proposal gets; proposals wait for each other, since their number is bounded."""
        ...

    def add(self, work: UnitOfWork, predicate: RegisteredPredicate) -> None:
        """Store a proposed predicate."""
        ...

    def decide(self, work: UnitOfWork, predicate: RegisteredPredicate) -> None:
        """Store a predicate with its decision.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, it was decided meanwhile.
            CorruptError: ROW_FORGED.
        """
        ...

    def get(self, reader: Reader, predicate_id: str) -> RegisteredPredicate | None:
        """Return a predicate by the id of its proposal.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def confirmed(self, reader: Reader, references: Collection[str]) -> Mapping[str, RegisteredPredicate]:
        """Return the confirmed ones of these, by `name/version`.

        Raises:
            CorruptError: ROW_FORGED, one of them.
        """
        ...

    def page(
        self,
        reader: Reader,
        *,
        name: str | None = None,
        library: str | None = None,
        state: PredicateState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[RegisteredPredicate | DamagedRow]:
        """Return predicates, newest first; None does not restrict, and a row that the pool did not write is named.

        Those that are older than the one with the id *before*; fewer than *limit* only at the end.
        """
        ...


class MemoryPredicates(PredicateStore):
    """The adapter in memory."""

    def __init__(self) -> None:
        self._found: dict[str, RegisteredPredicate] = {}

    @override
    def next_version(self, work: UnitOfWork, name: str) -> int:
        del work
        return max((one.version for one in self._found.values() if one.name == name), default=0) + 1

    @override
    def add(self, work: UnitOfWork, predicate: RegisteredPredicate) -> None:
        on_rollback(work, lambda: self._found.__delitem__(predicate.id))
        self._found[predicate.id] = predicate

    @override
    def decide(self, work: UnitOfWork, predicate: RegisteredPredicate) -> None:
        stored = self._found[predicate.id]
        if stored.state is not PredicateState.PROPOSED:
            raise decided_before(stored)
        on_rollback(work, lambda: self._found.__setitem__(stored.id, stored))
        self._found[predicate.id] = predicate

    @override
    def get(self, reader: Reader, predicate_id: str) -> RegisteredPredicate | None:
        del reader
        return self._found.get(predicate_id)

    @override
    def confirmed(self, reader: Reader, references: Collection[str]) -> Mapping[str, RegisteredPredicate]:
        del reader
        return {
            one.reference: one
            for one in self._found.values()
            if one.state is PredicateState.CONFIRMED and one.reference in references
        }

    @override
    def page(
        self,
        reader: Reader,
        *,
        name: str | None = None,
        library: str | None = None,
        state: PredicateState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[RegisteredPredicate | DamagedRow]:
        del reader
        found = [
            one
            for one in self._found.values()
            if name in {None, one.name}
            and library in {None, one.library}
            and state in {None, one.state}
            and (not before or one.id < before)
        ]
        return sorted(found, key=lambda one: one.id, reverse=True)[:limit]
