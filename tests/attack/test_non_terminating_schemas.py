"""An infinitely recursive record has no value: whatever is sent under such a schema ends in an error.

Its reader would go on as long as there are bytes, or forever where the record takes none. So no engine is compiled for
it, however the schema comes to one.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exchange.access.view.derive import derive_schema
from exchange.access.view.view import ViewSpec, compile_view
from exchange.engines.process_pool import ProcessPool
from exchange.records.engine_tasks import compile_check
from exchange.records.writer_schemas import WriterSchemas
from registry.avro.parser import parse
from registry.avro.type_tree import compile_type
from registry.codec.codec import engine_for
from registry.codec.datum_reader import DatumError, compile_reader
from registry.codec.datum_writer import compile_writer
from registry.codec.row_engine import RowEngine
from registry.subjects.model import Content
from schemas.errors import InvalidError, Reason
from schemas.record import frame
from tests.kit.cases.grants import POPULATION
from tests.kit.cases.registry import Subjects, memory_store
from tests.kit.world.publisher import checkable

SUBJECT = POPULATION.subject


def r(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}


NON_TERMINATING = {
    "back.back": r("R", back=r("S", back="R"), more=["null", "S"]),
    "more.self": r("R", more=["null", r("S", back="R", self="S")]),
    "next": r("R", head="int", next="R"),
    "empty": r("R", empty="R"),
    "twice.other.twice": r("R", twice=r("S", other=r("T", twice="R"))),
    "list.of": r("R", list=["null", {"type": "array", "items": r("S", of="S")}]),
    "map.of": r("R", map={"type": "map", "values": r("S", of="S", n="int")}),
    "branch.of": r("R", branch=["int", "string", r("S", of="S", n="int")]),
    "one": r("R", one=["R"]),
    "many.of": r("R", many=[{"type": "fixed", "name": f"F{at}", "size": 1} for at in range(130)] + [r("S", of="S")]),
}
HARMLESS = {
    "optional": r("R", next=["null", "R"]),
    "array": r("R", next={"type": "array", "items": "R"}),
    "map": r("R", next={"type": "map", "values": "R"}),
    "branch": r("R", next=["R", "int"]),
    "through another": r("R", more=["null", r("S", back="R")]),
    "through a list of another": r("R", more={"type": "array", "items": r("S", back=r("T", back="R", n="int"))}),
}


def refused(act: Callable[[], object]) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        act()
    assert caught.value.reason is Reason.SCHEMA_UNSAFE
    return caught.value


@pytest.mark.parametrize("field", NON_TERMINATING)
def test_a_non_terminating_schema_is_described_but_has_no_engine(field: str) -> None:
    text = json.dumps(NON_TERMINATING[field])
    assert refused(lambda: parse(text)).details["field"] == field
    described = parse(text, allow_non_terminating=True)
    assert described.type_tree.non_terminating_field == field
    for make in (engine_for, RowEngine):
        error = refused(lambda make=make: make(described))
        assert error.details["field"] == field
        assert "without end" in error.message
    for compile_ in (compile_reader, compile_writer):
        refused(lambda compile_=compile_: compile_(described.type_tree))


@pytest.mark.parametrize("name", HARMLESS)
def test_a_record_that_may_terminate_is_accepted(name: str) -> None:
    text = json.dumps(HARMLESS[name])
    assert parse(text).type_tree.non_terminating_field == ""
    assert engine_for(parse(text))


def test_a_record_that_an_enclosing_one_terminates_is_written_and_read() -> None:
    tree = parse(json.dumps(HARMLESS["through another"])).type_tree
    for datum in (b"\0", b"\2\2\0"):
        assert compile_writer(tree)(compile_reader(tree)(datum)) == datum
    with pytest.raises(DatumError):
        compile_reader(tree)(b"\2" * 1_000)


@pytest.mark.parametrize("items", ["null", {"type": "fixed", "name": "Z", "size": 0}, r("Z")])
def test_what_harms_in_another_way_is_refused_even_to_be_described(items: Any) -> None:
    text = json.dumps(r("R", head="R", deep={"type": "array", "items": items}))
    assert refused(lambda: parse(text, allow_non_terminating=True)).details["field"] == "deep"
    wide = r("W", **{f"f{at}": "long" for at in range(200)})
    text = json.dumps(r("R", head="R", deep={"type": "array", "items": ["null", wide]}))
    assert refused(lambda: parse(text, allow_non_terminating=True)).details["field"] == "deep"


def test_a_non_terminating_type_is_refused_unless_it_is_asked_for() -> None:
    assert refused(lambda: compile_type(NON_TERMINATING["empty"])).details["field"] == "empty"
    assert compile_type(NON_TERMINATING["empty"], allow_non_terminating=True).non_terminating_field == "empty"


@pytest.fixture
def subjects() -> Subjects:
    """A registry in which the resource is not catalogued yet."""
    store = memory_store()
    return Subjects(store, governed=lambda _: False)


@pytest.fixture
def workers() -> Iterator[ProcessPool]:
    with ProcessPool(0) as made:
        yield made


@pytest.mark.parametrize("field", NON_TERMINATING)
@pytest.mark.parametrize("count", [1, 40])
def test_bytes_under_a_non_terminating_schema_end_in_an_error(
    subjects: Subjects, workers: ProcessPool, field: str, count: int
) -> None:
    bad = subjects.register(SUBJECT, Content(text=json.dumps(NON_TERMINATING[field]))).schema_id
    subjects.delete(SUBJECT)
    good = subjects.register(SUBJECT, Content(text=json.dumps(r("R", ward="int")))).schema_id
    now = iter(range(100, 10_000, 10))
    schemas = WriterSchemas(subjects.database, subjects.services.lookup, workers, clock=lambda: float(next(now)))
    for values in (b"", b"\x00", b"\x02" * 100_000, b"\x00\x02" * 50_000):
        with pytest.raises(InvalidError) as caught:
            schemas.check(POPULATION, *checkable([frame(bad, values)] * count))
        assert caught.value.reason is Reason.SCHEMA_UNKNOWN
        assert str(good) in caught.value.message
    assert schemas.check(POPULATION, *checkable([frame(good, b"\x02")] * count)).schema_ids == (good,)


def test_a_view_and_a_process_of_their_own_refuse_it_as_a_writer() -> None:
    text = json.dumps(NON_TERMINATING["next"])
    resource = json.dumps(r("R", head="int"))
    output = derive_schema(parse(resource), ("head",), (), "view.g1.v1")
    spec = ViewSpec(output=output, output_id=9, masks=(), row_filter=None, resource=resource)
    refused(lambda: compile_view(spec, {1: parse(text, allow_non_terminating=True)}))
    refused(lambda: compile_check(json.dumps([(1, text, ())]).encode()))
