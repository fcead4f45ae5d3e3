"""Decoder of pgoutput, PostgreSQL's logical replication messages, protocol version 1 with values as text.

Pure: bytes in, messages out. The form is that of "Logical Replication Message Formats" in PostgreSQL's manual, chapter
"Frontend/Backend Protocol". Each payload is one message, its first byte the kind:

    B begin   C commit   R relation   Y type   I insert   U update   D delete   T truncate   M message   O origin

A column of a tuple is a text, null, or `UNCHANGED`: PostgreSQL does not send a value that is stored out of line (TOAST)
and did not change. That is no value: who makes a record of the tuple has to find it elsewhere.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from schemas.errors import InvalidError, Reason

__all__ = [
    "UNCHANGED",
    "Begin",
    "Cell",
    "Commit",
    "Delete",
    "Identity",
    "Insert",
    "LogicalMessage",
    "Message",
    "Origin",
    "Relation",
    "RelationColumn",
    "Truncate",
    "TypeName",
    "Unchanged",
    "Update",
    "decode",
]

_EPOCH = 946_684_800_000_000  # microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch
_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_RELATION_ID = struct.Struct(">I")
_COLUMN_TYPE = struct.Struct(">Ii")
_COUNT = struct.Struct(">H")
_LOGICAL = struct.Struct(">BQ")


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    TOAST = "unchanged"


UNCHANGED: Final = Unchanged.TOAST
"""Stands where a column was not sent, because it is stored out of line and did not change."""

Cell: TypeAlias = str | Unchanged | None


class Identity(Enum):
    """Replica identity of a relation (`pg_class.relreplident`): what an old tuple holds."""

    DEFAULT = "d"
    NOTHING = "n"
    FULL = "f"
    INDEX = "i"


class Begin(NamedTuple):
    """A transaction begins: all of it was committed, and follows. `committed_at` is in microseconds UTC."""

    commit_lsn: int
    committed_at: int
    xid: int


class Commit(NamedTuple):
    """A transaction ends; `end_lsn` is behind its commit record."""

    commit_lsn: int
    end_lsn: int
    committed_at: int


class Origin(NamedTuple):
    """The transaction came from another server."""

    commit_lsn: int
    name: str


class RelationColumn(NamedTuple):
    """One column as it was when the following rows were written; `is_key`: part of the replica identity."""

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool


class Relation(NamedTuple):
    """A table as it was when the following rows were written."""

    id: int
    schema: str
    name: str
    identity: Identity
    columns: tuple[RelationColumn, ...]


class TypeName(NamedTuple):
    """The name of a type that is not built in; of a domain, the name of its base type."""

    oid: int
    schema: str
    name: str


class Insert(NamedTuple):
    """A new row."""

    relation_id: int
    new: Sequence[Cell]


class Update(NamedTuple):
    """A changed row. `old` is the key alone (others null) if `old_is_key`, else the whole row; None if not sent."""

    relation_id: int
    old: Sequence[Cell] | None
    old_is_key: bool
    new: Sequence[Cell]


class Delete(NamedTuple):
    """A deleted row; `old` as in `Update`."""

    relation_id: int
    old: Sequence[Cell]
    old_is_key: bool


class Truncate(NamedTuple):
    """Tables were emptied."""

    relation_ids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


class LogicalMessage(NamedTuple):
    """A message of `pg_logical_emit_message`."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Message: TypeAlias = (
    Begin | Commit | Origin | Relation | TypeName | Insert | Update | Delete | Truncate | LogicalMessage
)


