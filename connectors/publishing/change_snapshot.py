"""Snapshot of a change publisher: one table of a snapshot as a source for the publisher of portions."""

from collections.abc import Iterator, Sequence

from typing_extensions import override

from connectors.port import Portion, Replaces, RowChunk, SnapshotSource
from schemas.errors import ConflictError, Reason, UnavailableError

__all__ = ["SnapshotLostError", "SnapshotTableSource"]


class SnapshotLostError(ConflictError):
    """The snapshot ended before it was published: another one is needed, at a later moment."""


class SnapshotTableSource(SnapshotSource):
    """One table; its only portion is lost when its database goes away."""

    def __init__(self, portion: Portion) -> None:
        self._portion = _SnapshotPortion(portion)

    @override
    def portions(self, fingerprint: bytes) -> Iterator[Portion]:
        del fingerprint
        if self._portion.lost is not None:
            raise SnapshotLostError(Reason.SOURCE_CHANGED, self._portion.lost.message)
        yield self._portion

    @override
    def close(self) -> None:
        """Do nothing: the snapshot is closed by who opened it."""


class _SnapshotPortion(Portion):
    """A portion that remembers that it was lost."""

    def __init__(self, portion: Portion) -> None:
        self._portion = portion
        self.lost: UnavailableError | None = None

    @property
    @override
    def name(self) -> str:
        return self._portion.name

    @property
    @override
    def identity(self) -> bytes:
        return self._portion.identity

    @property
    @override
    def replaces(self) -> Replaces:
        return self._portion.replaces

    @property
    @override
    def stable(self) -> bool:
        return self._portion.stable

    @property
    @override
    def columns(self) -> Sequence[str]:
        return self._portion.columns

    @override
    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        try:
            yield from self._portion.chunks(columns)
        except UnavailableError as error:
            self.lost = error
            raise

    @override
    def confirm(self) -> None:
        self._portion.confirm()
