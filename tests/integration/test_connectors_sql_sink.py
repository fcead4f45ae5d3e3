"""A table as a sink: no record stops it, and what the target cannot hold is set aside with its column and the cause."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from connectors.port import DecodedRelease, RejectCode, RejectedRecord
from connectors.sinks import sql_copy
from connectors.sinks.sql import SqlSink
from schemas.errors import ConflictError, PoolError, Reason, UnavailableError

pytestmark = pytest.mark.postgres

SCHEMA = pa.schema([("name", pa.string()), ("amount", pa.decimal128(12, 2)), ("count", pa.int64())])
OWN = "_record_key varchar(32) PRIMARY KEY, _recorded_at bigint NOT NULL, _deleted_at bigint"
COUNT = 5_000


def release(records: Sequence[dict[str, Any] | None], at: int = 10) -> DecodedRelease:
    return DecodedRelease(
        keys=[number.to_bytes(16, "big") for number in range(len(records))],
        recorded_at=[at] * len(records),
        withdrawn=[each is None for each in records],
        records=pa.RecordBatch.from_pylist([each for each in records if each is not None], SCHEMA),
        values=[b"" if each is None else b"v" for each in records],
        entry_id="e",
    )


def people(total: int = COUNT, /, **of: dict[int, Any]) -> list[dict[str, Any] | None]:
    """Return records, of which some have another value in a field: field → {number: value}."""
    made: list[dict[str, Any] | None] = []
    for number in range(total):
        record = {"name": f"人{number}", "amount": Decimal(number), "count": number}
        made.append(record | {name: values[number] for name, values in of.items() if number in values})
    return made


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as made:
        yield made


@pytest.fixture(params=["columns", "rows"])
def sink(request: pytest.FixtureRequest, database: sa.URL) -> Iterator[SqlSink]:
    made = SqlSink(database, "people", "g-1", create_table=True, columns=request.param == "columns")
    yield made
    made.close()


def write(sink: SqlSink, records: Sequence[dict[str, Any] | None]) -> dict[int, tuple[RejectCode, str]]:
    """Write a first release; return what was rejected."""
    quarantined: list[RejectedRecord] = []
    sink.prepare(SCHEMA)
    written = sink.write(release(records), b"", b"p1", quarantined.extend)
    assert quarantined == list(written.rejected)
    assert written.upserted == sum(each is not None for each in records) - len(quarantined)
    assert sink.position() == b"p1"
    return {each.index: (each.code, each.field) for each in written.rejected}


def test_what_the_target_cannot_hold_is_set_aside_with_its_column(sink: SqlSink, connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        f"CREATE TABLE people ({OWN}, name varchar(10), amount numeric(7, 2), count integer CHECK (count <> 4000))"
    )
    records = people(
        name={0: "x" * 11, 17: "nul\x00"}, amount={18: Decimal(100_000), 4_999: Decimal(-100_000)}, count={19: 2**31}
    )
    assert write(sink, records) == {
        0: (RejectCode.TARGET_TYPE, "name"),
        17: (RejectCode.TARGET_TYPE, "name"),
        18: (RejectCode.TARGET_TYPE, "amount"),
        19: (RejectCode.TARGET_TYPE, "count"),
        4_000: (RejectCode.TARGET_CONSTRAINT, "count"),
        4_999: (RejectCode.TARGET_TYPE, "amount"),
    }
    assert connection.exec_driver_sql("SELECT count(*) FROM people").scalar_one() == COUNT - 6


def test_the_cause_names_the_constraint_and_never_the_value(sink: SqlSink, connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"CREATE TABLE people ({OWN}, name text, amount numeric, count bigint)")
    connection.exec_driver_sql("ALTER TABLE people ADD CONSTRAINT small CHECK (count < 40), ALTER name SET NOT NULL")
    sink.prepare(SCHEMA)
    quarantined: list[RejectedRecord] = []
    sink.write(release(people(50, name={3: None}, count={4: 770_077})), b"", b"p1", quarantined.extend)
    texts = {each.index: f"{each.field}: {each.message}" for each in quarantined}
    assert "name" in texts[3]
    assert "NotNullViolation" in texts[3]
    assert "small" in texts[4]
    assert not any("770077" in text for text in texts.values())


def test_errors_that_look_like_the_database_s_own_are_the_record_s(sink: SqlSink, connection: sa.Connection) -> None:
    """An index entry that is too large, and an exception of a trigger: neither goes away by waiting."""
    connection.exec_driver_sql(f"CREATE TABLE people ({OWN}, name text UNIQUE, amount numeric, count bigint)")
    connection.exec_driver_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.count = 42 THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$"
    )
    connection.exec_driver_sql("CREATE TRIGGER refuse BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION refuse()")
    incompressible = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(10_000))
    assert write(sink, people(100, name={7: incompressible})) == {
        7: (RejectCode.TOO_LARGE, "name"),
        42: (RejectCode.TARGET_REJECTED, "count"),
    }


def test_a_release_of_which_nothing_fits_is_set_aside_whole(sink: SqlSink, connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"CREATE TABLE people ({OWN}, name integer, amount numeric, count bigint)")
    assert write(sink, people(300)) == dict.fromkeys(range(300), (RejectCode.TARGET_TYPE, "name"))
    assert connection.exec_driver_sql("SELECT count(*) FROM people").scalar_one() == 0


def test_an_error_that_is_no_record_s_stops_the_sink_and_stores_nothing(
    sink: SqlSink, connection: sa.Connection
) -> None:
    """Were it taken for the records' fault, a whole topic would end in the quarantine."""
    connection.exec_driver_sql(f"CREATE TABLE people ({OWN}, name text, amount numeric, count boolean)")
    sink.prepare(SCHEMA)
    with pytest.raises(ConflictError) as error:
        sink.write(release(people(100)), b"", b"p1", lambda _: None)
    assert error.value.reason is Reason.TARGET_REJECTED
    assert sink.position() == b""


