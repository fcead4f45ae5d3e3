"""The hub's source over the client of departments: fetch with places, acknowledge. Nothing but a change of form.

The hub is enrolled as a department's connector is, with a certificate of its own; what it draws passes grant, view and
log as with any consumer. Its grants give places (`schemas.access.Grant.places`); without them there are no claims.
"""

import struct
from collections.abc import Sequence

from typing_extensions import override

from exchange.client.messages import FetchResult
from exchange.client.port import Pool
from exchange.hub.drawing.source import DrawnRecord, HubSource, Release
from schemas.errors import InvalidError, Reason
from schemas.record import Operation

__all__ = ["ClientSource"]

_BEGINNING = b"\0"
_TIMES = struct.Struct("<qq")


class ClientSource(HubSource):
    """A pool, over gRPC.

    Args:
        pool: the client, under the hub's identity.
        purpose: of the hub's grants.
        case: of them, where one is required.
        generation: of the topics as the hub counts them: a redraw after a restore begins the next one.
        most: records of a fetch.
        wait: seconds of a long poll.
    """

    def __init__(
        self, pool: Pool, *, purpose: str, case: str, generation: int = 1, most: int = 5_000, wait: float = 0.0
    ) -> None:
        self._pool = pool
        self._purpose = purpose
        self._case = case
        self._generation = generation
        self._most = most
        self._wait = wait

    @override
    def fetch(self, grant: str, position: bytes) -> Release:
        result = self._pool.fetch(
            grant,
            position=position or _BEGINNING,
            purpose=self._purpose,
            case=self._case,
            max_records=self._most,
            wait=self._wait,
            places=True,
        )
        return Release(
            records=_records(grant, result),
            generation=self._generation,
            next_position=result.next_position,
            entry=result.entry_id,
            caught_up=result.caught_up,
        )

    @override
    def commit(self, grant: str, position: bytes) -> None:
        self._pool.commit(grant, position, purpose=self._purpose, case=self._case)

    @override
    def schema(self, schema_id: int) -> str:
        return self._pool.schema(schema_id=schema_id)[1]


def _records(grant: str, result: FetchResult) -> Sequence[DrawnRecord]:
    values, places = list(result.values), result.offsets()
    if len(places) != len(values) or len(result.marks) != len(values):
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"got {len(values)} records and {len(places)} places under the grant {grant}; expected one a record: the "
            "hub needs a grant that gives places, of a pool that knows them",
        )
    valid = list(_TIMES.iter_unpack(result.valid)) or [(0, 0)] * len(values)
    return [
        DrawnRecord(
            partition=partition,
            offset=offset,
            item=item,
            operation=Operation(mark),
            recorded_at=recorded_at,
            valid_from=start or None,
            valid_to=end or None,
            value=value,
        )
        for value, (partition, offset), item, mark, recorded_at, (start, end) in zip(
            values, places, result.keys(), result.marks, result.times(), valid, strict=True
        )
    ]
