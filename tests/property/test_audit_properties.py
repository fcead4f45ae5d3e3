"""Leaves against the definition of canonical JSON, offsets against sets, notes against bit flips."""

import json
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from exchange.audit.note import FileSigner, checkpoint_text, open_note, parse_checkpoint, sign_note
from schemas.access import Action, Actor, ActorKind, Role
from schemas.audit import AuditEntry, Checkpoint, Decision, Flow, GrantRef, from_leaf, to_leaf
from schemas.errors import InvalidError, Reason
from schemas.offsets import meant, pack_offsets, unpack_offsets

text = st.text(max_size=8)
whole = st.integers(-(2**53) + 1, 2**53 - 1)
values = st.recursive(
    st.none() | st.booleans() | whole | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
actors = st.builds(
    Actor,
    kind=st.sampled_from(ActorKind),
    id=text,
    department=text,
    role=st.sampled_from(Role),
    zone=text,
    on_behalf_of=st.none() | st.text(min_size=1, max_size=8),
    certificate=text,
)


@st.composite
def entries(draw: st.DrawFn) -> AuditEntry:
    denied = draw(st.booleans())
    return AuditEntry(
        pool=draw(text),
        id=draw(text),
        at=draw(st.integers(1, 2**53 - 1)),
        trace=draw(text),
        gateway=draw(text),
        counter=draw(st.integers(0, 2**53 - 1)),
        salt=draw(text),
        actor=draw(st.none() | actors),
        action=draw(st.sampled_from(Action)),
        resource=draw(text),
        decision=Decision.DENY if denied else Decision.ALLOW,
        reason=draw(st.sampled_from(Reason)) if denied else None,
        grant=draw(st.none() | st.builds(GrantRef, id=text, version=st.integers(0, 2**31), hash=text)),
        purpose=draw(text),
        case=draw(text),
        flow=draw(st.none() | st.sampled_from(Flow)),
        data=draw(st.dictionaries(text, values, max_size=4)),
        algorithms=draw(st.dictionaries(text, text, max_size=2)),
    )


@given(entries())
def test_a_leaf_is_canonical_and_read_back_whole(entry: AuditEntry) -> None:
    leaf = to_leaf(entry)
    assert rfc8785.dumps(json.loads(leaf)) == leaf
    assert from_leaf(leaf) == entry


ranges = st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 300)), min_size=1, max_size=4)


@given(ranges, st.data())
def test_offsets_come_back_as_they_went(some: list[tuple[int, int]], data: st.DataObject) -> None:
    start = tuple(first for first, _ in some)
    end = tuple(first + width for first, width in some)
    share = data.draw(st.sampled_from([0, 1, 40, 99, 100]))
    random = data.draw(st.randoms(use_true_random=False))
    offsets = [[k for k in range(a, b) if random.randrange(100) < share] for a, b in zip(start, end, strict=True)]
    packed = pack_offsets(start, end, offsets)
    assert unpack_offsets(start, end, packed) == offsets
    assert len(packed) <= sum(width for _, width in some) / 6 + 40


@given(ranges, st.data())
def test_one_offset_is_meant_where_unpacking_finds_it(some: list[tuple[int, int]], data: st.DataObject) -> None:
    start = tuple(first for first, _ in some)
    end = tuple(first + width for first, width in some)
    share = data.draw(st.sampled_from([0, 1, 40, 99, 100]))
    random = data.draw(st.randoms(use_true_random=False))
    offsets = [[k for k in range(a, b) if random.randrange(100) < share] for a, b in zip(start, end, strict=True)]
    packed = pack_offsets(start, end, offsets)
    found = unpack_offsets(start, end, packed)
    for partition, (first, last) in enumerate(zip(start, end, strict=True)):
        for offset in range(first - 2, last + 2):
            assert meant(start, end, packed, partition, offset) == (offset in found[partition])
    assert not meant(start, end, packed, len(start), start[0])
    assert not meant(start, end, packed, -1, start[-1])


@given(ranges, st.text(alphabet="rzABab01+/=", max_size=12) | st.text(max_size=6), st.data())
def test_of_text_that_nobody_packed_no_offset_is_meant_that_unpacking_does_not_find(
    some: list[tuple[int, int]], packed: str, data: st.DataObject
) -> None:
    start = tuple(first for first, _ in some)
    end = tuple(first + width for first, width in some)
    partition = data.draw(st.integers(0, len(some) - 1))
    offset = data.draw(st.integers(start[partition] - 1, end[partition]))
    try:
        found = unpack_offsets(start, end, packed)
    except InvalidError:
        return
    assert meant(start, end, packed, partition, offset) == (offset in found[partition])


@given(ranges, st.text(alphabet="rzABab01+/=", max_size=12) | st.text(max_size=6))
def test_offsets_that_nobody_packed_are_refused_or_within_their_ranges(
    some: list[tuple[int, int]], packed: str
) -> None:
    start = tuple(first for first, _ in some)
    end = tuple(first + width for first, width in some)
    try:
        found = unpack_offsets(start, end, packed)
    except InvalidError:
        return
    assert all(set(got) <= set(range(a, b)) for got, a, b in zip(found, start, end, strict=True))


@given(ranges, st.integers(-3, 400))
def test_offsets_outside_their_range_cannot_be_packed(some: list[tuple[int, int]], aside: int) -> None:
    first, width = some[0]
    start = tuple(one for one, _ in some)
    end = tuple(one + size for one, size in some)
    offset = first + aside
    wanted: list[Any] = [[offset], *([] for _ in some[1:])]
    try:
        pack_offsets(start, end, wanted)
    except InvalidError:
        assert not 0 <= aside < width
    else:
        assert 0 <= aside < width


SIGNER = FileSigner("pool.example/audit", Ed25519PrivateKey.generate())
NOTE = sign_note(
    checkpoint_text(Checkpoint(origin="pool.example/audit", size=20852163, root=bytes(range(32)))), [SIGNER]
)


@given(st.integers(0, len(NOTE.encode()) * 8 - 1))
def test_no_bit_of_a_checkpoint_can_be_flipped(bit: int) -> None:
    raw = bytearray(NOTE.encode())
    raw[bit // 8] ^= 1 << bit % 8
    try:
        parsed = parse_checkpoint(open_note(raw.decode(), [SIGNER.key]))
    except (InvalidError, UnicodeDecodeError):
        return
    # Base64 has unused bits in its last character; nothing that is signed depends on them.
    assert parsed.size == 20852163
    assert parsed.root == bytes(range(32))
