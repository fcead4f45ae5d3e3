"""Whatever the schemas, the grant and the records: a view delivers what a naive one on dicts does, and nothing else."""

import io
import json
import math
import random
from dataclasses import replace

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from exchange.access.view import derive, mask
from exchange.access.view import plan as plan_module
from exchange.access.view.view import RowState, View, ViewSpec, _cached_plan
from registry.avro.parser import parse
from schemas.access import MaskRule
from schemas.errors import PoolError
from schemas.record import Packed
from tests.kit.cases.naive_view import naive_view
from tests.kit.cases.view_cases import asked, family, plain
from tests.kit.share import chosen

STATES = {"void": RowState.VOID, "delivered": RowState.DELIVERED, "unmatched": RowState.UNMATCHED}
OUTPUT_ID = 0x0080_7F01


def readers(family_):
    resource = json.loads(json.dumps(family_.resource))
    for field in resource["fields"]:  # where a writer lacks it and it has no default: null
        if isinstance(field["type"], list) and "null" in field["type"]:
            field.setdefault("default", None)
    parsed = {id_: fastavro.parse_schema(plain(writer)) for id_, writer in family_.writers.items()}
    return parsed, fastavro.parse_schema(plain(resource))


def view_of(family_, ask):
    text = json.dumps(family_.resource)
    output = derive.derive_schema(parse(text), ask.fields, ask.masks, "view.g1.v1")
    spec = ViewSpec(output=output, output_id=OUTPUT_ID, masks=ask.masks, row_filter=ask.row_filter, resource=text)
    return output, View(spec, {id_: parse(json.dumps(writer)) for id_, writer in family_.writers.items()})


def comparable(value):
    """Make NaN equal to itself, and 1 differ from True."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [comparable(item) for item in value]
    return (bool, value) if isinstance(value, bool) else value


def differences(family_, ask, result, output, expected):
    """Return what of a view's result the naive view disputes."""
    delivered, states = expected
    found = []
    if result.states != bytes(STATES[state] for state in states):
        found.append("states")
    schema = fastavro.parse_schema(plain(json.loads(output)))
    hidden = {name for name, rule in ask.masks if rule == "drop"}
    if [field["name"] for field in schema["fields"]] != [name for name in ask.fields if name not in hidden]:
        found.append("fields")
    head = b"\0" + OUTPUT_ID.to_bytes(4, "big")
    values = list(result.values)
    if any(value[:5] != head for value in values):
        found.append("frames")
    try:
        got = [fastavro.schemaless_reader(io.BytesIO(value[5:]), schema) for value in values]
    except (ValueError, EOFError, IndexError, UnicodeDecodeError):
        return [*found, "unreadable"]
    if comparable(got) != comparable(delivered):
        found.append("records")
    return found


def cases(seed, families, per_writer=34, grants=3):
    """Return (family, grant, what the naive view makes of it)."""
    for number in families:
        rng = random.Random(f"{seed} {number}")
        family_ = family(rng, per_writer)
        writers, reader = readers(family_)
        for _ in range(grants):
            ask = asked(rng, family_)
            hidden = {name for name, rule in ask.masks if rule == "drop"}
            view = [name for name in ask.fields if name not in hidden]
            masks = {name: rule.value for name, rule in ask.masks}
            yield family_, ask, naive_view(family_.rows, writers, reader, view, masks, ask.raw_filter)


@pytest.mark.counted
def test_a_view_delivers_what_a_naive_one_does(capsys):
    count = delivered = fast = 0
    families = chosen(range(100), 25)
    for family_, ask, expected in cases("view", families):
        output, view = view_of(family_, ask)
        result = view.apply(Packed.of(family_.rows))
        assert differences(family_, ask, result, output, expected) == []
        assert result.alarm == ""  # the first batch went through both engines
        for id_, plan in plans(view):
            rows = [row for row in family_.rows if row and int.from_bytes(row[1:5], "big") == id_]
            quick, slow = plan.apply(rows), plan._apply_by_rows(rows, "")
            assert (quick.values, quick.kept.tolist()) == (slow.values, slow.kept.tolist())
        count += len(family_.rows)
        delivered += len(result.values)
        fast += view.engine == "columns"
    with capsys.disabled():
        print(f"\n{count} cases (a record under a grant), {delivered} delivered, {fast} views with the columnar engine")
    assert count >= 100 * len(families)
    assert 0.2 * count < delivered < 0.9 * count
    assert fast >= 2 * len(families)


