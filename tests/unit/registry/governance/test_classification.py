"""Governance: every field is classified, and no version lowers what an earlier one said."""

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.governance import classification
from schemas.access import Level, MaskRule
from schemas.errors import InvalidError, Reason

GOOD = {"zh": "身份号码", "level": "G3", "personal": "P", "sensitive": "s", "mask": "keep_3_4"}


def schema(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "zh": "人员", "fields": list(fields)}


def fld(name: str, kind: Any = "string", **changes: Any) -> dict[str, Any]:
    merged = {"name": name, "type": kind} | GOOD | changes
    return {key: value for key, value in merged.items() if value is not None}


def unclassified(document: Any) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        classification.require_classification(document)
    assert caught.value.reason is Reason.SCHEMA_UNCLASSIFIED
    return caught.value


def test_a_classified_schema_gives_its_classification() -> None:
    (field,) = classification.require_classification(schema(fld("id")))
    assert (field.path, field.at, field.zh, field.level) == ("id", "$.fields[0]", "身份号码", Level.G3)
    assert (field.personal, field.sensitive, field.mask) == ("P", "s", "keep_3_4")


@pytest.mark.parametrize("name", ["zh", "level", "personal", "sensitive", "mask"])
def test_each_missing_attribute_is_named_with_its_field(name: str) -> None:
    error = unclassified(schema(fld("id"), fld("name", **{name: None})))
    assert f"$.fields[1] (name): missing: {name}" in error.message
    assert error.details == {"fields": "name"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("zh", "  "),
        ("zh", 3),
        ("level", "G5"),
        ("level", "g3"),
        ("level", 3),
        ("level", ["G3"]),
        ("personal", "X"),
        ("sensitive", "n"),
        ("mask", "blur"),
        ("mask", None),
    ],
)
def test_a_value_outside_the_vocabulary_is_refused(name: str, value: object) -> None:
    document = schema(fld("id"))
    document["fields"][0][name] = value
    assert "$.fields[0] (id)" in unclassified(document).message


def test_sensitive_but_not_personal_contradicts_itself() -> None:
    assert "personal: P or D" in unclassified(schema(fld("id", personal="N", sensitive="S"))).message


def test_the_record_needs_a_name_and_must_be_a_record() -> None:
    document = schema(fld("id"))
    del document["zh"]
    assert "$ (record): missing: zh" in unclassified(document).message
    for other in ("string", ["null", "int"], {"type": "array", "items": "int"}):
        assert "expected a record" in unclassified(other).message


HOME = {"type": "record", "name": "Home", "fields": [fld("city"), {"name": "street", "type": "string"}]}


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        (HOME, "$.fields[0].type.fields[1]"),
        (["null", HOME], "$.fields[0].type[1].fields[1]"),
        ({"type": "array", "items": HOME}, "$.fields[0].type.items.fields[1]"),
        ({"type": "map", "values": ["null", HOME]}, "$.fields[0].type.values[1].fields[1]"),
        ({"type": HOME}, "$.fields[0].type.type.fields[1]"),
    ],
)
def test_fields_of_nested_records_are_classified_too(kind: Any, at: str) -> None:
    assert f"{at} (home.street)" in unclassified(schema(fld("home", kind))).message


def test_a_record_used_twice_and_one_that_holds_itself_are_looked_at_once() -> None:
    node = {"type": "record", "name": "Node", "fields": [fld("value"), fld("next", ["null", "Node"])]}
    paths = [field.path for field in classification.require_classification(schema(fld("a", node), fld("b", "Node")))]
    assert paths == ["a", "a.value", "a.next", "b"]


def test_every_mask_of_a_grant_is_in_the_vocabulary() -> None:
    assert {rule.value for rule in MaskRule} <= set(classification.MASKS)


# --- versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"level": "G2"}, '"level" falls from G3 to G2'),
        ({"personal": "N", "sensitive": "N"}, '"personal" falls from P to N'),
        ({"sensitive": "N"}, '"sensitive" falls from s to N'),
        ({"mask": "none"}, '"mask" is lifted from keep_3_4 to none'),
        ({"level": "IMP", "personal": "D", "sensitive": "S", "mask": "drop", "zh": "号码"}, None),
    ],
)
def test_a_later_version_may_climb_but_not_descend(changes: dict[str, Any], told: str | None) -> None:
    old, new = (
        classification.require_classification(schema(fld("id"))),
        classification.require_classification(schema(fld("id", **changes))),
    )
    if told is None:
        assert classification.lowered_since(new, [(1, old)]) == []
        return
    error = classification.lowered_error(classification.lowered_since(new, [(4, old)]))
    assert error.reason is Reason.CLASSIFICATION_LOWERED
    assert f"version 4: $.fields[0] (id): {told}" in error.message


def test_a_new_name_does_not_launder_a_field() -> None:
    old = classification.require_classification(schema(fld("id")))
    new = classification.require_classification(schema(fld("reference", level="G1", aliases=["id"])))
    assert [str(item) for item in classification.find_lowered(new, old)] == [
        '$.fields[0] (reference): "level" falls from G3 to G1'
    ]


