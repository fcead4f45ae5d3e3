"""The decoder of pgoutput: messages as PostgreSQL 18 sent them, and any message that the manual's form allows."""

import contextlib
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sources.postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Cell,
    Commit,
    Delete,
    Identity,
    Insert,
    LogicalMessage,
    Origin,
    Relation,
    RelationColumn,
    Truncate,
    TypeName,
    Update,
    decode,
)
from schemas.errors import InvalidError, Reason

# Captured from a server: INSERT of (2, 'y') into public.t (id int PRIMARY KEY, b text), then a heartbeat.
CAPTURED = {
    b"B\x00\x00\x00\x00\x01q\x87\xa0\x00\x03\x04\x7f1\xa7\x9d\xd1\x00\x00\x02\xf2": Begin(
        0x17187A0, 1796054070558161, 754
    ),
    b"R\x00\x00@\x00public\x00t\x00d\x00\x02\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff\x00b\x00\x00\x00\x00\x19\xff\xff"
    b"\xff\xff": Relation(
        16384,
        "public",
        "t",
        Identity.DEFAULT,
        (RelationColumn("id", 23, -1, True), RelationColumn("b", 25, -1, False)),
    ),
    b"I\x00\x00@\x00N\x00\x02t\x00\x00\x00\x012t\x00\x00\x00\x01y": Insert(16384, ["2", "y"]),
    b"C\x00\x00\x00\x00\x00\x01q\x87\xa0\x00\x00\x00\x00\x01q\x87\xd0\x00\x03\x04\x7f1\xa7\x9d\xd1": Commit(
        0x17187A0, 0x17187D0, 1796054070558161
    ),
    b"M\x00\x00\x00\x00\x00\x01q\x88\x08hb\x00\x00\x00\x00\x00": LogicalMessage(False, 0x1718808, "hb", b""),
}


@pytest.mark.parametrize("payload", CAPTURED, ids=lambda payload: payload[:1].decode())
def test_messages_of_a_server_are_read(payload: bytes) -> None:
    assert decode(payload) == CAPTURED[payload]


# -- any message: an encoder of the manual's form, written apart from the decoder ------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
U8, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
MICROS = st.integers(-(2**62), 2**62)
CELLS = st.lists(st.one_of(st.none(), TEXT, st.just(UNCHANGED)), max_size=6)
EPOCH = 946_684_800_000_000


def z(text: str) -> bytes:
    return text.encode() + b"\0"


def encode_tuple(cells: Sequence[Cell]) -> bytes:
    parts = [struct.pack(">h", len(cells))]
    for cell in cells:
        if cell is None:
            parts.append(b"n")
        elif isinstance(cell, str):
            data = cell.encode()
            parts.append(b"t" + struct.pack(">i", len(data)) + data)
        else:
            parts.append(b"u")
    return b"".join(parts)


def encode(message: Any) -> bytes:  # noqa: PLR0911 - one line a message
    match message:
        case Begin(lsn, at, xid):
            return b"B" + struct.pack(">QqI", lsn, at - EPOCH, xid)
        case Commit(lsn, end, at):
            return b"C\0" + struct.pack(">QQq", lsn, end, at - EPOCH)
        case Origin(lsn, name):
            return b"O" + struct.pack(">Q", lsn) + z(name)
        case Relation(oid, schema, name, identity, columns):
            body = b"".join(struct.pack(">?", c.is_key) + z(c.name) + struct.pack(">Ii", *c[1:3]) for c in columns)
            head = struct.pack(">I", oid) + z("" if schema == "pg_catalog" else schema) + z(name)
            return b"R" + head + identity.value.encode() + struct.pack(">h", len(columns)) + body
        case TypeName(oid, schema, name):
            return b"Y" + struct.pack(">I", oid) + z(schema) + z(name)
        case Insert(oid, new):
            return b"I" + struct.pack(">I", oid) + b"N" + encode_tuple(new)
        case Update(oid, old, is_key, new):
            before = b"" if old is None else (b"K" if is_key else b"O") + encode_tuple(old)
            return b"U" + struct.pack(">I", oid) + before + b"N" + encode_tuple(new)
        case Delete(oid, old, is_key):
            return b"D" + struct.pack(">I", oid) + (b"K" if is_key else b"O") + encode_tuple(old)
        case Truncate(ids, cascade, restart):
            return b"T" + struct.pack(f">IB{len(ids)}I", len(ids), cascade | restart << 1, *ids)
        case LogicalMessage(transactional, lsn, prefix, content):
            return b"M" + struct.pack(">?Q", transactional, lsn) + z(prefix) + struct.pack(">I", len(content)) + content
    raise AssertionError(message)


COLUMNS = st.lists(st.builds(RelationColumn, TEXT, U32, st.integers(-1, 2**31 - 1), st.booleans()), max_size=5)
NAMES = TEXT.filter(bool)
MESSAGES = st.one_of(
    st.builds(Begin, U64, MICROS, U32),
    st.builds(Commit, U64, U64, MICROS),
    st.builds(Origin, U64, TEXT),
    st.builds(Relation, U32, NAMES, TEXT, st.sampled_from(Identity), COLUMNS.map(tuple)),
    st.builds(TypeName, U32, NAMES, TEXT),
    st.builds(Insert, U32, CELLS),
    st.builds(Update, U32, CELLS, st.booleans(), CELLS),
    st.builds(Update, U32, st.none(), st.just(False), CELLS),
    st.builds(Delete, U32, CELLS, st.booleans()),
    st.builds(Truncate, st.lists(U32, max_size=4).map(tuple), st.booleans(), st.booleans()),
    st.builds(LogicalMessage, st.booleans(), U64, TEXT, st.binary(max_size=20)),
)


@given(MESSAGES)
def test_every_message_is_read_as_it_was_written(message: Any) -> None:
    assert decode(encode(message)) == message


@given(MESSAGES, st.data())
def test_a_message_that_is_cut_or_longer_is_no_message(message: Any, data: st.DataObject) -> None:
    payload = encode(message)
    damaged = data.draw(
        st.one_of(st.integers(0, len(payload) - 1).map(lambda n: payload[:n]), st.just(payload + b"\0")),
        label="damaged",
    )
    with pytest.raises(InvalidError) as error:
        decode(damaged)
    assert error.value.reason is Reason.INTERNAL


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_invalid_error(payload: bytes) -> None:
    with contextlib.suppress(InvalidError):
        decode(payload)


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(InvalidError):
        decode(b"I\x00\x00@\x00N\x00\x01t\x00\x00\x00\x02\xb0\xa1")
