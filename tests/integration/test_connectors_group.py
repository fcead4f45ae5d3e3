"""Several batches that the pool took together, and a stream that broke before any of their receipts."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from schemas.record import Batch, Receipt
from tests.kit.twins.pool_twin import TwinClient
from tests.kit.world.department import TOPIC, Department, only, rows


def test_what_was_taken_without_a_receipt_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    department = Department(tmp_path)  # 40 rows a batch
    department.put(rows(200))
    real, broken = TwinClient.publish, iter([True])

    def publish(self: TwinClient, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        if next(broken, False):
            for batch in itertools.islice(batches, 3):
                self.take(topic, batch)
            raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "the gateway died before it could answer")
        yield from real(self, topic, batches, in_flight=in_flight)

    monkeypatch.setattr(TwinClient, "publish", publish)
    run = only(department.publish())
    assert (run.read, run.published, run.outcome) == (200, 200, "done")
    assert len(department.twin.records(TOPIC)) == 200
