"""Which grants a change touches; what is called stopped is what the view itself refuses."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from exchange.access.grants.grant_json import to_json
from exchange.access.view.derive import derive_schema
from exchange.access.view.view import ViewSpec, compile_view
from registry.avro.parser import parse
from registry.reports.diff import diff
from registry.reports.grant_impact import GrantImpact, GrantUsage, ImpactSeverity, grant_impacts, read_grant_usage
from schemas.access import AllOf, CaseRule, Compare, Grant, GrantState, History, Level, MaskRule, Not
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

GOOD = {"zh": "标签", "level": "G2", "personal": "P", "sensitive": "N", "mask": "none"}
AT = datetime(2026, 3, 2, tzinfo=UTC)
FILTER = AllOf((Compare("eq", "division", "330100"), Not(Compare("eq", "closed", True))))


def fld(name: str, kind: Any = "string", **facts: Any) -> dict[str, Any]:
    return {"name": name, "type": kind} | GOOD | facts


BASE = {
    "id": fld("id"),
    "name": fld("name", mask="name_first"),
    "born": fld("born", {"type": "int", "logicalType": "date"}),
    "count": fld("count", "int"),
    "note": fld("note", ["null", "string"], default=None),
    "home": fld("home", {"type": "record", "name": "Home", "fields": [fld("city", default=""), fld("street")]}),
    "division": fld("division"),
    "closed": fld("closed", "boolean", default=False),
    "other": fld("other"),
}


def schema(changes: dict[str, dict[str, Any] | None] | None = None, **facts: Any) -> str:
    fields = BASE | (changes or {})
    listed = [field for field in fields.values() if field is not None]
    return json.dumps({"type": "record", "name": "R", "zh": "人员", "key": ["id"], "fields": listed} | facts)


GRANT = Grant(
    id="g1",
    version=1,
    pool_id="p",
    consumer="tax",
    provider="police",
    topic=Topic.parse("population.v1"),
    fields=("id", "name", "born", "count", "note", "home"),
    masks=(("name", MaskRule.NAME_FIRST),),
    row_filter=FILTER,
    purpose="x",
    legal_basis="x",
    case_rule=CaseRule.EACH_CALL,
    case="",
    not_before=AT,
    expires=AT,
    history=History.ALL,
    quota_per_day=None,
    ceiling=Level.G2,
    requested_by="a",
    state=GrantState.ACTIVE,
)


def touches(new: str, grant: Grant = GRANT) -> list[GrantImpact]:
    old_parsed, new_parsed = parse(schema()), parse(new)
    return grant_impacts(diff(old_parsed, new_parsed), [read_grant_usage(to_json(grant))], old_parsed, new_parsed)


def test_a_grants_document_tells_what_it_uses() -> None:
    assert read_grant_usage(to_json(GRANT)) == GrantUsage(
        id="g1",
        consumer="tax",
        state="active",
        fields=frozenset({"id", "name", "born", "count", "note", "home"}),
        masks={"name": "name_first"},
        filtered=frozenset({"division", "closed"}),
        ceiling=Level.G2,
    )
    with pytest.raises(InvalidError) as caught:
        read_grant_usage({"id": "g1"})
    assert caught.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"more": fld("more", default="")}, None),
        ({"other": None}, None),
        ({"other": fld("other", level="IMP")}, None),
        ({"note": None}, ImpactSeverity.DEFAULTED),
        ({"name": None}, ImpactSeverity.STOPPED),
        ({"note": fld("remark", ["null", "string"], default=None, aliases=["note"])}, ImpactSeverity.DEFAULTED),
        ({"name": fld("full_name", aliases=["name"])}, ImpactSeverity.STOPPED),
        ({"count": fld("count", "long")}, ImpactSeverity.STOPPED),
        ({"count": fld("count", ["int", "string"])}, ImpactSeverity.STOPPED),
        ({"note": fld("note", default="")}, ImpactSeverity.REVIEW),
        ({"born": fld("born", "int")}, ImpactSeverity.STOPPED),
        ({"division": None}, ImpactSeverity.STOPPED),
        ({"division": fld("area", aliases=["division"])}, ImpactSeverity.STOPPED),
        ({"closed": None}, ImpactSeverity.STOPPED),
        ({"id": fld("id", level="G3")}, ImpactSeverity.STOPPED),
        ({"id": fld("id", level="G1")}, ImpactSeverity.REVIEW),
        ({"id": fld("id", personal="D")}, ImpactSeverity.REVIEW),
        ({"id": fld("id", mask="keep_3_4")}, ImpactSeverity.REVIEW),
        ({"id": fld("id", zh="号码")}, None),
        ({"division": fld("division", level="G3")}, ImpactSeverity.STOPPED),
        ({"division": fld("division", mask="div_city")}, ImpactSeverity.REVIEW),
        ({"division": fld("division", personal="D")}, None),
        (
            {"home": fld("home", {"type": "record", "name": "Home", "fields": [fld("street")]})},
            ImpactSeverity.DEFAULTED,
        ),
        ({"home": fld("home", {"type": "record", "name": "Home", "fields": [fld("city")]})}, ImpactSeverity.STOPPED),
    ],
)
def test_how_a_change_touches_a_grant(change: dict[str, Any], expected: ImpactSeverity | None) -> None:
    found = touches(schema(change))
    assert max((item.severity for item in found), default=None) == expected, found
    # The level is judged at each draw; everything else that stops a grant must be what its view refuses.
    level = any(item.change.kind.value == "level" for item in found)
    assert (expected is ImpactSeverity.STOPPED and not level) is _refused(schema(change))


def _refused(new: str) -> bool:
    old, latest = parse(schema()), parse(new)
    masks = GRANT.masks
    spec = ViewSpec(
        output=derive_schema(old, GRANT.fields, masks, "RView"),
        output_id=9,
        masks=masks,
        row_filter=FILTER,
        resource=new,
    )
    try:
        compile_view(spec, {1: old, 2: latest})
    except InvalidError:
        return True
    return False


@pytest.mark.parametrize(
    ("change", "written_out", "suspended"),
    [
        ({"id": fld("id", mask="keep_3_4")}, {}, True),
        ({"id": fld("id", mask="keep_3_4")}, {"unmasked": ["id"]}, False),
        ({"name": fld("name", mask="name_first")}, {}, False),
        ({"name": fld("name", mask="drop")}, {}, True),
        ({"division": fld("division", mask="div_city")}, {}, True),
        ({"division": fld("division", mask="div_city")}, {"filter_discloses": ["division"]}, False),
    ],
)
def test_a_stricter_mask_suspends_a_grant_that_did_not_write_its_own_out(
    change: dict[str, Any], written_out: dict[str, Any], suspended: bool
) -> None:
    old, new = parse(schema()), parse(schema(change))
    found = grant_impacts(diff(old, new), [read_grant_usage(to_json(GRANT) | written_out)], old, new)
    assert any("suspended after a time" in item.because for item in found) is suspended


def test_an_ended_grant_is_not_touched() -> None:
    ended = to_json(GRANT) | {"state": "terminated"}
    old, new = parse(schema()), parse(schema({"name": None}))
    assert grant_impacts(diff(old, new), [read_grant_usage(ended)], old, new) == []


def test_another_key_and_another_name() -> None:
    assert [item.severity for item in touches(schema(key=["id", "name"]))] == [ImpactSeverity.REVIEW]
    assert touches(schema(name="S")) == []
