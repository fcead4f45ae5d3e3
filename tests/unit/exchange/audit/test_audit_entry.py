"""The entry's one form: golden leaves, what is read and what is refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from schemas.access import Action, Actor, ActorKind, Role
from schemas.audit import (
    ENTRY_VERSION,
    MAX_LEAF_BYTES,
    AuditEntry,
    Decision,
    Flow,
    GrantRef,
    fetch_data,
    folded_data,
    from_leaf,
    publish_data,
    to_leaf,
)
from schemas.errors import InvalidError, Reason
from schemas.merkle import leaf_hash
from schemas.offsets import unpack_offsets
from schemas.record import OffsetRange

GOLDEN = Path(__file__).parents[3] / "golden"
FULL = AuditEntry(
    pool="pool.example",
    id="019ab1c2-d3e4-7f50-8a6b-7c8d9e0f1a2b",
    at=1_795_000_000_123_456,
    trace="0123456789abcdef0123456789abcdef",
    gateway="gw1@019ab1c2-0000-7000-8000-000000000001#3",
    counter=42,
    salt="000102030405060708090a0b0c0d0e0f",
    actor=Actor(
        kind=ActorKind.MACHINE,
        id="人社-汇聚",
        department="01935f1e-0000-7000-8000-00000000000c",
        role=Role.CONNECTOR,
        on_behalf_of="staff-7f3a",
        certificate="2a9f",
    ),
    action=Action.FETCH,
    resource="population.v1",
    grant=GrantRef(id="019ab1c2-0000-7000-8000-0000000000aa", version=3, hash="ab" * 32),
    purpose="social-insurance",
    case='社保〔2026〕1号 "x" \\ \t',
    flow=Flow.HORIZONTAL,
    data=fetch_data(
        generation=1,
        start=(0, 100),
        end=(8, 120),
        delivered=[[0, 1, 2, 5], range(100, 120)],
        withdrawn=[[3], []],
        root=bytes(range(32)),
        again=True,
    ),
)
DENIED = AuditEntry(
    pool="pool.example",
    id="019ab1c2-d3e4-7f50-8a6b-7c8d9e0f1a2c",
    at=1_795_000_000_123_457,
    gateway="gw1@019ab1c2-0000-7000-8000-000000000001#1",
    counter=1,
    salt="0f0e0d0c0b0a09080706050403020100",
    actor=None,
    action=Action.PUBLISH,
    decision=Decision.DENY,
    reason=Reason.NO_IDENTITY,
    data=folded_data(count=12, since=1_795_000_000_000_000),
)
GOLDEN_ENTRIES = {"audit_entry_v1_full.json": FULL, "audit_entry_v1_denied.json": DENIED}


@pytest.mark.parametrize(("name", "entry"), GOLDEN_ENTRIES.items())
def test_golden_leaves_are_read_and_written_for_ever(name: str, entry: AuditEntry) -> None:
    """These files never change: leaves of their kind are in logs that cannot be rewritten."""
    leaf = (GOLDEN / name).read_bytes()
    assert from_leaf(leaf) == entry
    assert to_leaf(entry) == leaf


def test_golden_hashes_are_those_on_record() -> None:
    digests = json.loads((GOLDEN / "audit_entry_hashes.json").read_text())
    assert digests == {name: leaf_hash((GOLDEN / name).read_bytes()).hex() for name in GOLDEN_ENTRIES}
    full = (GOLDEN / "audit_entry_v1_full.json").read_bytes()
    assert digests["audit_entry_v1_full.json"] == hashlib.sha256(b"\0" + full).hexdigest()


def test_a_leaf_is_what_another_rfc_8785_writer_writes() -> None:
    for entry in GOLDEN_ENTRIES.values():
        leaf = to_leaf(entry)
        assert rfc8785.dumps(json.loads(leaf)) == leaf


def test_what_says_nothing_is_left_out() -> None:
    bare = AuditEntry(pool="p", id="i", at=1, gateway="g", counter=1, salt="00", actor=None, action=Action.RESUME)
    assert set(json.loads(to_leaf(bare))) == {
        "action", "algorithms", "at", "counter", "decision", "gateway", "id", "pool", "salt", "version",
    }  # fmt: skip
    assert from_leaf(to_leaf(bare)) == bare


def changed(**fields: Any) -> bytes:
    """The full entry's leaf with other fields, in canonical form."""
    value = json.loads(to_leaf(FULL)) | fields
    return rfc8785.dumps({name: item for name, item in value.items() if item != "left out"})


