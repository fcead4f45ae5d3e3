"""Table of SQL types for docs/reference/sql-types.md: what really becomes of each value, from a database to a record.

A table with one column a type is published under the schema that `pool-connect draft-schema` would propose for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connectors.drafting.avro_types import type_of_column
from connectors.sources.sql_table import SqlSource
from tests.kit.world.changing_tables import execute
from tests.kit.world.department import Department

__all__ = ["HEAD", "marked", "section"]

HEAD = "| SQL type | Avro type | arrives | set aside |\n|---|---|---|---|\n"


def section(url: sa.URL, folder: Path, types: Mapping[str, Sequence[str]]) -> str:
    """Publish a value of each type after the other; return the table's lines."""
    columns = ", ".join(f"c{at} {name}" for at, name in enumerate(types))
    values = [(at, value) for at, name in enumerate(types) for value in types[name]]
    execute(url, f"CREATE TABLE kinds (id bigint NOT NULL PRIMARY KEY, {columns})")
    for number, (at, value) in enumerate(values, 1):
        quoted = value.replace("'", "''").replace("%", "%%")
        literal = value[1:] if value.startswith("=") else f"'{quoted}'"
        execute(url, f"INSERT INTO kinds (id, c{at}) VALUES ({number}, {literal})")
    drafts = _drafts(url, len(types))
    fields = [{"name": f"c{at}", "type": ["null", draft], "default": None} for at, draft in enumerate(drafts)]
    schema = {"type": "record", "name": "K", "key": ["id"], "fields": [{"name": "id", "type": "long"}, *fields]}
    folder.mkdir()
    department = Department(folder, topic="kinds.v1", schema=schema)
    department.limits = replace(department.limits, quarantine_share=1.0)
    source = SqlSource(url, "kinds")
    department.publish(lambda _: source)
    source.close()
    state = department.state()
    codes = {json.loads(each.original)["id"]: each.code.value for each in department.quarantined()}
    lines = ""
    for at, name in enumerate(types):
        good, bad = [], []
        for number, (column, value) in enumerate(values, 1):
            if column == at and str(number) in codes:
                bad.append(f"{_code(value)} {codes[str(number)]}")
            elif column == at:
                good.append(_arrival(value, state[str(number)][f"c{at}"]))
        cells = [_code(name), _avro(drafts[at]), "; ".join(good) or "–", "; ".join(bad) or "–"]
        lines += f"| {' | '.join(cells)} |\n"
    return lines


def marked(page: str, database: str) -> tuple[str, str, str]:
    """Return a page's text before the lines of a database, these, and the text behind them."""
    begin, end = f"<!-- {database}: made by a test -->\n\n{HEAD}", f"\n<!-- end of {database} -->"
    head, _, rest = page.partition(begin)
    lines, _, tail = rest.partition(end)
    return head + begin, lines, end + tail


def _drafts(url: sa.URL, count: int) -> list[Any]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    declared = sa.inspect(engine).get_columns("kinds")
    found = {each["name"]: type_of_column(each["type"], url.get_backend_name()).avro for each in declared}
    engine.dispose()
    return [found[f"c{at}"] for at in range(count)]


def _arrival(stated: str, value: object) -> str:
    stated = stated.removeprefix("=")
    match value:
        case bool():
            text = "true" if value else "false"
        case bytes():
            text = f"0x{value.hex()}"
        case datetime() | date() | time():
            text = value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
        case _:
            text = str(value)
    return _code(stated) if text == stated else f"{_code(stated)} as {_code(text)}"


def _avro(draft: Any) -> str:
    if isinstance(draft, str):
        return draft
    digits = f"({draft['precision']}, {draft['scale']})" if draft["logicalType"] == "decimal" else ""
    return f"{draft['logicalType']}{digits}"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else "the empty text"
