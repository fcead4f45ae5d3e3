"""Page of a table by COPY: PostgreSQL writes csv, which Arrow parses into columns of text without Python objects.

The statement is the same that a cursor would run, with its parameters written into it, since COPY takes none. A null is
an empty cell, and an empty text a quoted one. The first column is a number, so that no row is an empty line, which a
parser of csv passes over, and so that a text that begins with a byte order mark keeps it.
"""

from typing import Any

import pyarrow as pa
import pyarrow.csv
import sqlalchemy as sa

__all__ = ["copies", "copy_page"]

_NUMBER = "n"


class _Buffer:
    """What the driver writes, in pieces: appending them to one another would copy the page many times."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(piece)
        return len(piece)

    def content(self) -> pa.Buffer:
        return pa.py_buffer(b"".join(self._pieces))


def copies(dialect: sa.Dialect) -> bool:
    """Return whether pages of a database can be read so."""
    return dialect.name == "postgresql" and dialect.driver == "psycopg2"


def copy_page(connection: sa.Connection, statement: sa.Select[Any]) -> list[pa.StringArray]:
    """Return the columns of a statement, all of which are text.

    Raises:
        SQLAlchemyError: as for any statement.
        ArrowInvalid: a text that is not UTF-8, from a database without an encoding.
    """
    width = len(statement.selected_columns)
    numbered = statement.with_only_columns(sa.literal_column("0"), *statement.selected_columns)
    compiled = numbered.compile(dialect=connection.dialect)
    driver, dbapi_error = connection.connection.driver_connection, connection.dialect.loaded_dbapi.Error
    if driver is None:
        raise sa.exc.InvalidRequestError("the connection is closed")
    buffer = _Buffer()
    with driver.cursor() as cursor:
        try:
            query = cursor.mogrify(str(compiled), compiled.params).decode()
            cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, ENCODING 'UTF8')", buffer)
        except dbapi_error as error:
            # Not a statement of SQLAlchemy's: its error is made as SQLAlchemy makes its own.
            raise sa.exc.DBAPIError.instance(
                None, None, error, dbapi_error, hide_parameters=True, dialect=connection.dialect
            ) from error
    return _parse(buffer.content(), width)


def _parse(content: pa.Buffer, width: int) -> list[pa.StringArray]:
    names = [f"c{at}" for at in range(width)]
    if not content.size:
        return [pa.array([], pa.string())] * width
    table = pyarrow.csv.read_csv(
        pa.BufferReader(content),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=content.size + 1, column_names=[_NUMBER, *names]
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=names,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return [column.combine_chunks() for column in table.columns]
