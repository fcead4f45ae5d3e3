"""For random schemas with masks and random requests: without an explicit disclosure nothing masked is shown or told."""

import json
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from exchange.access.grants.exposure import FieldMask, SchemaMasks, exposure_of
from exchange.access.grants.life_cycle import RequestTerms, submit
from exchange.access.view.derive import derive_schema, mask_type_of
from exchange.access.view.filter import fields_of
from exchange.access.view.mask import MASKS, default_mask
from exchange.access.view.view import ViewSpec, compile_view
from registry.avro.parser import ParsedSchema, parse
from registry.codec.codec import engine_for
from registry.codec.framing import add_frames
from registry.governance import mask_order
from schemas.access import (
    AllOf,
    AnyOf,
    Compare,
    Exists,
    Grant,
    Level,
    MaskRule,
    Member,
    Not,
    Prefix,
    Range,
    Role,
    RowFilter,
)
from schemas.errors import PoolError, Reason
from tests.kit.cases.grants import CONSUMER, NOW, a_draft, a_person
from tests.kit.share import count

import pyarrow as pa  # isort: skip
import pytest  # isort: skip

HEAD = a_person(Role.SHARING_OFFICE_HEAD, CONSUMER, "wang.hr")
FIELDS = ("a", "b", "c", "d", "e")
SECRET = "110105194912310021"

stated_masks = st.fixed_dictionaries(dict.fromkeys(FIELDS, st.sampled_from(("none", *mask_order.MASKS))))
names = st.sampled_from(FIELDS)
leaves: st.SearchStrategy[RowFilter] = (
    st.builds(Compare, st.sampled_from(["eq", "ne"]), names, st.just(SECRET))
    | st.builds(Member, names, st.just((SECRET,)))
    | st.builds(Range, names, st.just("1"), st.just("2"))
    | st.builds(Prefix, names, st.just("1101"))
    | st.builds(Exists, names)
)
filters = st.none() | st.recursive(
    leaves,
    lambda inner: (
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=2).map(tuple))
        | st.builds(AnyOf, st.lists(inner, min_size=1, max_size=2).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=3,
)
TEXT_RULES = [rule for rule in MaskRule if "string" in MASKS[rule].accepts or not MASKS[rule].accepts]
requests = st.fixed_dictionaries(
    {
        "fields": st.lists(names, unique=True, min_size=1).map(tuple),
        "masks": st.dictionaries(names, st.sampled_from(TEXT_RULES), max_size=2).map(lambda d: tuple(d.items())),
        "row_filter": filters,
        "unmasked_reason": st.sampled_from(["", "", "needed"]),
        "filter_discloses": st.lists(names, unique=True, max_size=2).map(tuple),
        "disclosure_reason": st.sampled_from(["", "needed"]),
    }
) | st.builds(
    lambda row_filter, field: {
        "fields": (field,),
        "masks": (),
        "row_filter": row_filter,
        "filter_discloses": tuple(fields_of(row_filter)),
        "disclosure_reason": "needed",
    },
    leaves,
    names,
)


def resource(stated: dict[str, str]) -> ParsedSchema:
    fields = [{"name": name, "type": "string", "mask": stated[name]} for name in FIELDS]
    return parse(json.dumps({"type": "record", "name": "r", "fields": fields}))


def masks_in(schema: ParsedSchema, stated: dict[str, str]) -> SchemaMasks:
    return {
        field.name: FieldMask(stated=stated[field.name], default=default_mask(stated[field.name], mask_type_of(field)))
        for field in schema.fields
    }


def delivered(schema: ParsedSchema, text: str, grant: Grant) -> list[dict[str, Any]]:
    output = derive_schema(schema, grant.fields, grant.masks, "view.g.v1")
    spec = ViewSpec(output=output, output_id=9, masks=grant.masks, row_filter=None, resource=text)
    rows = pa.RecordBatch.from_pylist([dict.fromkeys(FIELDS, SECRET)], schema=engine_for(schema).schema)
    result = compile_view(spec, {1: schema}).apply(add_frames(1, engine_for(schema).encode(rows)))
    listed: list[dict[str, Any]] = engine_for(parse(output)).decode([value[5:] for value in result.values]).to_pylist()
    return listed


def asked(schema: ParsedSchema, stated: dict[str, str], request: dict[str, Any]) -> Grant | Reason:
    draft = a_draft(**request, requested_by=HEAD.id)
    terms = RequestTerms(
        purposes={draft.purpose}, level=Level.G1, masks=masks_in(schema, stated), check_view=lambda _: None
    )
    try:
        return submit(draft, by=HEAD, at=NOW, terms=terms)
    except PoolError as error:
        return error.reason


@pytest.mark.counted
@settings(max_examples=count(3_000, 400))
@given(stated_masks, requests)
def test_nothing_masked_is_shown_or_told_without_being_named(stated: dict[str, str], request: dict[str, Any]) -> None:
    schema = resource(stated)
    grant = asked(schema, stated, request)
    event(grant.value if isinstance(grant, Reason) else "accepted")
    if isinstance(grant, Reason):
        return
    [row] = delivered(schema, json.dumps(schema.json), grant)
    for field, value in row.items():
        if field not in grant.unmasked and stated[field] != "none":
            rule = dict(grant.masks)[field]
            assert mask_order.hides_at_least(rule, stated[field])
            assert value == MASKS[rule].apply(pa.array([SECRET])).to_pylist()[0] != SECRET
    for field in fields_of(grant.row_filter) - set(grant.filter_discloses):
        assert row.get(field, SECRET if stated[field] == "none" else None) == SECRET, "told only what is shown"
    named = exposure_of(grant, masks_in(schema, stated))
    assert (bool(named.unmasked), set(named.disclosed)) == (
        bool(grant.unmasked_reason), set(named.disclosed) & set(grant.filter_discloses),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "accepted"),
        ({"masks": (("a", MaskRule.NONE),)}, Reason.MASK_WEAKER),
        ({"masks": (("a", MaskRule.NONE),), "unmasked_reason": "needed"}, "accepted"),
        ({"row_filter": Exists("a")}, Reason.FILTER_DISCLOSES),
        ({"row_filter": Exists("a"), "filter_discloses": ("a",), "disclosure_reason": "needed"}, "accepted"),
        ({"row_filter": Exists("b")}, "accepted"),
    ],
)
def test_the_requests_meet_each_answer(changes: dict[str, Any], expected: str) -> None:
    stated = dict.fromkeys(FIELDS, "none") | {"a": "keep_3_4"}
    plain = {"fields": ("a", "b"), "masks": (), "row_filter": None}
    answer = asked(resource(stated), stated, plain | changes)
    assert (answer if isinstance(answer, Reason) else "accepted") == expected
