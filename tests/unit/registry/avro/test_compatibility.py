"""Compatibility: Avro's verdict on pairs of schemas, the seven levels, and where a refusal points."""

import json
from pathlib import Path
from typing import Any

import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import make_avsc_object
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.avro.compatibility import (
    Compatibility,
    Direction,
    find_incompatibilities,
    read_conflicts,
    require_compatible,
)
from registry.avro.reader_writer import NamedTypes, explain_conflicts
from schemas.errors import ConflictError, InvalidError, Reason

FOREIGN = Path(__file__).parents[5] / "shared" / "conformance" / "avro_compatibility.json"


def rec(*fields: Any, name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def fld(name: str, kind: Any = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def enum(*symbols: str, name: str = "E", **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F", **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **more}


def arr(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def mp(values: Any) -> dict[str, Any]:
    return {"type": "map", "values": values}


NODE = rec(fld("value", "int"), fld("next", ["null", "Node"], default=None), name="Node")
LONG_NODE = rec(fld("value", "long"), fld("next", ["null", "Node"], default=None), name="Node")
TEXT_NODE = rec(fld("value", "string"), fld("next", ["null", "Node"], default=None), name="Node")

# (what it shows, reader, writer, where it fails: (path, kind), or None)
CASES: list[tuple[str, Any, Any, tuple[str, str] | None]] = [
    ("the same primitive", "int", "int", None),
    ("long reads int", "long", "int", None),
    ("float reads long", "float", "long", None),
    ("double reads float", "double", "float", None),
    ("double reads int", "double", "int", None),
    ("string reads bytes", "string", "bytes", None),
    ("bytes reads string", "bytes", "string", None),
    ("int does not read long", "int", "long", ("$", "type_mismatch")),
    ("float does not read double", "float", "double", ("$", "type_mismatch")),
    ("long does not read float", "long", "float", ("$", "type_mismatch")),
    ("boolean does not read int", "boolean", "int", ("$", "type_mismatch")),
    ("string does not read int", "string", "int", ("$", "type_mismatch")),
    ("null does not read int", "null", "int", ("$", "type_mismatch")),
    ("a type written long", {"type": "int"}, "int", None),
    ("items are promoted", arr("long"), arr("int"), None),
    ("items are not", arr("int"), arr("long"), ("$.items", "type_mismatch")),
    ("values are promoted", mp("double"), mp("int"), None),
    ("values are not", mp("int"), mp("string"), ("$.values", "type_mismatch")),
    ("an array is no map", arr("int"), mp("int"), ("$", "type_mismatch")),
    ("a union reads its branch", ["null", "int"], "int", None),
    ("a union promotes", ["null", "long"], "int", None),
    ("a union lacks it", ["null", "int"], "string", ("$", "missing_union_branch")),
    ("what was a union may be one branch", "int", ["int"], None),
    ("but not if null was written too", "int", ["null", "int"], ("$", "type_mismatch")),
    ("a union reads a smaller one", ["null", "int", "string"], ["null", "int"], None),
    ("and not a larger one", ["null", "int"], ["null", "int", "boolean"], ("$", "missing_union_branch")),
    ("more symbols read fewer", enum("A", "B"), enum("A"), None),
    ("fewer do not read more", enum("A"), enum("A", "B"), ("$.symbols", "missing_enum_symbols")),
    ("unless there is a default", enum("A", default="A"), enum("A", "B"), None),
    ("another enum", enum("A"), enum("A", name="G"), ("$.name", "name_mismatch")),
    ("an alias", enum("A", aliases=["G"]), enum("A", name="G"), None),
    ("the same fixed", fixed(4), fixed(4), None),
    ("another size", fixed(4), fixed(8), ("$.size", "fixed_size_mismatch")),
    ("another fixed", fixed(4), fixed(4, name="G"), ("$.name", "name_mismatch")),
    ("a field less", rec(fld("a")), rec(fld("a"), fld("b")), None),
    (
        "a field more, without a default",
        rec(fld("a"), fld("b")),
        rec(fld("a")),
        ("$.fields[1]", "reader_field_missing_default_value"),
    ),
    ("a field more, with a default", rec(fld("a"), fld("b", default="")), rec(fld("a")), None),
    ("a field more, whose default is null", rec(fld("b", ["null", "int"], default=None)), rec(), None),
    ("fields in another order", rec(fld("a", "int"), fld("b")), rec(fld("b"), fld("a", "int")), None),
    ("a field renamed by alias", rec(fld("b", aliases=["a"])), rec(fld("a")), None),
    ("another record", rec(name="S"), rec(), ("$.name", "name_mismatch")),
    ("a record renamed by alias", rec(name="S", aliases=["R"]), rec(), None),
    (
        "a record renamed by an alias in its namespace",
        rec(name="S", namespace="x", aliases=["R"]),
        rec(namespace="x"),
        None,
    ),
    ("the alias of a full name", rec(name="x.S", aliases=["R"]), rec(namespace="x"), None),
    ("an alias in another namespace", rec(name="S", namespace="x", aliases=["y.R"]), rec(namespace="y"), None),
    (
        "an alias of a type within, in the namespace around it",
        rec(fld("a", fixed(4, name="G", aliases=["F"])), namespace="x"),
        rec(fld("a", fixed(4)), namespace="x"),
        None,
    ),
    (
        "a relative alias of a name elsewhere",
        rec(name="S", namespace="x", aliases=["R"]),
        rec(namespace="y"),
        ("$.name", "name_mismatch"),
    ),
    ("the same short name elsewhere", rec(namespace="a"), rec(namespace="b"), None),
    (
        "deep within",
        rec(fld("home", ["null", rec(fld("lines", arr("int")), name="H")])),
        rec(fld("home", ["null", rec(fld("lines", arr("string")), name="H")])),
        ("$.fields[0].type[1].fields[0].type.items", "type_mismatch"),
    ),
    ("a list of itself", NODE, NODE, None),
    ("a list of itself, promoted", LONG_NODE, NODE, None),
    ("a list of itself, changed", TEXT_NODE, NODE, ("$.fields[0].type", "type_mismatch")),
    (
        "a type used by name",
        rec(fld("a", fixed(4)), fld("b", "F")),
        rec(fld("a", fixed(4)), fld("b", "F")),
        None,
    ),
    (
        "a type used by name within a namespace",
        rec(fld("a", enum("X")), fld("b", "n.E"), namespace="n"),
        rec(fld("a", enum("X")), fld("b", enum("X", "Y", name="m.E")), namespace="n"),
        ("$.fields[1].type.symbols", "missing_enum_symbols"),
    ),
    *(
        (
            f"a type gov.string does not shadow the primitive, {where}",
            rec(fld("a", enum("X", name="string")), fld("b", shape("string")), namespace="gov"),
            rec(fld("a", enum("X", name="string")), fld("b", shape("bytes")), namespace="gov"),
            None,
        )
        for where, shape in (
            ("by name", lambda kind: kind),
            ("wrapped", lambda kind: {"type": kind}),
            ("in an array", arr),
            ("in a map", mp),
            ("in a union", lambda kind: ["null", kind]),
        )
    ),
    (
        "nor is it read as the primitive",
        rec(fld("a", enum("X", name="string")), fld("b", "gov.string"), namespace="gov"),
        rec(fld("a", enum("X", name="string")), fld("b", "string"), namespace="gov"),
        ("$.fields[1].type", "type_mismatch"),
    ),
]


@pytest.mark.parametrize(("reader", "writer", "where"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_reader_follows_a_writer_or_says_where_not(reader: Any, writer: Any, where: tuple[str, str] | None) -> None:
    found = read_conflicts(json.dumps(reader), json.dumps(writer))
    assert ((found[0].at, found[0].kind) if found else None) == where


@pytest.mark.parametrize(("reader", "writer", "where"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_walk_comes_to_the_same_verdict_by_itself(reader: Any, writer: Any, where: tuple[str, str] | None) -> None:
    assert bool(explain_conflicts(NamedTypes.of(reader), NamedTypes.of(writer))) == (where is not None)


def test_foreign_cases_too() -> None:
    cases = json.loads(FOREIGN.read_text()) if FOREIGN.exists() else []
    for case in cases:
        assert (not read_conflicts(json.dumps(case["reader"]), json.dumps(case["writer"]))) == case["compatible"], case
        hard = [
            item
            for item in explain_conflicts(NamedTypes.of(case["reader"]), NamedTypes.of(case["writer"]))
            if item.kind != "reinterpretation"
        ]
        assert (not hard) == case["compatible"], case


PRIMITIVES = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])


def grown(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return PRIMITIVES
    inner = grown(depth - 1)
    names = st.sampled_from("ab")
    simple = st.one_of(
        PRIMITIVES,
        st.builds(arr, inner),
        st.builds(mp, inner),
        st.builds(lambda size: fixed(size, name=f"F{depth}"), st.integers(1, 2)),
        st.builds(lambda n: enum(*"XYZ"[:n], name=f"E{depth}"), st.integers(1, 3)),
        st.builds(lambda n: enum(*"XYZ"[:n], name=f"E{depth}", default="X"), st.integers(1, 3)),
        st.builds(
            lambda fields, name: rec(*fields, name=f"{name}{depth}"),
            st.lists(
                st.one_of(
                    st.builds(fld, names, inner),
                    st.builds(lambda name: fld(name, ["null", "int"], default=None), names),
                    st.builds(lambda name, kind: fld(f"{name}x", kind, aliases=[name]), names, inner),
                ),
                max_size=3,
                unique_by=lambda item: item["name"],
            ),
            st.sampled_from(["R", "S"]),
        ),
    )
    return st.one_of(simple, st.lists(simple, min_size=1, max_size=3).map(_union))


def _union(branches: list[Any]) -> list[Any]:
    kept: dict[str, Any] = {}
    for branch in branches:
        kind = branch if isinstance(branch, str) else branch.get("name", branch["type"])
        kept.setdefault(kind, branch)
    return list(kept.values())


def _valid(schema: Any) -> bool:
    try:
        make_avsc_object(schema)
    except Exception:  # noqa: BLE001
        return False
    return True


@settings(max_examples=600)
@given(reader=grown(2).filter(_valid), writer=grown(2).filter(_valid))
def test_walk_and_library_never_differ(reader: Any, writer: Any) -> None:
    verdict = ReaderWriterCompatibilityChecker().get_compatibility(make_avsc_object(reader), make_avsc_object(writer))
    refused = verdict.compatibility is SchemaCompatibilityType.incompatible
    assert bool(explain_conflicts(NamedTypes.of(reader), NamedTypes.of(writer))) == refused


# --- levels ----------------------------------------------------------------------------------------------------

INT, LONG, TEXT = '"int"', '"long"', '"string"'


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        # earlier: 1 string, 2 int; new: long. Long reads int, int does not read long; string and long neither way.
        ("NONE", []),
        ("BACKWARD", []),
        ("BACKWARD_TRANSITIVE", [(1, Direction.BACKWARD)]),
        ("FORWARD", [(2, Direction.FORWARD)]),
        ("FORWARD_TRANSITIVE", [(2, Direction.FORWARD), (1, Direction.FORWARD)]),
        ("FULL", [(2, Direction.FORWARD)]),
        ("FULL_TRANSITIVE", [(2, Direction.FORWARD), (1, Direction.BACKWARD), (1, Direction.FORWARD)]),
    ],
)
def test_seven_levels(level: str, expected: list[tuple[int, Direction]]) -> None:
    found = find_incompatibilities(LONG, [(1, TEXT), (2, INT)], Compatibility.parse(level.lower()))
    assert [(item.version, item.direction) for item in found] == expected


def test_an_unknown_level_lists_the_known_ones() -> None:
    with pytest.raises(InvalidError, match="FULL_TRANSITIVE") as caught:
        Compatibility.parse("sideward")
    assert caught.value.reason is Reason.COMPATIBILITY_INVALID


def test_a_refusal_names_version_path_field_and_reason() -> None:
    old = json.dumps(rec(fld("person", rec(fld("age", "string"), name="P"))))
    new = json.dumps(rec(fld("person", rec(fld("age", "int"), name="P"))))
    found = find_incompatibilities(new, [(7, old)], Compatibility.FULL)
    assert [str(item) for item in found] == [
        (
            "the new schema cannot read records of version 7: at $.fields[0].type.fields[0].type of the new schema "
            "(person.age): the reader expects int, the writer wrote string"
        ),
        (
            "version 7 cannot read records of the new schema: at $.fields[0].type.fields[0].type of version 7 "
            "(person.age): the reader expects string, the writer wrote int"
        ),
    ]
    with pytest.raises(ConflictError) as caught:
        require_compatible(found, Compatibility.FULL)
    assert caught.value.reason is Reason.SCHEMA_INCOMPATIBLE
    assert caught.value.message.startswith("Schema being registered is incompatible with an earlier schema")
    require_compatible([], Compatibility.FULL)


# --- the strict rule -------------------------------------------------------------------------------------------

MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}


@pytest.mark.parametrize(
    ("reader", "writer", "differs"),
    [
        (MONEY, MONEY | {"scale": 4}, True),
        (MONEY, MONEY | {"precision": 14}, True),
        (MONEY | {"scale": 0}, {"type": "bytes", "logicalType": "decimal", "precision": 12}, False),
        (MONEY, "bytes", True),
        ("bytes", MONEY, True),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            {"type": "long", "logicalType": "timestamp-micros"},
            True,
        ),
        ({"type": "long", "logicalType": "timestamp-millis"}, {"type": "int", "logicalType": "date"}, True),
        ("long", {"type": "int", "logicalType": "date"}, True),
        (["null", MONEY], ["null", MONEY | {"scale": 4}], True),
        (["null", MONEY], MONEY, False),
        ("long", "int", False),
    ],
)
def test_the_strict_rule_finds_what_avro_lets_pass(reader: Any, writer: Any, differs: bool) -> None:
    old, new = json.dumps(rec(fld("x", writer))), json.dumps(rec(fld("x", reader)))
    assert find_incompatibilities(new, [(1, old)], Compatibility.BACKWARD) == []
    found = find_incompatibilities(new, [(1, old)], Compatibility.BACKWARD, strict=True)
    assert [item.kind for item in found] == (["reinterpretation"] if differs else [])


def test_a_text_that_is_no_schema_is_refused() -> None:
    for text in ("{", '"nope"', "[1]", "null", '{"type":"array"}'):
        with pytest.raises(InvalidError) as caught:
            read_conflicts(text, INT)
        assert caught.value.reason is Reason.SCHEMA_INVALID


def test_a_branch_of_the_writers_own_type_is_meant_before_one_of_another_logical_type() -> None:
    union = '[{"type": "string", "logicalType": "uuid"}, "bytes"]'
    assert read_conflicts(union, union.replace(", ", ","), strict=True) == []