def test_every_earlier_version_counts_not_only_the_last() -> None:
    first, second = (
        classification.require_classification(schema(fld("id"))),
        classification.require_classification(schema(fld("name"))),
    )
    back = classification.require_classification(schema(fld("id", level="G1")))
    assert classification.lowered_since(back, [(2, second)]) == []
    found = classification.lowered_since(back, [(1, first), (2, second)])
    assert [text.partition(":")[0] for text in found] == ["version 1"]


def test_a_nested_field_is_held_too() -> None:
    def home(level: str) -> Any:
        nested = {"type": "record", "name": "Home", "fields": [fld("city", level=level)]}
        return classification.require_classification(schema(fld("home", ["null", nested])))

    assert [item.path for item in classification.find_lowered(home("G2"), home("G4"))] == ["home.city"]


LABELS = st.fixed_dictionaries(
    {
        "level": st.sampled_from(list(Level.__members__)),
        "personal": st.sampled_from(["P", "D"]),
        "sensitive": st.sampled_from(["N", "s", "S"]),
    }
)


@given(st.lists(LABELS, min_size=2, max_size=6))
def test_along_accepted_versions_nothing_ever_falls(versions: list[dict[str, str]]) -> None:
    accepted: list[tuple[int, list[classification.ClassifiedField]]] = []
    for number, labels in enumerate(versions, 1):
        new = classification.require_classification(schema(fld("id", **labels)))
        if not classification.lowered_since(new, accepted):
            accepted.append((number, new))
    fields = [field for _, (field,) in accepted]
    for before, after in itertools.pairwise(fields):
        assert after.level >= before.level
        assert classification.PERSONAL.index(after.personal) >= classification.PERSONAL.index(before.personal)
        assert classification.SENSITIVE.index(after.sensitive) >= classification.SENSITIVE.index(before.sensitive)


# --- the ceiling of a grant ------------------------------------------------------------------------------------


def test_the_highest_level_of_what_is_shown() -> None:
    nested = {"type": "record", "name": "Home", "fields": [fld("city", level="IMP")]}
    fields = classification.require_classification(
        schema(fld("a", level="G1"), fld("b", level="G4"), fld("c", nested, level="G2"))
    )
    assert classification.highest_level(fields) is Level.IMP
    assert classification.highest_level(fields, ["a"]) is Level.G1
    assert classification.highest_level(fields, ["a", "b"]) is Level.G4
    assert classification.highest_level(fields, ["c"]) is Level.IMP, "a nested field is shown with it"
    with pytest.raises(InvalidError) as caught:
        classification.highest_level(fields, ["a", "z"])
    assert caught.value.reason is Reason.FIELD_UNKNOWN


def test_examining_changes_nothing() -> None:
    document = schema(fld("home", ["null", copy.deepcopy(HOME)]))
    before = copy.deepcopy(document)
    classification.read_classification(document)
    assert document == before


def test_a_record_states_for_its_fields_what_they_do_not_say_themselves() -> None:
    bare = {"name": "id", "type": "string", "zh": "号"}
    document = schema(bare, fld("name", level="G1")) | {
        "level": "G3",
        "personal": "P",
        "sensitive": "N",
        "mask": "drop",
    }
    first, second = classification.require_classification(document)
    assert (first.level, first.personal, first.sensitive, first.mask) == (Level.G3, "P", "N", "drop")
    assert (second.level, second.mask) == (Level.G1, "keep_3_4"), "its own word counts"
    del document["mask"]
    assert "missing: mask" in unclassified(document).message


def test_what_a_record_holds_is_classified_at_least_as_high_as_what_holds_it() -> None:
    home = {"type": "record", "name": "Home", "fields": [fld("city", level="G1", personal="P", sensitive="N")]}
    holder, city = classification.require_classification(
        schema(fld("home", home, level="G4", personal="D", sensitive="S"))
    )
    assert (city.level, city.personal, city.sensitive) == (Level.G4, "D", "S")
    assert holder.level is Level.G4
    high = {"type": "record", "name": "Home", "fields": [fld("city", level="IMP")]}
    assert classification.require_classification(schema(fld("home", high, level="G1")))[1].level is Level.IMP


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        ("none", "band", False),
        ("keep_3_4", "drop", False),
        ("keep_3_4_if_person", "keep_3_4", False),
        ("keep_3_4", "keep_3_4_if_person", True),
        ("name_first", "none", True),
        ("drop", "name_first", True),
        ("year_only", "div_city", True),
        ("hmac_sm3", "predicate", True),
    ],
)
def test_a_mask_may_hide_more_but_not_show_more(old: str, new: str, refused: bool) -> None:
    before, after = (classification.require_classification(schema(fld("id", mask=mask))) for mask in (old, new))
    findings = classification.lowered_since(after, [(3, before)])
    assert bool(findings) is refused
    assert not refused or f"from {old} to {new}" in findings[0]
    assert not refused or "version 3" in findings[0]
