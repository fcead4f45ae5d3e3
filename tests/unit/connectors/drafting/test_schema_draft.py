"""Drafts of a schema: types as declared, guesses that nobody can publish under, no value."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, postgresql

from connectors.drafting.avro_types import DraftType, type_of_column, type_of_texts
from connectors.drafting.personal_data import guess
from connectors.drafting.schema_draft import ColumnDraft, draft_schema
from connectors.mapping.contract import parse_contract
from exchange.demo.people import persons
from registry.avro.parser import parse
from registry.governance.classification import require_classification
from schemas.errors import InvalidError

PEOPLE = list(persons(40))


def logical(base: str, name: str, **rest: int) -> dict[str, Any]:
    return {"type": base, "logicalType": name, **rest}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (sa.Boolean(), "boolean"),
        (sa.SmallInteger(), "int"),
        (sa.Integer(), "int"),
        (sa.BigInteger(), "long"),
        (mysql.INTEGER(unsigned=True), "long"),
        (mysql.TINYINT(unsigned=True), "int"),
        (mysql.BIGINT(unsigned=True), logical("bytes", "decimal", precision=20, scale=0)),
        (mysql.YEAR(), "int"),
        (sa.Numeric(12, 2), logical("bytes", "decimal", precision=12, scale=2)),
        (sa.Numeric(), "string"),
        (sa.Numeric(100, 2), "string"),
        (sa.REAL(), "float"),
        (mysql.FLOAT(), "float"),
        (postgresql.DOUBLE_PRECISION(), "double"),
        (sa.Date(), logical("int", "date")),
        (sa.Time(), logical("long", "time-micros")),
        (postgresql.TIME(timezone=True), "string"),
        (sa.DateTime(), logical("long", "local-timestamp-micros")),
        (postgresql.TIMESTAMP(timezone=True), logical("long", "timestamp-micros")),
        (postgresql.UUID(), logical("string", "uuid")),
        (postgresql.BYTEA(), "bytes"),
        (mysql.LONGBLOB(), "bytes"),
        (sa.String(18), "string"),
        (mysql.SET("a", "b"), "string"),
        (postgresql.JSONB(), "string"),
        (postgresql.ARRAY(sa.Integer()), "string"),
        (sa.types.NullType(), "string"),
    ],
    ids=repr,
)
def test_a_column_gets_the_type_that_holds_its_values(declared: sa.types.TypeEngine[Any], expected: object) -> None:
    assert type_of_column(declared).avro == expected


def test_the_values_of_an_enumeration_are_its_codes() -> None:
    found = type_of_column(sa.Enum("在业", "注销", name="status"))
    assert (found.avro, found.codes) == ("string", ("在业", "注销"))


def test_a_column_of_a_file_is_text_unless_all_of_its_values_are_dates_or_decimals() -> None:
    assert type_of_texts(["2026-01-31", "1999-12-01"]).avro == logical("int", "date")
    assert type_of_texts(["1.50", "-20.00"]).avro == logical("bytes", "decimal", precision=17, scale=2)
    for texts in (
        ["2026-02-30"],
        ["2026-01-31", "-"],
        ["1.5", "1.50"],
        ["0012"],
        ["007.50"],
        ["110105194912310021"],
        [],
    ):
        assert type_of_texts(texts).avro == "string", texts


def test_personal_data_is_guessed_from_values_and_from_names() -> None:
    numbers = [str(each["id_number"]) for each in PEOPLE]
    phones = [str(each["mobile_phone"]) for each in PEOPLE if each["mobile_phone"]]
    assert (guess("c1", numbers).level, guess("c1", numbers).mask, guess("c1", numbers).check) == (
        "G4", "keep_3_4", "cn_id18",
    )  # fmt: skip
    assert guess("c2", phones).mask == "phone_3_4"
    assert guess("c1", [*numbers, "unknown"]).check == "", "a rule is proposed that every value passes"
    assert guess("出生日期", []).mask == "year_only"
    assert guess("holder_phone", []).mask == "phone_3_4"
    assert guess("诊断结果", []).sensitive == "S"
    assert guess("统一社会信用代码", []).personal == "N"
    assert guess("amount", []).mask == "band", "a short word is not what it is in a bundled record type"


def test_what_nothing_is_known_of_is_hidden() -> None:
    found = guess("x17", ["a", "b"])
    assert (found.level, found.personal, found.mask) == ("G3", "P", "drop")


def drafted(names: list[str], texts: list[str]) -> Any:
    columns = [
        ColumnDraft(name=name, type=DraftType("string"), nullable=True, proposal=guess(name, texts)) for name in names
    ]
    return draft_schema("senior-card.v1", columns, key=names[:1])


def test_a_guess_is_refused_until_a_person_has_confirmed_it() -> None:
    text = drafted(["no", "holder_name"], ["1"]).text
    with pytest.raises(InvalidError):
        require_classification(json.loads(text))
    confirmed = text.replace("CONFIRM ", "")
    require_classification(json.loads(confirmed))
    parse(confirmed)
    assert parse_contract(1, confirmed).key == ("no",)


@given(
    st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8, unique=True),
    st.lists(st.sampled_from([str(each["id_number"]) for each in PEOPLE]) | st.uuids().map(str), max_size=10),
)
def test_every_column_gets_a_field_of_its_own_and_no_value_is_shown(names: list[str], texts: list[str]) -> None:
    draft = drafted(names, texts)
    confirmed = draft.text.replace("CONFIRM ", "")
    fields = [each["name"] for each in json.loads(confirmed)["fields"]]
    assert len({each.lower() for each in fields}) == len(names)
    parse(confirmed)
    shown = draft.text + "".join(map("".join, draft.reasons)) + "".join(draft.columns)
    assert not [value for value in texts if value in shown]


def test_a_table_without_a_key_says_that_one_is_needed() -> None:
    columns = [ColumnDraft(name="a", type=DraftType("string"), nullable=True, proposal=guess("a", []))]
    assert json.loads(draft_schema("x.v1", columns, key=[]).text)["key"] == [
        "CONFIRM the fields that make a record unique"
    ]