def test_many_withdrawals_reach_the_rows_and_no_later_ones(sink: SqlSink, connection: sa.Connection) -> None:
    write(sink, people(2_000))
    later = release([None] * 10, at=50)
    sink.write(later, b"p1", b"p2", lambda _: None)
    connection.exec_driver_sql("UPDATE people SET _deleted_at = NULL WHERE _recorded_at = 50")
    sink.write(release([None] * 1_000, at=20), b"p2", b"p3", lambda _: None)
    gone = connection.exec_driver_sql("SELECT count(*) FROM people WHERE _deleted_at = 20").scalar_one()
    assert gone == 990


@pytest.fixture
def writer(engine: sa.Engine, database: sa.URL) -> Iterator[sa.URL]:
    """A user who may make tables, but no temporary ones."""
    with engine.begin() as connection:
        for statement in (
            "CREATE ROLE writer LOGIN PASSWORD 'writer'",
            f'REVOKE TEMPORARY ON DATABASE "{database.database}" FROM PUBLIC',
            "GRANT CREATE, USAGE ON SCHEMA public TO writer",
        ):
            connection.exec_driver_sql(statement)
    yield database.set(username="writer", password="writer")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP OWNED BY writer; DROP ROLE writer")


def test_a_user_who_may_not_make_temporary_tables_writes_all_the_same(writer: sa.URL) -> None:
    sink = SqlSink(writer, "people", "g-1", create_table=True)
    try:
        assert write(sink, [*people(200), *[None] * 100]) == {}
        sink.write(release([None] * 100, at=20), b"p1", b"p2", lambda _: None)
        assert sink.position() == b"p2"
    finally:
        sink.close()


def test_a_server_that_goes_away_within_copy_stores_nothing(
    database: sa.URL, connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SqlSink(database, "people", "g-1", create_table=True)
    sink.prepare(SCHEMA)
    copy = sql_copy._copy

    def killed(own: sa.Connection, *arguments: Any) -> None:
        own_pid = own.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({own_pid})")
        copy(own, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(sql_copy, "_copy", killed)
        with pytest.raises(PoolError) as error:
            sink.write(release(people(100)), b"", b"p1", lambda _: None)
    assert isinstance(error.value, UnavailableError)
    assert sink.position() == b""
    sink.write(release(people(100)), b"", b"p1", lambda _: None)
    assert connection.exec_driver_sql("SELECT count(*) FROM people").scalar_one() == 100
    sink.close()


def test_a_double_that_is_no_number_is_stored_as_it_is(sink: SqlSink, connection: sa.Connection) -> None:
    values = [1.5, float("nan"), float("inf"), float("-inf")]
    records = pa.RecordBatch.from_arrays([pa.array(values, pa.float64())], names=["ratio"])
    sink.prepare(records.schema)
    made = replace(release([{}] * len(values)), records=records)
    quarantined: list[RejectedRecord] = []
    sink.write(made, b"", b"p1", quarantined.extend)
    assert not quarantined
    found = connection.exec_driver_sql("SELECT ratio::text FROM people ORDER BY _record_key").scalars().all()
    assert found == ["1.5", "NaN", "Infinity", "-Infinity"]
