import io
import json
import math
import random
import uuid
from typing import Any

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.avro.parser import parse
from registry.codec.codec import CheckedBatch, CodecEngine
from registry.codec.datum_reader import compile_reader
from registry.codec.datum_writer import compile_writer
from registry.codec.physical_schema import NotVerifiableError
from registry.codec.random_datums import sample_value
from schemas.errors import InvalidError
from tests.kit.cases.random_avro import encode, random_record, random_value
from tests.kit.share import count

SEEDS = st.integers(0, 2**48)
UNREADABLE = ("timestamp-nanos", "uuid")  # by Python without pandas; by fastavro, where a text is none


def compiled(schema: dict[str, Any]) -> CodecEngine:
    return CodecEngine(parse(json.dumps(schema)))


@pytest.mark.counted
@settings(max_examples=count(100, 50))
@given(SEEDS, st.booleans())
def test_every_schema_round_trips_byte_for_byte_in_both_engines(seed: int, recursive: bool) -> None:
    rng = random.Random(seed)
    schema = random_record(rng, recursive=recursive)
    engine = compiled(schema)
    assert recursive <= (engine.columns is None)
    datums = [encode(schema, random_value(rng, schema)) for _ in range(35)]
    for each in (engine, engine.rows):
        batch = each.decode(datums)
        batch.validate(full=True)
        assert list(each.encode(batch)) == datums
        assert each.check(datums) == CheckedBatch(keys=[])
    if engine.columns is not None:
        assert engine.columns.check(datums) == CheckedBatch(keys=[])  # and not by handing the batch over
        assert list(engine.columns.encode(engine.rows.decode(datums))) == datums
        assert list(engine.rows.encode(engine.columns.decode(datums))) == datums


def test_most_schemas_have_a_columnar_form_and_none_is_distrusted() -> None:
    engines = [compiled(random_record(random.Random(seed))) for seed in range(120)]
    assert sum(engine.columns is not None for engine in engines) > 80
    assert not [engine.fallback for engine in engines if "differ" in engine.fallback]


def mutated(rng: random.Random, datum: bytes) -> bytes:
    data = bytearray(datum)
    at = rng.randrange(len(data) + 1)
    match rng.randrange(5):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(data):
            data[at] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF])
        case 2:
            del data[at:]
        case 3 if at < len(data):
            del data[at]
        case _:
            data.insert(at, rng.randrange(256))
    return bytes(data)


@settings(max_examples=60)
@given(SEEDS)
def test_a_mutated_datum_is_accepted_only_if_it_is_another_record_in_its_one_form(seed: int) -> None:
    rng = random.Random(seed)
    schema = without(random_record(rng), *UNREADABLE)
    engine = compiled(schema)
    text = json.dumps(schema)
    # Blocks of arrays and maps may be split, and a decimal's bytes padded; everything else has one form.
    one_form = all(word not in text for word in ('"array"', '"map"', '"decimal"'))
    good = [encode(schema, random_value(rng, schema)) for _ in range(31)]
    for _ in range(15):
        bad = mutated(rng, good[0])
        at = rng.randrange(32)
        batch = [*good[:at], bad, *good[at:]]
        answer, judged = engine.check(batch), engine.rows.check(batch)
        assert answer == judged
        if engine.columns is not None:
            try:
                engine.columns.check(batch)
            except NotVerifiableError:
                pass
            else:
                assert isinstance(judged, CheckedBatch)
        if isinstance(answer, CheckedBatch):
            (again,) = engine.encode(engine.decode([bad]))
            assert not one_form or again == bad
            assert plain(schema, engine.decode([bad]).to_pylist()[0], bad)
        else:
            assert {error.index for error in answer} == {at}
        index = undecodable(engine, batch)
        assert index in {None, str(at)}


def undecodable(engine: CodecEngine, datums: list[bytes]) -> str | None:
    try:
        engine.decode(datums).validate(full=True)
    except InvalidError as error:
        return error.details["index"]
    return None


def plain(schema: dict[str, Any], ours: Any, datum: bytes) -> bool:
    """Return whether fastavro reads the same."""
    stream = io.BytesIO(datum)
    theirs = fastavro.schemaless_reader(stream, fastavro.parse_schema(json.loads(json.dumps(schema))))
    assert not stream.read()
    return same(ours, theirs)


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, dict) and not isinstance(ours, dict):  # a map: pairs, where fastavro keeps the last of a key
        return isinstance(ours, list) and dict_same(dict(ours), theirs)
    if isinstance(ours, dict):
        return dict_same(ours, theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, float):
        return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
    return bool(ours == (str(theirs) if isinstance(theirs, uuid.UUID) else theirs))


def dict_same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)


def without(schema: Any, *logical: str) -> Any:
    """Return the schema without some logical types."""
    if isinstance(schema, list):
        return [without(each, *logical) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: without(each, *logical) for name, each in schema.items() if name != "logicalType" or each not in logical
    }


@settings(max_examples=80)
@given(SEEDS)
@example(7)
def test_values_are_those_that_fastavro_reads(seed: int) -> None:
    rng = random.Random(seed)
    schema = without(random_record(rng), *UNREADABLE)
    engine = compiled(schema)
    datums = [encode(schema, random_value(rng, schema)) for _ in range(31)]
    for ours, datum in zip(engine.decode(datums).to_pylist(), datums, strict=True):
        assert plain(schema, ours, datum), (ours, datum)


@settings(max_examples=60)
@given(SEEDS)
def test_a_selection_gives_the_same_columns_as_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    schema = random_record(rng)
    engine = compiled(schema)
    datums = [encode(schema, random_value(rng, schema)) for _ in range(31)]
    names = [field["name"] for field in schema["fields"]]
    select = tuple(rng.sample(names, rng.randint(1, len(names))))
    part = engine.decode(datums, select)
    assert part.schema.names == list(select)
    rest = {name: engine.decode(datums).column(name) for name in names if name not in select}
    for name in select:
        rest[name] = part.column(name)
    whole = part.from_arrays([rest[name] for name in names], names=names)
    assert list(engine.encode(whole)) == datums


@settings(max_examples=60)
@given(SEEDS)
def test_the_self_tests_samples_are_values_of_the_schema(seed: int) -> None:
    rng = random.Random(seed)
    tree = parse(json.dumps(random_record(rng))).type_tree
    write, read = compile_writer(tree), compile_reader(tree)
    datum = write(sample_value(tree, rng))
    assert write(read(datum)) == datum
