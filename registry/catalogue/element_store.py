"""Port of data elements, with its twin in memory: the dictionary, and the sources in force."""

import threading
from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from registry.catalogue.elements import Claim, DataElement, ElementUse
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from registry.directory.store import stale_version
from schemas.names import Topic

__all__ = ["ElementStore", "MemoryElements"]


class ElementStore(Protocol):
    """Port: stores data elements, and which entries in force are the source of which."""

    def save(self, work: UnitOfWork, element: DataElement) -> None:
        """Store version 1 of a new element, or the version after the stored one.

        Raises:
            ConflictError: VERSION_CONFLICT, when that version is stored already.
        """
        ...

    def get(self, reader: Reader, code: str) -> DataElement | None:
        """Return the current version.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def lock(self, work: UnitOfWork, code: str) -> DataElement | None:
        """Return the current version, and let no other transaction decide on its source until this one has ended."""
        ...

    def page(self, reader: Reader, *, after: str = "", limit: int = 1_000) -> Sequence[DataElement | DamagedRow]:
        """Return elements in the order of their codes; fewer than *limit* only at the end."""
        ...

    def claims(self, reader: Reader, code: str) -> Sequence[Claim]:
        """Return the entries in force that are the source of an element, by topic."""
        ...

    def replace_claims(self, work: UnitOfWork, topic: Topic, provider: str, codes: Sequence[str]) -> None:
        """Let an entry be the source of these elements and of no other."""
        ...

    def drop_claims(self, work: UnitOfWork, code: str, *, but: str) -> None:
        """Let no entry be the source of an element but those of one department."""
        ...

    def replace_uses(self, work: UnitOfWork, subject: str, version: int, uses: Sequence[tuple[str, str]]) -> None:
        """Let a subject use these elements and no other: code and path of each field of its newest version."""
        ...

    def uses(
        self, reader: Reader, code: str, *, after: tuple[str, str] = ("", ""), limit: int = 1_000
    ) -> Sequence[ElementUse]:
        """Return the fields that name an element, behind a subject and path, in their order."""
        ...


class MemoryElements(ElementStore):
    """Store of data elements in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._elements: dict[str, DataElement] = {}
        self._claims: dict[tuple[str, Topic], Claim] = {}
        self._uses: list[tuple[str, ElementUse]] = []

    @override
    def save(self, work: UnitOfWork, element: DataElement) -> None:
        with self._lock:
            before = self._elements.get(element.code)
            if element.version != (0 if before is None else before.version) + 1:
                raise stale_version("data element", element.version - 1)
            whole = self._elements
            on_rollback(work, lambda: setattr(self, "_elements", whole))
            self._elements = {**whole, element.code: element}

    @override
    def get(self, reader: Reader, code: str) -> DataElement | None:
        with self._lock:
            return self._elements.get(code)

    @override
    def lock(self, work: UnitOfWork, code: str) -> DataElement | None:
        return self.get(work, code)

    @override
    def page(self, reader: Reader, *, after: str = "", limit: int = 1_000) -> Sequence[DataElement | DamagedRow]:
        with self._lock:
            return [self._elements[code] for code in sorted(self._elements) if code > after][:limit]

    @override
    def claims(self, reader: Reader, code: str) -> Sequence[Claim]:
        with self._lock:
            found = [claim for claim in self._claims.values() if claim.element == code]
        return sorted(found, key=lambda claim: claim.topic)

    @override
    def replace_claims(self, work: UnitOfWork, topic: Topic, provider: str, codes: Sequence[str]) -> None:
        with self._lock:
            self._put_back(work)
            kept = {key: claim for key, claim in self._claims.items() if key[1] != topic}
            self._claims = kept | {(code, topic): Claim(code, topic, provider) for code in codes}

    @override
    def drop_claims(self, work: UnitOfWork, code: str, *, but: str) -> None:
        with self._lock:
            self._put_back(work)
            self._claims = {
                key: claim for key, claim in self._claims.items() if key[0] != code or claim.provider == but
            }

    @override
    def replace_uses(self, work: UnitOfWork, subject: str, version: int, uses: Sequence[tuple[str, str]]) -> None:
        with self._lock:
            before = self._uses
            on_rollback(work, lambda: setattr(self, "_uses", before))
            kept = [(code, use) for code, use in before if use.subject != subject]
            self._uses = [*kept, *((code, ElementUse(subject, path, version)) for code, path in uses)]

    @override
    def uses(
        self, reader: Reader, code: str, *, after: tuple[str, str] = ("", ""), limit: int = 1_000
    ) -> Sequence[ElementUse]:
        with self._lock:
            found = [use for used, use in self._uses if used == code and (use.subject, use.path) > after]
        return sorted(found, key=lambda use: (use.subject, use.path))[:limit]

    def _put_back(self, work: UnitOfWork) -> None:
        before = self._claims
        on_rollback(work, lambda: setattr(self, "_claims", before))
