"""Erasure (删除): the values of one key of a topic are destroyed, after two persons have decided it.

    proposed ─confirm→ confirmed ─carried out→ done
        └─reject→ rejected

One person proposes, another confirms. From the confirmation on nothing of the key before `before` is released; the
values are destroyed afterwards by the pool, where the broker can do that. The key is stored as its pseudonym alone.
What was released before, to whom and for what, stays in the log: an erasure removes values and not the trace.

`ErasureList` is a second record of what was confirmed, outside the database. A restored database may not know of an
erasure; it is carried out again before the pool serves (`exchange.control.erasures`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from typing_extensions import override

from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Topic

__all__ = ["Erasure", "ErasureList", "ErasureState", "ErasureStore", "MemoryErasures", "not_allowed", "unknown_erasure"]


class ErasureState(StrEnum):
    """State of an erasure."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    DONE = "done"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One erasure.

    Attributes:
        id: a UUIDv7.
        key: pseudonym of the record key, 16 bytes.
        reason: in words; never the key.
        proposed_by, decided_by: names of accounts; the latter is empty while nobody has decided.
        before: values of the key before this position of its partition are destroyed; None until it is confirmed.
        destroyed: number of values; None until it is done.
    """

    id: str
    topic: Topic
    key: bytes
    partition: int
    reason: str
    state: ErasureState
    proposed_by: str
    proposed_at: datetime
    decided_by: str = ""
    decided_at: datetime | None = None
    before: int | None = None
    destroyed: int | None = None
    done_at: datetime | None = None

    def decide(self, *, confirmed: bool, by: str, at: datetime, before: int | None) -> "Erasure":
        """Return the erasure as another person has decided.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, it was decided before.
        """
        if self.state is not ErasureState.PROPOSED:
            raise not_allowed(self)
        state = ErasureState.CONFIRMED if confirmed else ErasureState.REJECTED
        return replace(self, state=state, decided_by=by, decided_at=at, before=before)

    def limited(self, latest: int) -> "Erasure":
        """Return the erasure, confirmed, of no position from *latest* on."""
        return replace(self, state=ErasureState.CONFIRMED, before=min(self.before or 0, latest))

    def complete(self, *, destroyed: int, at: datetime) -> "Erasure":
        """Return the erasure as carried out.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, it is not confirmed, or done already.
        """
        if self.state is not ErasureState.CONFIRMED:
            raise not_allowed(self)
        return replace(self, state=ErasureState.DONE, destroyed=destroyed, done_at=at)


class ErasureStore(Protocol):
    """Stores erasures."""

    def add(self, work: UnitOfWork, erasure: Erasure) -> None:
        """Store a new erasure."""
        ...

    def change(self, work: UnitOfWork, changed: Erasure, expected: ErasureState) -> None:
        """Store a changed erasure in the place of one in the expected state.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, it is in another state by now.
        """
        ...

    def get(self, reader: Reader, erasure_id: str) -> Erasure | None:
        """Return one erasure."""
        ...

    def list(self, reader: Reader, state: ErasureState | None = None) -> Sequence[Erasure]:
        """Return all erasures, or those in one state, oldest first."""
        ...

    def page(self, reader: Reader, *, after: str, limit: int) -> Sequence[Erasure | DamagedRow]:
        """Return erasures in the order of their ids, which is that of time; fewer than *limit* only at the end."""
        ...


class ErasureList(Protocol):
    """Record of confirmed erasures outside the database."""

    def add(self, erasure: Erasure) -> None:
        """Add a confirmed erasure, durably.

        Raises:
            UnavailableError: it cannot be written.
        """
        ...

    def all(self) -> Sequence[Erasure]:
        """Return what was added, oldest first.

        Raises:
            CorruptError: LOG_CORRUPT, it cannot be read.
        """
        ...


def unknown_erasure(erasure_id: str) -> InvalidError:
    """Return the error of an id that no erasure has."""
    return InvalidError(
        Reason.NOT_FOUND, f"got the erasure {erasure_id[:40]!r}, which does not exist; see `pool erase list`"
    )


def not_allowed(erasure: Erasure) -> ConflictError:
    """Return the error of an act that the erasure's state does not allow."""
    return ConflictError(
        Reason.TRANSITION_NOT_ALLOWED, f"the erasure {erasure.id} is {erasure.state}; see `pool erase list`"
    )


class MemoryErasures(ErasureStore):
    """In-memory adapter."""

    def __init__(self) -> None:
        self._rows: dict[str, Erasure] = {}

    @override
    def add(self, work: UnitOfWork, erasure: Erasure) -> None:
        self._rows[erasure.id] = erasure
        on_rollback(work, lambda: self._rows.__delitem__(erasure.id))

    @override
    def change(self, work: UnitOfWork, changed: Erasure, expected: ErasureState) -> None:
        before = self._rows.get(changed.id)
        if before is None or before.state is not expected:
            raise not_allowed(before or changed)
        self._rows[changed.id] = changed
        on_rollback(work, lambda: self._rows.__setitem__(changed.id, before))

    @override
    def get(self, reader: Reader, erasure_id: str) -> Erasure | None:
        return self._rows.get(erasure_id)

    @override
    def list(self, reader: Reader, state: ErasureState | None = None) -> Sequence[Erasure]:
        return [one for one in self._rows.values() if state is None or one.state is state]

    @override
    def page(self, reader: Reader, *, after: str, limit: int) -> Sequence[Erasure | DamagedRow]:
        del reader
        return [self._rows[erasure_id] for erasure_id in sorted(self._rows) if erasure_id > after][:limit]
