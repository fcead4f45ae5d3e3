"""One client, several gateways and several certificates: which of them a call goes to."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
from schemas.names import Lane, Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from schemas.record import NO_ROOT, Batch, Packed, receipt_statement
from tests.kit.twins.gateway_stub import PlaintextClient, identity, serving

TOPIC = Topic.parse("permits.v1")
LANE = f"{identity('').department}/source/{TOPIC}"


class Gateway(stubs.ExchangeServicer):
    """Greets under its name, and answers a published batch when it may."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.may_answer = threading.Event()

    def Hello(self, request: wire.HelloRequest, context: Any) -> wire.HelloReply:  # noqa: N802
        key = identity("").signing_key.public_key().public_bytes_raw()
        return wire.HelloReply(pool_id=self.name, receipt_public_key=key)

    def Publish(self, requests: Iterator[wire.PublishRequest], context: Any) -> Iterator[wire.PublishReply]:  # noqa: N802
        for request in requests:
            assert self.may_answer.wait(10)
            yield wire.PublishReply(sequence=request.sequence, receipt=receipt(request))


def receipt(request: wire.PublishRequest) -> wire.Receipt:
    from exchange.client.publishing import receipt_of

    answer = wire.Receipt(lane=LANE, sequence=request.sequence, root=request.root)
    answer.signature = identity("").signing_key.sign(receipt_statement(receipt_of(answer)))
    return answer


def batch() -> Batch:
    return Batch(
        lane=Lane.parse(LANE),
        sequence=1,
        marks=b"\x00",
        values=Packed.of([b"value"]),
        void_keys=Packed(b"", b""),
        valid=b"",
        previous_root=NO_ROOT,
        root=b"r" * 32,
        signature=b"",
        source_position=b"",
    )


def test_a_gateway_that_does_not_answer_costs_one_call() -> None:
    with serving(Gateway("second")) as second, PlaintextClient(identity(f"127.0.0.1:1, {second}")) as client:
        with pytest.raises(UnavailableError) as caught:
            client.hello()
        assert caught.value.reason is Reason.GATEWAY_UNAVAILABLE
        assert client.hello().pool_id == "second"


def test_the_addresses_are_tried_in_a_circle() -> None:
    with serving(Gateway("first")) as first, PlaintextClient(identity(f"{first},127.0.0.1:1")) as client:
        assert client.hello().pool_id == "first"
        client._gateways.fail_over(client._gateways.current(), UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away"))
        with pytest.raises(UnavailableError):
            client.hello()
        assert client.hello().pool_id == "first"


def test_two_threads_that_met_the_same_silence_skip_one_gateway_and_not_two() -> None:
    away = UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away")
    with PlaintextClient(identity("a:1,b:2,c:3")) as client:
        failed = client._gateways.current()
        client._gateways.fail_over(failed, away)
        client._gateways.fail_over(failed, away)
        assert client._gateways.current().number == 1


@pytest.mark.parametrize(
    "refusal", [InvalidError(Reason.NOT_FOUND, "no"), UnavailableError(Reason.BROKER_UNAVAILABLE, "later")]
)
def test_a_gateway_that_refuses_has_answered(refusal: PoolError) -> None:
    with PlaintextClient(identity("a:1,b:2")) as client:
        client._gateways.fail_over(client._gateways.current(), refusal)
        assert client._gateways.current().number == 0


def test_after_a_reconnection_calls_go_to_the_new_address_under_the_new_identity() -> None:
    with serving(Gateway("old")) as old, serving(Gateway("new")) as new, PlaintextClient(identity(old)) as client:
        assert client.hello().pool_id == "old"
        client.reconnect(identity(new, certificate=b"renewed"))
        assert client.hello().pool_id == "new"
        assert client.identity.certificate == b"renewed"


def test_an_address_that_was_given_outlives_a_reconnection() -> None:
    with serving(Gateway("given")) as given, PlaintextClient(identity("a:1"), address=given) as client:
        client.reconnect(identity("b:2"))
        assert client.hello().pool_id == "given"


def test_a_stream_under_way_ends_on_the_connection_on_which_it_began() -> None:
    old_gateway = Gateway("old")
    with serving(old_gateway) as old, serving(Gateway("new")) as new, PlaintextClient(identity(old)) as client:
        client.hello()
        sent = threading.Event()

        def batches() -> Iterator[Batch]:
            yield batch()
            sent.set()

        receipts = client.publish(TOPIC, batches())
        answers: list[int] = []
        reader = threading.Thread(target=lambda: answers.extend(each.sequence for each in receipts))
        reader.start()
        assert sent.wait(10)
        client.reconnect(identity(new))
        assert client.hello().pool_id == "new"
        old_gateway.may_answer.set()
        reader.join(10)
        assert answers == [1]
