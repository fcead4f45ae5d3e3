from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from connectors.conformance import make_release
from connectors.port import DecodedRelease, RejectCode
from connectors.sinks.latest_records import latest_records, values_of


def test_the_last_record_of_each_key_is_kept_with_its_place_among_the_values() -> None:
    keys = [1, 2, 1, 3, 2, 4]
    names: list[str | None] = ["a", None, "b", "c", "d", None]
    given = [make_release({key: name}, at=at) for at, (key, name) in enumerate(zip(keys, names, strict=True))]
    release = DecodedRelease(
        keys=[part.keys[0] for part in given],
        recorded_at=[part.recorded_at[0] for part in given],
        withdrawn=[name is None for name in names],
        records=pa.Table.from_batches([part.records for part in given]).combine_chunks().to_batches()[0],
        values=[b""] * len(keys),
        entry_id="e",
    )
    latest = latest_records(release)
    assert latest.indexes.tolist() == [2, 3, 4]
    assert release.records.column("name").take(pa.array(latest.rows)).to_pylist() == ["b", "c", "d"]
    assert latest.withdrawn.tolist() == [5]
    assert latest.stale == 2
    assert (latest.part(1, 3).indexes.tolist(), len(latest.part(1, 3).withdrawn)) == ([3, 4], 0)


def test_an_empty_release_has_none() -> None:
    latest = latest_records(make_release({}))
    assert (len(latest), len(latest.withdrawn), latest.stale) == (0, 0, 0)


def test_a_value_that_python_cannot_hold_is_rejected_and_its_neighbours_are_not() -> None:
    moments = pa.array([1_675_936_800_123_456_000, 1_675_936_800_123_456_789, None], pa.int64())
    records = pa.RecordBatch.from_arrays(
        [moments.cast(pa.timestamp("ns", "UTC")), pa.array(["a", "b", "c"])], names=["seen", "name"]
    )
    values, rejected = values_of(records, np.arange(3), np.array([10, 11, 12]))
    assert values == [
        {"seen": datetime(2023, 2, 9, 10, 0, 0, 123_456, UTC), "name": "a"},
        None,
        {"seen": None, "name": "c"},
    ]
    (only,) = rejected
    assert (only.index, only.code, only.field) == (11, RejectCode.TARGET_TYPE, "seen")
    assert "1675936800" not in only.message
