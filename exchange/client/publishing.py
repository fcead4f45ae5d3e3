"""Publish stream over gRPC: batches out, receipts back in order, with a window of unanswered batches.

gRPC pulls requests from an iterator in a thread of its own. The batches come from the caller's iterator, which may
read a database; it runs in a feeder thread, which waits while the window is full.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from exchange.client.errors import from_rpc_error
from exchange.client.messages import BatchRefusedError, RowRefusal
from schemas.errors import InvalidError, PoolError
from schemas.names import Lane
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.record import Batch, OffsetRange, Receipt
from schemas.status import error_of

__all__ = ["PublishStream", "receipt_of"]

_END = None


class PublishStream:
    """One stream of the caller's batches; iterate `receipts()` once."""

    def __init__(
        self,
        method: Any,
        batches: Iterable[Batch],
        to_wire: Callable[[Batch], wire.PublishRequest],
        in_flight: int,
        explain: Callable[[], str] = str,
    ) -> None:
        self._explain = explain  # what on this machine may keep the gateway from answering
        self._method = method
        self._batches = batches
        self._to_wire = to_wire
        self._window = threading.Semaphore(in_flight)
        self._requests: queue.SimpleQueue[wire.PublishRequest | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._failure: BaseException | None = None

    def receipts(self) -> Iterator[Receipt]:
        """Return the receipts in order; raise what `exchange.client.port.Pool.publish` raises."""
        threading.Thread(target=self._feed, name="publish-feed", daemon=True).start()
        call = self._method(iter(self._requests.get, _END))
        try:
            for reply in call:
                if reply.WhichOneof("outcome") == "refusal":
                    raise _refusal(reply)
                self._window.release()
                yield receipt_of(reply.receipt)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._explain) from error
        finally:
            self._stopped.set()
            self._window.release()
            call.cancel()
        if self._failure is not None:
            raise self._failure

    def _feed(self) -> None:
        try:
            for batch in self._batches:
                self._window.acquire()
                if self._stopped.is_set():
                    break
                self._requests.put(self._to_wire(batch))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's own thread
            self._failure = error
        self._requests.put(_END)


def receipt_of(receipt: wire.Receipt) -> Receipt:
    """Parse a receipt; its signature is not verified yet.

    Raises:
        InvalidError: NAME_INVALID, when its lane cannot be parsed.
    """
    return Receipt(
        lane=Lane.parse(receipt.lane),
        sequence=receipt.sequence,
        root=receipt.root,
        runs=tuple(OffsetRange(partition=run.partition, first=run.first, last=run.last) for run in receipt.runs),
        entry_id=receipt.entry_id,
        leaf_hash=receipt.leaf_hash,
        source_position=receipt.source_position,
        signature=receipt.signature,
    )


def _refusal(reply: wire.PublishReply) -> PoolError:
    refusal = reply.refusal
    error = error_of(refusal.code, refusal.reason, refusal.message, dict(refusal.details), refusal.retry_after or None)
    if not isinstance(error, InvalidError):
        return error
    rows = tuple(
        RowRefusal(index=row.index, reason=row.reason, field=row.field, message=row.message) for row in refusal.rows
    )
    return BatchRefusedError(
        error.reason, error.message, sequence=reply.sequence, rows=rows, details=dict(error.details)
    )
