"""When the column engine is trusted, and what happens when it no longer is."""

import json
import os
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from registry.avro.parser import parse
from registry.codec import column_engine
from registry.codec.codec import CheckedBatch, CodecEngine, engine_for
from tests.kit.cases.random_avro import POPULATION, encode, population

RNG = random.Random(5)
DATUMS = [encode(POPULATION, population(RNG)) for _ in range(50)]


def population_engine() -> CodecEngine:
    return CodecEngine(parse(json.dumps(POPULATION)))


class PanicException(BaseException):
    pass


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise error

    return call


def test_an_engine_is_compiled_once_a_schema() -> None:
    text = json.dumps(POPULATION)
    assert engine_for(parse(text)) is engine_for(parse(text))


def test_a_backtrace_is_not_asked_for() -> None:
    assert os.environ["RUST_BACKTRACE"] == "0"


@pytest.mark.parametrize("error", [PanicException("11010519491231002X"), ValueError("11010519491231002X")])
def test_a_panic_hands_the_batch_to_the_row_engine(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    engine = population_engine()
    batch = engine.decode(DATUMS)
    monkeypatch.setattr(column_engine.pyruhvro, "deserialize_array", raising(error))
    monkeypatch.setattr(column_engine.pyruhvro, "serialize_record_batch", raising(error))
    assert engine.decode(DATUMS).equals(batch)
    assert list(engine.encode(batch)) == DATUMS
    assert isinstance(engine.check(DATUMS), CheckedBatch)


def test_an_interrupt_is_not_taken_for_a_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = population_engine()
    monkeypatch.setattr(column_engine.pyruhvro, "deserialize_array", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        engine.decode(DATUMS)


def test_without_the_library_everything_is_read_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_engine, "pyruhvro", None)
    engine = population_engine()
    assert engine.name == "rows"
    assert "not installed" in engine.fallback
    assert list(engine.encode(engine.decode(DATUMS))) == DATUMS


def swapped(call: Callable[..., Any]) -> Callable[..., Any]:
    """Make the engine that swaps two columns of one type: nothing fails, and everything is wrong."""

    def wrong(items: list[bytes], text: str) -> pa.RecordBatch:
        batch = call(items, text)
        names = batch.schema.names
        one, other = names.index("c2"), names.index("c6")
        arrays = list(batch.columns)
        arrays[one], arrays[other] = arrays[other], arrays[one]
        return pa.RecordBatch.from_arrays(arrays, names=names)

    return wrong


def test_a_schema_that_the_library_reads_wrongly_is_found_by_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_engine.pyruhvro, "deserialize_array", swapped(column_engine.pyruhvro.deserialize_array))
    engine = population_engine()
    assert engine.columns is None
    assert "self-test" in engine.fallback
    assert list(engine.encode(engine.decode(DATUMS))) == DATUMS


def test_a_schema_that_the_library_writes_wrongly_is_found_by_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    right = column_engine.pyruhvro.serialize_record_batch

    def wrong(batch: pa.RecordBatch, text: str, chunks: int) -> list[pa.Array]:
        return [written.take(pa.array([0, *range(len(written) - 1)])) for written in right(batch, text, chunks)]

    monkeypatch.setattr(column_engine.pyruhvro, "serialize_record_batch", wrong)
    engine = population_engine()
    assert engine.columns is None
    assert list(engine.encode(engine.decode(DATUMS))) == DATUMS


def test_a_lawful_batch_is_not_handed_over_for_its_exceptions() -> None:
    engine = population_engine()
    assert engine.columns is not None
    person = {**population(RNG), "id_type": "passport", "id_number": "E12345678", "mobile_phone": (0, None)}
    assert engine.columns.check([*DATUMS, encode(POPULATION, person)]).keys[-1] == b"E12345678"


def test_writing_again_is_what_finds_bytes_behind_a_datum(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = population_engine()
    assert engine.columns is not None
    assert isinstance(engine.check([*DATUMS[:-1], DATUMS[-1] + b"\0"]), list)
    assert len(engine.columns.decode([DATUMS[0] + b"\0"] * 30)) == 30  # the library overlooks them