def test_fields_of_a_later_pool_are_skipped() -> None:
    assert from_leaf(changed(weather={"sky": ["grey"]})) == FULL


def test_words_of_a_later_pool_are_kept_as_text() -> None:
    later = from_leaf(changed(action="exchange:records:erase", decision="deny", reason="full_moon"))
    assert (later.action, later.reason) == ("exchange:records:erase", "full_moon")
    assert to_leaf(later) == changed(action="exchange:records:erase", decision="deny", reason="full_moon")


@pytest.mark.parametrize(
    "leaf",
    [
        changed(version=ENTRY_VERSION + 1),
        changed(version="1"),
        changed(version="left out"),
        changed(counter="1"),
        changed(counter=True),
        changed(at=-1),
        changed(pool="left out"),
        changed(actor={"kind": "ghost", "id": "x", "role": "connector", "zone": "default"}),
        changed(grant={"id": "x"}),
        changed(decision="perhaps"),
        changed(decision="deny"),
        changed(data=[1]),
        to_leaf(FULL).replace(b'"at":', b'"at": '),
        to_leaf(FULL)[:-1] + b',"version":1}',
        to_leaf(FULL)[:-1],
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=range(18),
)
def test_what_is_no_entry_is_refused(leaf: bytes) -> None:
    with pytest.raises(InvalidError) as caught:
        from_leaf(leaf)
    assert caught.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize(
    "fields",
    [
        {"decision": Decision.DENY},
        {"reason": Reason.NO_IDENTITY},
        {"at": 0},
        {"at": 2**53},
        {"counter": -1},
    ],
)
def test_an_entry_that_contradicts_itself_cannot_be_made(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        replace(FULL, **fields)


@pytest.mark.parametrize(
    "entry",
    [
        replace(FULL, data={"note": "x" * MAX_LEAF_BYTES}),
        replace(FULL, data={"share": 0.5}),  # type: ignore[dict-item]
        replace(FULL, data={"count": 2**53}),
        replace(FULL, case="\ud800"),
        replace(FULL, data={"note": "\ud800"}),
    ],
    ids=["too long", "a float", "too large a number", "no text", "no text in the data"],
)
def test_what_has_no_canonical_leaf_is_refused(entry: AuditEntry) -> None:
    with pytest.raises(InvalidError):
        to_leaf(entry)


def test_a_publication_says_where_its_records_stand() -> None:
    data = publish_data(
        lane="d/c/t.v1",
        sequence=7,
        count=3,
        schema_ids=(5,),
        root=bytes(32),
        runs=(OffsetRange(partition=0, first=4, last=5), OffsetRange(partition=1, first=9, last=9)),
        recovered=True,
    )
    assert data["runs"] == [[0, 4, 5], [1, 9, 9]]
    assert (data["recovered"], data["sequence"], data["count"], data["root"]) == (True, 7, 3, "00" * 32)


def test_a_release_says_exactly_which_records_went_out() -> None:
    data: dict[str, Any] = dict(FULL.data)
    start, end = tuple(data["from"]), tuple(data["to"])
    assert unpack_offsets(start, end, data["delivered"]) == [[0, 1, 2, 5], list(range(100, 120))]
    assert unpack_offsets(start, end, data["withdrawn"]) == [[3], []]
    assert (data["count"], data["withdrawn_count"], data["again"]) == (24, 1, True)
    assert "gap" not in data


def test_ten_thousand_scattered_records_fit_a_leaf() -> None:
    scattered = [[k for k in range(16_384) if hashlib.sha256(b"%d" % k).digest()[0] < 160]]
    data = fetch_data(generation=1, start=(0,), end=(16_384,), delivered=scattered, withdrawn=[[]], root=bytes(32))
    assert len(to_leaf(replace(FULL, data=data))) < 4_000
