"""Store of violation cases: the port, and its adapter in memory. The stores never begin or commit."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from exchange.violations.codes import ViolationCode
from exchange.violations.model import CaseState, ViolationCase
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.errors import ConflictError, Reason

__all__ = ["CaseQuery", "MemoryViolations", "ViolationStore", "already_open", "case_changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseQuery:
    """A list of cases, newest first; an attribute that is None or empty does not limit it.

    Attributes:
        party: the department that may see no others than those that concern it and those that it reported.
        taken_over: departments that have merged into the party; it sees what they saw.
        respondent: whose cases.
        states: in one of these.
        code: of this violation.
        grant: on this grant.
        before: only older ones than that of this id.
        limit: at most.
    """

    party: str | None = None
    taken_over: frozenset[str] = frozenset()
    respondent: str | None = None
    states: frozenset[CaseState] | None = None
    code: ViolationCode | None = None
    grant: str | None = None
    before: str = ""
    limit: int = 100


class ViolationStore(Protocol):
    """Store of cases. A row that the pool did not write is refused, never taken for absent."""

    def add(self, work: UnitOfWork, case: ViolationCase) -> None:
        """Store a new case.

        Raises:
            ConflictError: ALREADY_EXISTS, there is one of the same occurrence; `details` names it as `case`.
        """
        ...

    def change(self, work: UnitOfWork, case: ViolationCase) -> None:
        """Store the next version of a case.

        Raises:
            ConflictError: VERSION_CONFLICT, the stored one is not the version before.
            CorruptError: ROW_FORGED.
        """
        ...

    def get(self, reader: Reader, case_id: str) -> ViolationCase | None:
        """Return a case; None where there is none.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def lock(self, work: UnitOfWork, case_id: str) -> ViolationCase | None:
        """Return a case, and lock it until the transaction ends; None where there is none.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def known(self, reader: Reader, keys: Sequence[str]) -> frozenset[str]:
        """Return those keys of occurrences that have a case."""
        ...

    def holding(self, reader: Reader, grant_id: str) -> Sequence[ViolationCase]:
        """Return the cases whose order keeps a grant suspended, by id.

        Raises:
            CorruptError: ROW_FORGED, a case of this grant is not one that the pool wrote, in any state.
        """
        ...

    def held(self, reader: Reader, grants: Collection[str]) -> frozenset[str]:
        """Return those of these grants that an order keeps suspended; a row that the pool did not write keeps its."""
        ...

    def page(self, reader: Reader, query: CaseQuery) -> Sequence[ViolationCase | DamagedRow]:
        """Return cases, newest first; a row that the pool did not write is named."""
        ...

    def count_reported(self, reader: Reader, reporter: str, most: int) -> int:
        """Return how many cases that a department has reported are not closed, counted up to *most*."""
        ...

    def position(self, reader: Reader) -> int:
        """Return the index in the log before which everything was read; 0 where none is stored, or not by the pool."""
        ...

    def move(self, work: UnitOfWork, position: int) -> None:
        """Store how far the log was read; a smaller one than the stored is left out."""
        ...

    def restart(self, work: UnitOfWork) -> None:
        """Store that the log is read from its beginning, as another one has begun."""
        ...


class MemoryViolations(ViolationStore):
    """The adapter in memory."""

    def __init__(self) -> None:
        self._cases: dict[str, ViolationCase] = {}
        self._position = 0

    @override
    def add(self, work: UnitOfWork, case: ViolationCase) -> None:
        for one in self._cases.values():
            if one.occurrence.key == case.occurrence.key:
                raise already_open(one.id)
        self._cases[case.id] = case
        on_rollback(work, lambda: self._cases.__delitem__(case.id))

    @override
    def change(self, work: UnitOfWork, case: ViolationCase) -> None:
        before = self._cases[case.id]
        if before.version != case.version - 1:
            raise case_changed(case.id)
        self._cases[case.id] = case
        on_rollback(work, lambda: self._cases.__setitem__(case.id, before))

    @override
    def get(self, reader: Reader, case_id: str) -> ViolationCase | None:
        del reader
        return self._cases.get(case_id)

    @override
    def lock(self, work: UnitOfWork, case_id: str) -> ViolationCase | None:
        return self.get(work, case_id)

    @override
    def known(self, reader: Reader, keys: Sequence[str]) -> frozenset[str]:
        del reader
        return frozenset(keys) & {one.occurrence.key for one in self._cases.values()}

    @override
    def holding(self, reader: Reader, grant_id: str) -> Sequence[ViolationCase]:
        del reader
        found = (one for one in self._cases.values() if one.holds_grant and one.occurrence.grant == grant_id)
        return sorted(found, key=lambda one: one.id)

    @override
    def held(self, reader: Reader, grants: Collection[str]) -> frozenset[str]:
        return frozenset(one for one in grants if self.holding(reader, one))

    @override
    def page(self, reader: Reader, query: CaseQuery) -> Sequence[ViolationCase | DamagedRow]:
        del reader
        found = (one for one in self._cases.values() if _matches(one, query))
        return sorted(found, key=lambda one: one.id, reverse=True)[: query.limit]

    @override
    def count_reported(self, reader: Reader, reporter: str, most: int) -> int:
        del reader
        open_ones = (one for one in self._cases.values() if one.state is not CaseState.CLOSED)
        return min(sum(reporter != "" and one.occurrence.reporter == reporter for one in open_ones), most)

    @override
    def position(self, reader: Reader) -> int:
        del reader
        return self._position

    @override
    def move(self, work: UnitOfWork, position: int) -> None:
        before = self._position
        self._position = max(before, position)
        on_rollback(work, lambda: setattr(self, "_position", before))

    @override
    def restart(self, work: UnitOfWork) -> None:
        before, self._position = self._position, 0
        on_rollback(work, lambda: setattr(self, "_position", before))


def _matches(case: ViolationCase, query: CaseQuery) -> bool:
    seen = case.occurrence
    return (
        (query.party is None or bool({query.party, *query.taken_over} & {seen.respondent, seen.reporter} - {""}))
        and (query.respondent is None or seen.respondent == query.respondent)
        and (query.states is None or case.state in query.states)
        and (query.code is None or seen.code is query.code)
        and (query.grant is None or seen.grant == query.grant)
        and (not query.before or case.id < query.before)
    )


def already_open(case_id: str) -> ConflictError:
    """Return the error of an occurrence that has a case."""
    return ConflictError(
        Reason.ALREADY_EXISTS,
        f"this has a case already, {case_id}: one department, one subject, one day; see `pool violation show`",
        details={"case": case_id},
    )


def case_changed(case_id: str) -> ConflictError:
    """Return the error of a case that somebody else has changed meanwhile."""
    return ConflictError(Reason.VERSION_CONFLICT, f"the case {case_id} has changed since; read it again")
