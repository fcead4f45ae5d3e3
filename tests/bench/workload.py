"""The record that is measured: 20 fields of the population type, invented persons, batches of 1,000."""

from functools import lru_cache
from typing import Any

import pyarrow as pa

from exchange.demo.people import persons
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas import library
from schemas.record import Packed

BATCH = 1_000
VIEW = ("id_number", "full_name", "birth_date", "household_division_code")
HALF = ("sex_code", "1")  # field and value that every second person has
MASKS = {
    "id_number": "keep_3_4",
    "full_name": "none",
    "birth_date": "none",
    "household_division_code": "none",
}
SCHEMA = library.text("population")


@lru_cache(maxsize=1)
def rows(count: int) -> list[dict[str, Any]]:
    """Return persons as Python values."""
    return list(persons(count))


def batches(count: int) -> list[pa.RecordBatch]:
    """Return the persons as record batches of 1,000: what a connector's mapping hands to the codec."""
    schema = engine_for(parse(SCHEMA)).schema
    made = rows(count)
    return [pa.RecordBatch.from_pylist(made[start : start + BATCH], schema=schema) for start in range(0, count, BATCH)]


def encoded(batch: pa.RecordBatch) -> Packed:
    """Return a batch as Avro datums."""
    return engine_for(parse(SCHEMA)).encode(batch)