def plans(view):
    return [(int.from_bytes(framed[1:], "big"), plan) for framed, plan in view._plans.items()]


def disputed(sought=frozenset(), families=80):
    """Return what the naive view disputes, with the fault that is planted in the product, until it is found."""
    _cached_plan.cache_clear()
    found = set()
    for family_, ask, expected in cases("mutants", range(families), grants=2):
        try:
            output, view = view_of(family_, ask)
            found.update(differences(family_, ask, view.apply(Packed.of(family_.rows)), output, expected))
        except PoolError:
            found.add("error")
        if sought and found >= sought:
            break
    _cached_plan.cache_clear()
    return found


def test_without_a_mutant_nothing_is_disputed():
    assert disputed(families=10) == set()


def one_more(head):
    return lambda column: mask._mask_text(column, head=head, tail=4, least=11, fill=ord("*"))


MUTANTS = {
    "a mask shows one character more": ("exchange.access.view.mask.MASKS", MaskRule.KEEP_3_4, one_more(4), {"records"}),
    "a mask shows everything": ("exchange.access.view.mask.MASKS", MaskRule.NAME_FIRST, lambda c: c, {"records"}),
    "a date keeps its day": ("exchange.access.view.mask.MASKS", MaskRule.YEAR_ONLY, lambda c: c, {"records"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutated_mask_is_caught(name, monkeypatch):
    where, rule, apply, caught = MUTANTS[name]
    monkeypatch.setattr(where, {**mask.MASKS, rule: replace(mask.MASKS[rule], apply=apply)})
    assert disputed(caught) >= caught


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("exchange.access.view.filter._is_in", lambda column, members: pc.is_in(column, value_set=members)),
        ("exchange.access.view.filter._within", lambda column, floor, ceiling: pc.greater(column, floor or ceiling)),
        ("exchange.access.view.filter_literal.FieldComparison.is_present", pc.is_null),
    ],
    ids=["not in lets null through", "a range has other bounds", "exists is turned round"],
)
def test_a_mutated_filter_is_caught(where, what, monkeypatch):
    if where.endswith("is_present"):
        original = plan_module.comparison_of
        monkeypatch.setattr(plan_module, "comparison_of", lambda shape: replace(original(shape), is_present=what))
    else:
        monkeypatch.setattr(where, what)
    assert disputed({"states"}) >= {"states"}


def test_a_filter_that_keeps_every_row_is_caught(monkeypatch):
    monkeypatch.setattr(
        plan_module, "compile_filter", lambda *_: lambda batch: pa.repeat(pa.scalar(value=True), batch.num_rows)
    )
    assert disputed({"states", "records"}) >= {"states", "records"}


def test_a_projection_of_another_field_is_caught(monkeypatch):
    def another(field, writer):
        source = original(field, writer)
        alike = [
            each for each in writer.fields if source is not None and each.type_tree.arrow == source.type_tree.arrow
        ]
        return alike[-1] if len(alike) > 1 and alike[-1].type_tree.kind is source.type_tree.kind else source

    original = plan_module._source
    monkeypatch.setattr(plan_module, "_source", another)
    assert "records" in disputed({"records"})


def test_a_projection_of_one_field_more_is_caught(monkeypatch):
    def wider(resource, fields, masks, name):
        more = [field.name for field in resource.fields if field.name not in fields][:1]
        return original(resource, [*fields, *more], masks, name)

    original = derive.derive_schema
    monkeypatch.setattr(derive, "derive_schema", wider)
    assert "fields" in disputed({"fields"})