def decode(payload: bytes) -> Message:
    """Decode one message.

    Raises:
        InvalidError: INTERNAL, when it is not a whole message of protocol 1.
    """
    decoder = _DECODERS.get(payload[:1])
    if decoder is None:
        raise _unreadable(payload)
    try:
        message, end = decoder(payload)
    except (struct.error, IndexError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise _unreadable(payload) from error
    if end != len(payload):
        raise _unreadable(payload)
    return message


def _unreadable(payload: bytes) -> InvalidError:
    kind = chr(payload[0]) if payload and payload[:1].isalpha() else "none"
    return InvalidError(
        Reason.INTERNAL,
        f"got {len(payload)} bytes of kind {kind} that are no message of pgoutput, protocol 1, in UTF-8; report this "
        "as a fault of the program, with the version of the database",
    )


def _begin(data: bytes) -> tuple[Begin, int]:
    commit_lsn, at, xid = _BEGIN.unpack_from(data, 1)
    return Begin(commit_lsn, at + _EPOCH, xid), 1 + _BEGIN.size


def _commit(data: bytes) -> tuple[Commit, int]:
    _, commit_lsn, end_lsn, at = _COMMIT.unpack_from(data, 1)
    return Commit(commit_lsn, end_lsn, at + _EPOCH), 1 + _COMMIT.size


def _origin(data: bytes) -> tuple[Origin, int]:
    name, at = _text(data, 9)
    return Origin(int.from_bytes(data[1:9], "big"), name), at


def _relation(data: bytes) -> tuple[Relation, int]:
    (relation_id,) = _RELATION_ID.unpack_from(data, 1)
    schema, at = _text(data, 5)
    name, at = _text(data, at)
    identity = Identity(chr(data[at]))
    (count,) = _COUNT.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        flags = data[at]
        column, at = _text(data, at + 1)
        type_oid, modifier = _COLUMN_TYPE.unpack_from(data, at)
        at += _COLUMN_TYPE.size
        columns.append(RelationColumn(column, type_oid, modifier, bool(flags & 1)))
    # An empty schema stands for pg_catalog.
    return Relation(relation_id, schema or "pg_catalog", name, identity, tuple(columns)), at


def _type_name(data: bytes) -> tuple[TypeName, int]:
    (oid,) = _RELATION_ID.unpack_from(data, 1)
    schema, at = _text(data, 5)
    name, at = _text(data, at)
    return TypeName(oid, schema or "pg_catalog", name), at


def _insert(data: bytes) -> tuple[Insert, int]:
    _expect(data, 5, b"N")
    new, at = _tuple(data, 6)
    return Insert(int.from_bytes(data[1:5], "big"), new), at


def _update(data: bytes) -> tuple[Update, int]:
    old: Sequence[Cell] | None = None
    kind, at = data[5:6], 5
    if kind in (b"K", b"O"):
        old, at = _tuple(data, 6)
    _expect(data, at, b"N")
    new, at = _tuple(data, at + 1)
    return Update(int.from_bytes(data[1:5], "big"), old, kind == b"K", new), at


def _delete(data: bytes) -> tuple[Delete, int]:
    kind = data[5:6]
    _expect(data, 5, b"K", b"O")
    old, at = _tuple(data, 6)
    return Delete(int.from_bytes(data[1:5], "big"), old, kind == b"K"), at


def _truncate(data: bytes) -> tuple[Truncate, int]:
    count, options = struct.unpack_from(">IB", data, 1)
    ids = struct.unpack_from(f">{count}I", data, 6)
    return Truncate(ids, bool(options & 1), bool(options & 2)), 6 + 4 * count


def _logical_message(data: bytes) -> tuple[LogicalMessage, int]:
    flags, lsn = _LOGICAL.unpack_from(data, 1)
    prefix, at = _text(data, 1 + _LOGICAL.size)
    (length,) = _RELATION_ID.unpack_from(data, at)
    at += 4
    content = data[at : at + length]
    if len(content) != length:
        raise ValueError
    return LogicalMessage(bool(flags & 1), lsn, prefix, content), at + length


_DECODERS: Mapping[bytes, Callable[[bytes], tuple[Message, int]]] = {
    b"B": _begin,
    b"C": _commit,
    b"O": _origin,
    b"R": _relation,
    b"Y": _type_name,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
    b"M": _logical_message,
}


def _expect(data: bytes, at: int, *kinds: bytes) -> None:
    if data[at : at + 1] not in kinds:
        raise ValueError


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Return the text that ends with a zero byte, and the place after it."""
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _tuple(data: bytes, at: int) -> tuple[list[Cell], int]:
    """Return the columns of a tuple, and the place after it."""
    count = data[at] << 8 | data[at + 1]
    at += 2
    cells: list[Cell] = []
    append = cells.append
    for _ in range(count):
        kind = data[at]
        if kind == 116:  # t: a text with its length before it
            start = at + 5
            at = start + int.from_bytes(data[at + 1 : start], "big")
            value = data[start:at]
            if len(value) != at - start:
                raise ValueError
            append(value.decode())
        elif kind == 110:  # n
            append(None)
            at += 1
        elif kind == 117:  # u
            append(UNCHANGED)
            at += 1
        else:  # b would be binary, which is not asked for
            raise ValueError
    return cells, at
