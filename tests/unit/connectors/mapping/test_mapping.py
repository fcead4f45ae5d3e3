"""Text to values: exact, or a reject with a reason. The vectorised path and the scalar one give the same."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.mapping import mapping as mapping_module
from connectors.mapping.contract import parse_contract
from connectors.mapping.conversion import Fault, converter_for
from connectors.mapping.mapping import BoundMapping, Column, ColumnMapping
from connectors.port import RejectCode, RowChunk
from registry.avro.parser import parse
from registry.avro.resource_rules import find_unpublishable
from registry.codec.codec import engine_for
from schemas.errors import InvalidError, Reason

AvroType = str | dict[str, Any] | list[Any]
DATE: AvroType = {"type": "int", "logicalType": "date"}
MICROS: AvroType = {"type": "long", "logicalType": "timestamp-micros"}
MILLIS: AvroType = {"type": "long", "logicalType": "timestamp-millis"}
LOCAL: AvroType = {"type": "long", "logicalType": "local-timestamp-micros"}
NANOS: AvroType = {"type": "long", "logicalType": "timestamp-nanos"}
LOCAL_NANOS: AvroType = {"type": "long", "logicalType": "local-timestamp-nanos"}
DECIMAL: AvroType = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
WHOLE: AvroType = {"type": "bytes", "logicalType": "decimal", "precision": 20}
ENUM: AvroType = {"type": "enum", "name": "Kind", "symbols": ["OPEN", "CLOSED"]}
FIXED: AvroType = {"type": "fixed", "name": "Four", "size": 4}
TIME: AvroType = {"type": "int", "logicalType": "time-millis"}
UUID: AvroType = {"type": "string", "logicalType": "uuid"}


def schema_of(kind: AvroType, *, nullable: bool = True) -> str:
    fields = [
        {"name": "key", "type": "string"},
        {"name": "value", "type": ["null", kind] if nullable else kind},
    ]
    return json.dumps({"type": "record", "name": "R", "key": ["key"], "fields": fields})


def mapping_of(kind: AvroType, column: Column | None = None, *, nullable: bool = True) -> BoundMapping:
    text = schema_of(kind, nullable=nullable)
    columns = {"value": column} if column else {}
    return ColumnMapping(parse_contract(1, text), engine_for(parse(text)), columns).bind(["key", "value"])


def chunk_of(texts: list[str | None]) -> RowChunk:
    return RowChunk(
        columns={
            "key": pa.array([f"k{at}" for at in range(len(texts))], pa.string()),
            "value": pa.array(texts, pa.string()),
        },
        lines=range(2, 2 + len(texts)),
        originals=[f"line {at}".encode() for at in range(len(texts))],
    )


def mapped(kind: AvroType, text: str | None, column: Column | None = None, *, nullable: bool = True) -> Any:
    """Return the value, or the code of the reject."""
    done = mapping_of(kind, column, nullable=nullable).map(chunk_of([text]))
    if done.rejects:
        (reject,) = done.rejects
        assert (reject.line, reject.original, reject.field) == (2, b"line 0", "value")
        return reject.code
    return done.batch.column("value")[0].as_py()


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (NANOS, "1675936800123456789", 1675936800123456789),
        (NANOS, "2023-02-09T18:00:00.123456789+08:00", 1675936800123456789),
        (NANOS, "2023-02-09 10:00:00Z", 1675936800000000000),
        (NANOS, "1969-12-31 23:59:59.999999999Z", -1),
        (NANOS, "2023-02-09 10:00:00.1234567891Z", RejectCode.PRECISION_LOSS),
        (NANOS, "2023-02-09 10:00:00.123456789", RejectCode.TYPE),
        (NANOS, "2300-01-01 00:00:00Z", RejectCode.RANGE),
        (NANOS, "9223372036854775808", RejectCode.RANGE),
        (NANOS, "infinity", RejectCode.TIME_SPECIAL),
        (NANOS, "yesterday", RejectCode.TYPE),
        (LOCAL_NANOS, "2023-02-09 10:00:00.123456789", 1675936800123456789),
        (LOCAL_NANOS, "2023-02-09 10:00:00.123456789Z", RejectCode.TYPE),
    ],
)
def test_nanoseconds_are_whole(kind: AvroType, text: str, expected: Any) -> None:
    done = mapping_of(kind).map(chunk_of([text]))
    found = done.rejects[0].code if done.rejects else done.batch.column("value").view(pa.int64())[0].as_py()
    assert found == expected


C = RejectCode
CASES: list[tuple[AvroType, str, Any]] = [
    ("int", "20", 20),
    ("int", "20.0", 20),
    ("int", " 20 ", 20),
    ("int", "　20", 20),
    ("int", "+7", 7),
    ("int", "-007", -7),
    ("int", "20.5", C.PRECISION_LOSS),
    ("int", "2e1", C.PRECISION_LOSS),
    ("int", "0x1F", C.TYPE),
    ("int", "٣", C.TYPE),
    ("int", "１２", C.TYPE),
    ("int", "1_000", C.TYPE),
    ("int", "abc", C.TYPE),
    ("int", "NaN", C.NUMERIC_SPECIAL),
    ("int", "2147483647", 2147483647),
    ("int", "2147483648", C.RANGE),
    ("int", "-2147483648", -2147483648),
    ("long", "9223372036854775807", 2**63 - 1),
    ("long", "9223372036854775808", C.RANGE),
    ("long", "-9223372036854775808", -(2**63)),
    ("long", "1" + "0" * 400, C.RANGE),
    ("long", "0" * 400 + "12", 12),
    ("double", "41.80576343586902", 41.80576343586902),
    ("double", "-87.66975672568209", -87.66975672568209),
    ("double", "1e999", C.RANGE),
    ("double", "1e-999", 0.0),
    ("double", "Infinity", float("inf")),
    ("float", "-Infinity", float("-inf")),
    ("double", "infinity", C.NUMERIC_SPECIAL),
    ("double", "nan", C.NUMERIC_SPECIAL),
    ("double", "-inf", C.NUMERIC_SPECIAL),
    ("double", "1,5", C.TYPE),
    ("float", "0.5", 0.5),
    ("float", "1e39", C.RANGE),
    ("boolean", "TRUE", True),
    ("boolean", "0", False),
    ("boolean", "yes", C.TYPE),
    (DECIMAL, "1234.5", Decimal("1234.50")),
    (DECIMAL, "1234.500", Decimal("1234.50")),
    (DECIMAL, "0001234.50", Decimal("1234.50")),
    (DECIMAL, "-0.01", Decimal("-0.01")),
    (DECIMAL, ".5", Decimal("0.50")),
    (DECIMAL, "1.005", C.PRECISION_LOSS),
    (DECIMAL, "12345", C.RANGE),
    (DECIMAL, "1e2", C.PRECISION_LOSS),
    (DECIMAL, "NaN", C.NUMERIC_SPECIAL),
    (WHOLE, "12345678901234567890", Decimal(12345678901234567890)),
    (WHOLE, "1.0", Decimal(1)),
    (DATE, "2026-01-31", date(2026, 1, 31)),
    (DATE, "2026-01-31T00:00:00.000", date(2026, 1, 31)),
    (DATE, "2026-01-31 00:00:00", date(2026, 1, 31)),
    (DATE, "2026-01-31 09:00:00", C.PRECISION_LOSS),
    (DATE, "2026-02-30", C.RANGE),
    (DATE, "0000-00-00", C.TIME_SPECIAL),
    (DATE, "infinity", C.TIME_SPECIAL),
    (DATE, "0044-03-15 BC", C.TIME_SPECIAL),
    (DATE, "10000-01-01", C.TIME_SPECIAL),
    (DATE, "45292", C.TYPE),
    (DATE, "31/01/2026", C.TYPE),
    (DATE, "0001-01-01", date(1, 1, 1)),
    (DATE, "9999-12-31", date(9999, 12, 31)),
    (MICROS, "2026-01-31T09:30:00.123456+08:00", datetime(2026, 1, 31, 1, 30, 0, 123456, UTC)),
    (MICROS, "2026-01-31 09:30:00+00", datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
    (MICROS, "2026-01-31 09:30Z", datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
    (MICROS, "2026-01-31 09:30:00", C.TYPE),
    (MICROS, "2026-01-31 09:30:00.1234567Z", C.PRECISION_LOSS),
    (MICROS, "0001-01-01 00:00:00+08:00", C.RANGE),
    (MILLIS, "2026-01-31 09:30:00.123000Z", datetime(2026, 1, 31, 9, 30, 0, 123000, UTC)),
    (MILLIS, "2026-01-31 09:30:00.1234Z", C.PRECISION_LOSS),
    (LOCAL, "2026-01-31 09:30:00", datetime(2026, 1, 31, 9, 30)),  # noqa: DTZ001
    (LOCAL, "2026-01-31 09:30:00Z", C.TYPE),
    (LOCAL, "-infinity", C.TIME_SPECIAL),
    (TIME, "09:30:00.5", time(9, 30, 0, 500000)),
    (TIME, "24:00:00", C.RANGE),
    (TIME, "100:00:00", C.RANGE),
    (TIME, "-838:59:59", C.RANGE),
    (TIME, "-00:00:01.5", C.RANGE),
    (TIME, "noon", C.TYPE),
    (ENUM, "OPEN", "OPEN"),
    (ENUM, " OPEN", "OPEN"),
    (ENUM, "open", C.ENUM),
    (UUID, "0198c1de-0000-7000-8000-000000000001", "0198c1de-0000-7000-8000-000000000001"),
    (UUID, "not one", C.TYPE),
    (FIXED, "00ff8000", b"\x00\xff\x80\x00"),
    (FIXED, "00ff", C.RANGE),
    ("bytes", "\\x00ff", b"\x00\xff"),
    ("bytes", "\\x", b""),
    ("bytes", "xyz", C.TYPE),
    ("string", " 王 ", " 王 "),
    ("string", "", ""),
    ("string", "110105194912310021", "110105194912310021"),
]


@pytest.mark.parametrize(("kind", "text", "expected"), CASES, ids=lambda each: str(each)[:40])
def test_text_becomes_exactly_this(kind: AvroType, text: str, expected: Any) -> None:
    assert mapped(kind, text) == expected


@pytest.mark.parametrize("kind", ["int", "double", DECIMAL, DATE, MICROS, ENUM, "boolean", UUID, "bytes"])
def test_an_empty_text_is_null_for_all_but_text(kind: AvroType) -> None:
    assert mapped(kind, "") is None
    assert mapped(kind, "　 ") is None
    assert mapped(kind, "", nullable=False) is C.NULL_NOT_ALLOWED


def test_a_message_never_holds_the_value() -> None:
    for kind in ("int", "double", DECIMAL, DATE, MICROS, ENUM, "boolean", UUID, "bytes", FIXED, TIME):
        for text in ("11010519491231002X", "99999999999999999999", "2026-13-45", "1.23456789012"):
            for reject in mapping_of(kind).map(chunk_of([text])).rejects:
                assert text not in reject.message


def test_null_is_never_replaced_by_a_default() -> None:
    assert mapped("string", None) is None
    assert mapped("string", None, nullable=False) is C.NULL_NOT_ALLOWED
    assert mapped("int", None, nullable=False) is C.NULL_NOT_ALLOWED


@pytest.mark.parametrize(
    ("kind", "text", "column", "expected"),
    [
        ("string", "无", Column(null_values=("无", "-")), None),
        ("int", "-", Column(null_values=("无", "-")), None),
        (DECIMAL, "1,234.50元", Column(strip=(",", "元")), Decimal("1234.50")),
        ("string", " x ", Column(trim=True), "x"),
        (ENUM, "办结", Column(values={"办结": "CLOSED"}), "CLOSED"),
        ("boolean", "是", Column(true_values=("是",), false_values=("否",)), True),
        ("boolean", "true", Column(true_values=("是",), false_values=("否",)), C.TYPE),
        (DATE, "2026年1月", Column(formats=("%Y-%m", "%Y年%m月")), date(2026, 1, 1)),
        (DATE, "2026", Column(formats=("%Y-%m",)), C.TYPE),
        (DATE, "2026-01-02 03", Column(formats=("%Y-%m-%d %H",)), C.PRECISION_LOSS),
        (MICROS, "2026-01-31 09:30", Column(timezone="Asia/Shanghai"), datetime(2026, 1, 31, 1, 30, tzinfo=UTC)),
        (MICROS, "1986-05-04 02:30", Column(timezone="Asia/Shanghai"), C.TIME_SPECIAL),  # clocks went forward
        (MICROS, "1986-09-14 01:30", Column(timezone="Asia/Shanghai"), C.TIME_SPECIAL),  # and back
        ("string", "A-1", Column(pattern="[A-Z]-[0-9]"), "A-1"),
        ("string", "a-1", Column(pattern="[A-Z]-[0-9]"), C.TYPE),
        ("string", "11010519491231002X", Column(check="cn_id18"), "11010519491231002X"),
        ("string", "110105194912310021", Column(check="cn_id18"), C.ID_CHECKSUM),
        ("string", "11010519491331002X", Column(check="cn_id18"), C.RANGE),
        ("string", "1.10105E+17", Column(check="cn_id18"), C.NUMBER_TOO_LONG_FOR_ID),
        ("string", "110105194912310000.0", Column(check="cn_id18"), C.NUMBER_TOO_LONG_FOR_ID),
        ("string", "1101051949123100", Column(check="cn_id18"), C.TYPE),
        ("string", "13812345678", Column(check="cn_mobile"), "13812345678"),
        ("string", " ", Column(check="not_empty"), C.NULL_NOT_ALLOWED),
    ],
)
def test_a_configuration_says_what_texts_mean(kind: AvroType, text: str, column: Column, expected: Any) -> None:
    assert mapped(kind, text, column) == expected


def test_an_ambiguous_hour_is_not_guessed_whatever_the_zone_s_rules() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    read = converter_for(parse_contract(1, schema_of(MICROS)).fields[1].value_type, zone=zone)
    assert isinstance(read("1986-09-14 01:30:00"), Fault)
    assert read("1949-10-01 15:00:00") == datetime(1949, 10, 1, 15, tzinfo=zone)


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"value": Column(target="valu")}, "valu"),
        ({"value": Column(type="int")}, "declared int"),
        ({"value": Column(check="cn_id19")}, "cn_id19"),
        ({"value": Column(timezone="Asia/Shanghi")}, "time zone"),
        ({"value": Column(pattern="(")}, "pattern"),
        ({"value": Column(), "other": Column(target="value")}, "both fill"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(columns: dict[str, Column], word: str) -> None:
    text = schema_of("string")
    with pytest.raises(InvalidError) as error:
        ColumnMapping(parse_contract(1, text), engine_for(parse(text)), columns)
    assert error.value.reason is Reason.CONFIG_INVALID
    assert word in error.value.message


@pytest.mark.parametrize("kind", [{"type": "array", "items": "int"}, ["null", "int", "string"]])
def test_a_contract_that_is_not_flat_is_refused(kind: AvroType) -> None:
    text = json.dumps(
        {
            "type": "record",
            "name": "R",
            "key": ["k"],
            "fields": [{"name": "k", "type": "string"}, {"name": "v", "type": kind}],
        }
    )
    with pytest.raises(InvalidError) as error:
        parse_contract(1, text)
    assert error.value.reason is Reason.CONTRACT_BROKEN
    assert "'v'" in error.value.message


@pytest.mark.parametrize(("digits", "fits"), [(76, True), (77, False)])
def test_connector_registry_and_lint_have_one_limit_of_digits(digits: int, fits: bool) -> None:
    text = schema_of({"type": "bytes", "logicalType": "decimal", "precision": digits, "scale": 2})
    assert (not find_unpublishable(parse(text))) is fits
    if fits:
        assert parse_contract(1, text).fields[1].value_type.precision == digits
        assert mapped(json.loads(text)["fields"][1]["type"][1], "9" * 74 + ".99") == Decimal("9" * 74 + ".99")
        return
    with pytest.raises(InvalidError, match="77 digits") as error:
        parse_contract(1, text)
    assert error.value.reason is Reason.CONTRACT_BROKEN


def test_a_contract_s_meaning_is_in_its_types_and_not_in_its_labels() -> None:
    plain = json.loads(schema_of(DECIMAL))
    labelled = json.loads(schema_of(DECIMAL))
    labelled["fields"][1] |= {"zh": "金额", "level": "G2", "doc": "…"}
    other = json.loads(schema_of({**DECIMAL, "scale": 3}))  # type: ignore[dict-item]
    hashes = [parse_contract(at, json.dumps(each)).semantic_hash for at, each in enumerate([plain, labelled, other])]
    assert hashes[0] == hashes[1] != hashes[2]


def test_one_row_gives_one_reject_and_the_others_stay_in_order() -> None:
    bound = mapping_of("int", nullable=False)
    done = bound.map(chunk_of(["1", "x", "3", "", "5"]))
    assert done.batch.column("value").to_pylist() == [1, 3, 5]
    assert list(done.rows) == [0, 2, 4]
    assert [each.line for each in done.rejects] == [3, 5]
    assert [each.code for each in done.rejects] == [C.TYPE, C.NULL_NOT_ALLOWED]


KEYED = {
    "type": "record",
    "name": "R",
    "key": ["text", "number", "day"],
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "number", "type": "long"},
        {"name": "day", "type": DATE},
    ],
}


def test_a_reject_names_every_field_that_does_not_fit_and_no_value() -> None:
    kinds = {"a": DATE, "b": DECIMAL, "c": "string", "d": UUID, **{f"e{n:02}": "int" for n in range(12)}}
    fields = [{"name": "key", "type": "string"}, *({"name": name, "type": kind} for name, kind in kinds.items())]
    text = json.dumps({"type": "record", "name": "R", "key": ["key"], "fields": fields})
    bound = ColumnMapping(parse_contract(1, text), engine_for(parse(text)), {}).bind(["key", *kinds])
    values = {"key": "k", **dict.fromkeys(kinds, "wrong-one")}
    chunk = RowChunk(
        columns={name: pa.array([value], pa.string()) for name, value in values.items()}, lines=[2], originals=[b"-"]
    )
    (reject,) = bound.map(chunk).rejects
    assert (reject.code, reject.field) == (RejectCode.TYPE, "a")
    assert reject.message.startswith("expected a date")
    for name in ("b (TYPE: expected ", "d (TYPE: expected ", "e00 (TYPE: expected ", "and 4 more"):
        assert name in reject.message
    assert "c (" not in reject.message
    assert "wrong-one" not in reject.message


def test_keys_are_those_that_the_codec_reads_from_the_record() -> None:
    text = json.dumps(KEYED)
    engine = engine_for(parse(text))
    bound = ColumnMapping(parse_contract(1, text), engine, {}).bind(["text", "number", "day"])
    chunk = RowChunk(
        columns={
            "text": pa.array(["王", "x y", "a\x1fb", "", "z"], pa.string()),
            "number": pa.array(["007", "-1", "1", "1", "x"], pa.string()),
            "day": pa.array(["1949-10-01", "1970-01-02", "1970-01-01", "1970-01-01", "1970-01-01"], pa.string()),
        },
        lines=range(5),
        originals=[b"?"] * 5,
    )
    done = bound.map(chunk)
    checked = engine.check(list(engine.encode(done.batch)))
    assert not isinstance(checked, list)
    assert list(checked.keys) == [key for key in done.keys if key is not None]
    assert list(checked.keys) == ["王\x1f7\x1f-7397".encode(), b"x y\x1f-1\x1f1"]
    assert bound.keys(chunk) == list(done.keys) == [*checked.keys, None, None, None]


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-(2**31) - 3, 2**31 + 3).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-99999, max_value=99999).map(str),
    st.dates().map(str),
    st.sampled_from(["", " ", "0x1F", "1e5", "-0", "-0.0", "+1", "00", "1.", ".1", "1_0", "2026-02-30", "0000-01-01"]),
    st.text(alphabet="0123456789-+.eE ", max_size=8),
    st.none(),
)


@settings(max_examples=400)
@given(texts=st.lists(NUMBERS, min_size=1, max_size=6), kind=st.sampled_from(["int", "long", "double", "float"]))
def test_the_vectorised_path_gives_what_the_scalar_one_gives_for_numbers(texts: list[str | None], kind: str) -> None:
    _same_on_both_paths(texts, kind)


@settings(max_examples=400)
@given(texts=st.lists(NUMBERS, min_size=1, max_size=6), kind=st.sampled_from([DECIMAL, WHOLE, DATE]))
def test_the_vectorised_path_gives_what_the_scalar_one_gives_for_decimals_and_dates(
    texts: list[str | None], kind: AvroType
) -> None:
    _same_on_both_paths(texts, kind)


def _same_on_both_paths(texts: list[str | None], kind: AvroType) -> None:
    bound = mapping_of(kind)
    both = [bound.map(chunk_of(texts))]
    with pytest.MonkeyPatch.context() as patch:
        scalar: Callable[..., None] = lambda *_: None  # noqa: E731
        patch.setattr(mapping_module, "_convert_vectorised", scalar)
        both.append(bound.map(chunk_of(texts)))
    vectorised, slow = both
    assert vectorised.batch.equals(slow.batch)
    assert vectorised.rejects == slow.rejects
    assert vectorised.keys == slow.keys


@pytest.mark.parametrize("text", ["3.4028235677973366e+38", "3.4028235677973365e+38", "1.00000005960464477540"])
def test_a_float_half_way_between_two_is_rounded_alike_on_both_paths(text: str) -> None:
    _same_on_both_paths([text], "float")


def test_the_vectorised_path_is_taken_for_plain_columns() -> None:
    """Otherwise the test above would compare the scalar path with itself."""
    for kind, texts in (
        ("int", ["20.0", "1", None]),
        ("double", ["41.8", "-87.6e1"]),
        (DECIMAL, ["1.50", "2"]),
        (DATE, ["2026-01-31"]),
        ("string", ["x"]),
    ):
        bound = mapping_of(kind)
        plan = next(plan for plan in bound._plans if plan.field.name == "value")
        clean = mapping_module._normalise(plan, chunk_of(texts).columns["value"])  # type: ignore[arg-type]
        assert mapping_module._convert_vectorised(plan, clean) is not None, kind
