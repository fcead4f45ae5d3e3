"""Port of the pool, as a department's program calls it: greet, publish, resume, describe, fetch, commit, report.

This protocol is the source of the signatures and their promises. `exchange.client.PoolClient` implements it over gRPC,
an in-memory adapter implements it in the tests, and `tests/contract/pool_suite.py` runs the same tests on both. The
connectors depend on nothing else of the pool (`connectors.port` exports it).

Every error is a `PoolError`, grouped by who must act. Any call may raise `UnavailableError`: its outcome is unknown,
and its caller alone knows whether it may be repeated.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from exchange.client.messages import FetchResult, Hello, LaneHead, Subscription
from schemas.connector_report import ConnectorReport, ReconciliationTotals, ReportAnswer
from schemas.names import Topic
from schemas.record import Batch, Receipt

__all__ = ["Pool"]


class Pool(Protocol):
    """A pool, called under the identity of one connector."""

    def hello(self) -> Hello:
        """Greet the pool: the cheapest call that proves address, certificates and clock."""
        ...

    def schema(self, topic: Topic | None = None, schema_id: int | None = None) -> tuple[int, str]:
        """Return (id, Avro text) of the latest schema of a topic, or of an id.

        Raises:
            InvalidError: SUBJECT_UNKNOWN, the topic has no schema; SCHEMA_UNKNOWN, no schema has the id.
        """
        ...

    def resume(self, topic: Topic) -> LaneHead:
        """Take over the lane of this connector and topic, and return its last batch at the pool.

        Raises:
            RefusedError: RESOURCE_UNKNOWN; NOT_PROVIDER, another department provides the resource.
            CorruptError: SIGNATURE_INVALID, a lane head that no receipt of this lane, signed by the pool, confirms.
        """
        ...

    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        """Send batches and return their receipts, in order; up to *in_flight* are unanswered at a time.

        *batches* may be iterated in another thread. Closing the iterator of receipts early ends the stream; unanswered
        batches may have been appended: ask `resume`.

        Raises:
            BatchRefusedError: a batch is wrong; those behind it were not appended.
            ConflictError: SEQUENCE_GAP, SEQUENCE_CONFLICT, PREVIOUS_ROOT_MISMATCH, LANE_FENCED.
            RefusedError: RESOURCE_UNKNOWN, NOT_PROVIDER; the connector may not publish this.
            UnavailableError: the pool is away or overloaded.
            CorruptError: SIGNATURE_INVALID, a receipt that the pool's key has not signed.
        """
        ...

    def describe(self, grant_id: str, *, purpose: str = "", case: str = "") -> Subscription:
        """Return what a grant delivers, and the position that its consumer committed.

        Raises:
            RefusedError: GRANT_UNKNOWN; GRANT_OTHER_CONSUMER; GRANT_NOT_ACTIVE, it was never approved. A suspended or
                expired grant is described.
        """
        ...

    def fetch(
        self,
        grant_id: str,
        *,
        position: bytes = b"",
        purpose: str,
        case: str,
        max_records: int = 10_000,
        max_bytes: int = 4 * 1024 * 1024,
        wait: float = 0.0,
        places: bool = False,
    ) -> FetchResult:
        """Fetch records from *position* on; wait up to *wait* seconds for some.

        The position is the `next_position` of an earlier fetch, empty for that of the last commit, or one 0 byte for
        the first record that the grant allows. With *places* the answer says where each record stands, what its
        operation is and when it is valid, if the grant tells that.

        Raises:
            RefusedError: the grant does not allow it, now, for this purpose and case.
            InvalidError: POSITION_INVALID, a position of another grant.
            GoneError: retention has overtaken the position.
            UnavailableError: try again from the same position; what was released twice is marked in the log.
        """
        ...

    def commit(self, grant_id: str, position: bytes, *, purpose: str, case: str) -> str:
        """Acknowledge everything before *position* as stored permanently; return the id of the audit entry.

        Raises:
            RefusedError: the grant does not allow it, now, for this purpose and case.
            InvalidError: POSITION_INVALID, a position of another grant.
        """
        ...

    def report(self, report: ConnectorReport) -> ReportAnswer | None:
        """State what this connector does, in place of its report before; None = the pool takes no reports.

        A pool of an earlier version takes none. Nothing else depends on it.

        Raises:
            InvalidError: REQUEST_INVALID, beyond its bounds (`schemas.connector_report.check_report`).
            RefusedError: the certificate is revoked, or the department inactive.
            UnavailableError: RATE_LIMITED, the connector reports too often.
        """
        ...

    def reconciled(self, totals: ReconciliationTotals) -> str:
        """State what a reconciliation found; return the id of its entry in the log.

        Empty where a pool of an earlier version takes no statement. Nothing else depends on it.

        Raises:
            InvalidError: REQUEST_INVALID, beyond its bounds (`schemas.connector_report.check_totals`).
            RefusedError: the certificate is revoked, or the department inactive.
            UnavailableError: RATE_LIMITED, the connector states too much.
        """
        ...
