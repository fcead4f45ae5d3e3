"""Views for tests: a small resource, a view over it, and what it delivers as plain values."""

import json

import pytest

from exchange.access.view.derive import derive_schema
from exchange.access.view.view import ViewSpec, compile_view
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import InvalidError
from schemas.record import Packed

SEX = {"type": "enum", "name": "gov.Sex", "symbols": ["M", "F"], "zh": "性别"}
PERSON = {
    "type": "record",
    "name": "gov.person",
    "zh": "自然人",
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "string", "zh": "号码", "level": "G4", "mask": "keep_3_4", "check": "cn_id18"},
        {"name": "name", "type": "string", "level": "G3", "codes": ["王小明", "李四"]},
        {"name": "ward", "type": "int", "level": "G1"},
        {"name": "sex", "type": SEX, "level": "G2"},
        {"name": "partner_sex", "type": ["null", "gov.Sex"], "default": None, "level": "G2"},
    ],
}


def person(**changed):
    value = {"id": "11010519491231002X", "name": "王小明", "ward": 6, "sex": "M", "partner_sex": (0, None)}
    return value | changed


def derived(schema, fields, masks=(), name="view.g1.v1"):
    return json.loads(derive_schema(parse(json.dumps(schema)), fields, masks, name))


def view(resource, fields, writers, *, masks=(), row_filter=None, output_id=9):
    text = json.dumps(resource)
    output = derive_schema(parse(text), fields, masks, "view.g1.v1")
    spec = ViewSpec(output=output, output_id=output_id, masks=tuple(masks), row_filter=row_filter, resource=text)
    compiled = compile_view(spec, {id_: parse(json.dumps(writer)) for id_, writer in writers.items()})
    return compiled, engine_for(parse(output))


def delivered(resource, fields, writers, rows, **more):
    compiled, engine = view(resource, fields, writers, **more)
    result = compiled.apply(Packed.of(rows))
    assert result.alarm == ""
    return engine.decode([value[5:] for value in result.values]).to_pylist(), list(result.states)


def record(name, *fields):
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t, **dict(more)} for n, t, *more in fields]}


def refused(reason, call, kind=InvalidError):
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.reason is reason
    return str(caught.value)
