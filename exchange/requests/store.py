"""Store of share requests: the port, and its adapter in memory. The stores never begin or commit.

A request stands beside its grant, under the same id: the grant says what may be drawn, the request how that was decided
on. Grants of before this table have no row here; `exchange.control.requests.stored` derives their request.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from exchange.requests.model import RequestState, ShareRequest
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.errors import ConflictError, Reason

__all__ = ["MemoryRequests", "RequestQuery", "RequestStore", "request_moved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestQuery:
    """Which requests to list; None does not limit.

    Attributes:
        consumer, provider: department on that side.
        party: on either side.
        states: any of these.
        after: id behind which the page begins.
        limit: at most so many.
    """

    consumer: str | None = None
    provider: str | None = None
    party: str | None = None
    states: frozenset[RequestState] | None = None
    after: str = ""
    limit: int = 1_000


class RequestStore(Protocol):
    """Store of requests. A row that the pool did not write is refused, never taken for absent."""

    def put(self, work: UnitOfWork, request: ShareRequest) -> None:
        """Store a request in place of its earlier version.

        The caller holds the lock of its grant, so that events of one request follow each other.

        Raises:
            ConflictError: VERSION_CONFLICT, the stored version is not an earlier one.
            CorruptError: ROW_FORGED, the pool did not write the one that is there.
        """
        ...

    def get(self, reader: Reader, request_id: str) -> ShareRequest | None:
        """Return a request; None where none is stored.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def some(self, reader: Reader, ids: Collection[str]) -> Mapping[str, ShareRequest | DamagedRow]:
        """Return the stored ones of these requests by id; one that the pool did not write is named."""
        ...

    def page(self, reader: Reader, query: RequestQuery) -> Sequence[ShareRequest | DamagedRow]:
        """Return stored requests in the order of their ids; one that the pool did not write is named."""
        ...


class MemoryRequests(RequestStore):
    """The adapter in memory."""

    def __init__(self) -> None:
        self._requests: dict[str, ShareRequest] = {}

    @override
    def put(self, work: UnitOfWork, request: ShareRequest) -> None:
        del work
        stored = self._requests.get(request.id)
        if stored is not None and stored.version >= request.version:
            raise request_moved()
        self._requests[request.id] = request

    @override
    def get(self, reader: Reader, request_id: str) -> ShareRequest | None:
        del reader
        return self._requests.get(request_id)

    @override
    def some(self, reader: Reader, ids: Collection[str]) -> Mapping[str, ShareRequest | DamagedRow]:
        del reader
        return {one: self._requests[one] for one in ids if one in self._requests}

    @override
    def page(self, reader: Reader, query: RequestQuery) -> Sequence[ShareRequest | DamagedRow]:
        del reader
        found = [
            one
            for key, one in sorted(self._requests.items())
            if key > query.after
            and query.consumer in {None, one.consumer}
            and query.provider in {None, one.provider}
            and query.party in {None, one.consumer, one.provider}
            and (query.states is None or one.state in query.states)
        ]
        return found[: query.limit]


def request_moved() -> ConflictError:
    """Return the error of a version that does not follow the stored one."""
    return ConflictError(
        Reason.VERSION_CONFLICT, "the request has changed meanwhile; read it again and repeat what you did"
    )
