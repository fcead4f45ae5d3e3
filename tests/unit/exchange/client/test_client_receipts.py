"""A receipt proves what it says, field by field, or it is none; and a client takes nothing that none proves."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.client import PoolClient
from exchange.client.receipts import verify_receipt
from schemas.errors import CorruptError, Reason
from schemas.names import Lane
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from schemas.record import NO_ROOT, Batch, OffsetRange, Packed, Receipt, receipt_statement
from tests.kit.twins.gateway_stub import PlaintextClient, identity, serving

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
BARE = Receipt(
    lane=Lane.parse("019a0000-0000-7000-8000-000000000001/source/population.v1"),
    sequence=7,
    root=b"r" * 32,
    runs=(OffsetRange(partition=0, first=10, last=19), OffsetRange(partition=2, first=4, last=4)),
    entry_id="019a0000-0000-7000-8000-0000000000aa",
    leaf_hash=b"l" * 32,
    source_position=b"row 1000",
)
RECEIPT = replace(BARE, signature=KEY.sign(receipt_statement(BARE)))

CHANGES: dict[str, object] = {
    "lane": Lane.parse("019a0000-0000-7000-8000-000000000002/source/population.v1"),
    "sequence": 8,
    "root": b"q" * 32,
    "runs": (OffsetRange(partition=0, first=10, last=19),),
    "entry_id": "019a0000-0000-7000-8000-0000000000ab",
    "leaf_hash": b"m" * 32,
    "source_position": b"row 999",
    "signature": b"",
}


def test_what_the_pool_signed_is_accepted() -> None:
    verify_receipt(RECEIPT, PUBLIC)


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_field_is_found_out(field: str) -> None:
    changed = replace(RECEIPT, **{field: CHANGES[field]})  # type: ignore[arg-type]
    with pytest.raises(CorruptError, match="has not signed") as caught:
        verify_receipt(changed, PUBLIC)
    assert caught.value.reason is Reason.SIGNATURE_INVALID


def test_another_key_proves_nothing() -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(CorruptError):
        verify_receipt(RECEIPT, other)


def test_what_is_no_key_proves_nothing() -> None:
    with pytest.raises(CorruptError):
        verify_receipt(RECEIPT, b"")


# -- the client ------------------------------------------------------------------------------------------------

OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(reversed(range(32))))
BATCH = Batch(
    lane=RECEIPT.lane,
    sequence=RECEIPT.sequence,
    marks=b"\x00",
    values=Packed.of([b"value"]),
    void_keys=Packed(b"", b""),
    valid=b"",
    previous_root=NO_ROOT,
    root=RECEIPT.root,
    signature=b"",
    source_position=RECEIPT.source_position,
)


def on_the_wire(receipt: Receipt) -> wire.Receipt:
    return wire.Receipt(
        lane=str(receipt.lane),
        sequence=receipt.sequence,
        root=receipt.root,
        runs=[wire.Run(partition=run.partition, first=run.first, last=run.last) for run in receipt.runs],
        entry_id=receipt.entry_id,
        leaf_hash=receipt.leaf_hash,
        source_position=receipt.source_position,
        signature=receipt.signature,
    )


def signed(key: ed25519.Ed25519PrivateKey, **fields: Any) -> Receipt:
    bare = replace(BARE, **fields)
    return replace(bare, signature=key.sign(receipt_statement(bare)))


class Gateway(stubs.ExchangeServicer):
    """Says what it is told to say, true or not."""

    receipt: Receipt | None = RECEIPT
    head = (RECEIPT.sequence, RECEIPT.root, RECEIPT.source_position)

    def Hello(self, request: wire.HelloRequest, context: Any) -> wire.HelloReply:  # noqa: N802
        return wire.HelloReply(receipt_public_key=PUBLIC)

    def Resume(self, request: wire.ResumeRequest, context: Any) -> wire.ResumeReply:  # noqa: N802
        sequence, root, position = self.head
        receipt = on_the_wire(self.receipt) if self.receipt else None
        return wire.ResumeReply(sequence=sequence, root=root, source_position=position, receipt=receipt)

    def Publish(self, requests: Iterator[wire.PublishRequest], context: Any) -> Iterator[wire.PublishReply]:  # noqa: N802
        for request in requests:
            assert self.receipt is not None
            yield wire.PublishReply(sequence=request.sequence, receipt=on_the_wire(self.receipt))


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[PoolClient]:
    with serving(gateway) as address, PlaintextClient(identity(address)) as made:
        yield made


def test_a_published_batch_gets_the_receipt_that_the_pool_signed(client: PoolClient) -> None:
    assert list(client.publish(RECEIPT.lane.topic, [BATCH])) == [RECEIPT]


def test_a_receipt_that_another_key_signed_is_not_handed_on(client: PoolClient, gateway: Gateway) -> None:
    gateway.receipt = signed(OTHER)
    with pytest.raises(CorruptError) as caught:
        next(client.publish(RECEIPT.lane.topic, [BATCH]))
    assert caught.value.reason is Reason.SIGNATURE_INVALID


def test_a_lane_head_that_its_receipt_confirms_is_accepted(client: PoolClient) -> None:
    head = client.resume(RECEIPT.lane.topic)
    assert (head.sequence, head.root, head.source_position) == (7, b"r" * 32, b"row 1000")


def test_a_new_lane_needs_no_receipt(client: PoolClient, gateway: Gateway) -> None:
    gateway.receipt, gateway.head = None, (0, b"", b"")
    assert client.resume(RECEIPT.lane.topic).sequence == 0


@pytest.mark.parametrize(
    "receipt",
    {
        "another key": signed(OTHER),
        "another lane": signed(KEY, lane=CHANGES["lane"]),
        "another sequence": signed(KEY, sequence=8),
        "another root": signed(KEY, root=b"q" * 32),
        "another source position": signed(KEY, source_position=b"row 999"),
        "none": None,
    }.items(),
    ids=lambda case: case[0],
)
def test_a_lane_head_that_its_receipt_does_not_confirm_is_refused(
    client: PoolClient, gateway: Gateway, receipt: tuple[str, Receipt | None]
) -> None:
    gateway.receipt = receipt[1]
    with pytest.raises(CorruptError) as caught:
        client.resume(RECEIPT.lane.topic)
    assert caught.value.reason is Reason.SIGNATURE_INVALID


def test_a_lane_head_of_a_new_lane_does_not_bypass_the_receipt(client: PoolClient, gateway: Gateway) -> None:
    gateway.head = (0, b"", b"")
    with pytest.raises(CorruptError):
        client.resume(RECEIPT.lane.topic)
