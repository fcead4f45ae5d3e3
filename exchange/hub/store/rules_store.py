"""Store of a library's rules and of their procedure: port, and adapter in memory. No version is ever deleted.

The stores never begin or commit: a write joins the `UnitOfWork` that it is given, a read takes any `Reader`.
"""

from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from exchange.hub.services.rule_changes import RulesState, RulesVersion
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["MemoryRules", "RulesStore", "rules_changed", "unknown_rules", "version_taken"]


class RulesStore(Protocol):
    """Store of rules. A row that the pool did not write is refused: with one, a library has no rules that count."""

    def lock(self, work: UnitOfWork, library: str, *, shared: bool = False) -> None:
        """Wait until no other transaction changes the rules of a library, and let none until this one ends.

        Args:
            work: the open transaction.
            library: whose.
            shared: it changes nothing itself: a step, beside which other steps go on.
        """
        ...

    def add(self, work: UnitOfWork, version: RulesVersion) -> None:
        """Store a proposed version.

        Raises:
            ConflictError: ALREADY_EXISTS, its number is taken.
        """
        ...

    def change(self, work: UnitOfWork, version: RulesVersion, before: RulesState) -> None:
        """Store a version in the place of what it was.

        Raises:
            ConflictError: VERSION_CONFLICT, it is not in that state any more.
            CorruptError: ROW_FORGED.
        """
        ...

    def versions(self, reader: Reader, library: str) -> Sequence[RulesVersion]:
        """Return every version of a library, in order.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def active(self, reader: Reader, library: str) -> RulesVersion | None:
        """Return the active version of a library.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...


def version_taken() -> ConflictError:
    """Return the error of a second version of one number."""
    return ConflictError(Reason.ALREADY_EXISTS, "such a version was proposed already; take the next number")


def rules_changed() -> ConflictError:
    """Return the error of a version that another act has changed."""
    return ConflictError(Reason.VERSION_CONFLICT, "these rules were changed meanwhile; read them again")


def unknown_rules() -> InvalidError:
    """Return the error of a version that does not exist."""
    return InvalidError(Reason.NOT_FOUND, "there is no such version of these rules")


class MemoryRules(RulesStore):
    """The adapter in memory, for tests."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], RulesVersion] = {}

    @override
    def lock(self, work: UnitOfWork, library: str, *, shared: bool = False) -> None:
        pass  # transactions in memory run one at a time

    @override
    def add(self, work: UnitOfWork, version: RulesVersion) -> None:
        key = (version.rules.library, version.rules.version)
        if key in self._rows:
            raise version_taken()
        self._rows[key] = version
        on_rollback(work, lambda: self._rows.__delitem__(key))

    @override
    def change(self, work: UnitOfWork, version: RulesVersion, before: RulesState) -> None:
        key = (version.rules.library, version.rules.version)
        found = self._rows.get(key)
        if found is None or found.state is not before:
            raise rules_changed()
        self._rows[key] = version
        on_rollback(work, lambda: self._rows.__setitem__(key, found))

    @override
    def versions(self, reader: Reader, library: str) -> Sequence[RulesVersion]:
        return [one for (name, _), one in sorted(self._rows.items(), key=lambda each: each[0]) if name == library]

    @override
    def active(self, reader: Reader, library: str) -> RulesVersion | None:
        return next((one for one in self.versions(reader, library) if one.state is RulesState.ACTIVE), None)
