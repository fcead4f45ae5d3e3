"""Texts of gRPC messages: what the database cannot have is refused before a handler sees it."""

import pytest
from google.protobuf.message import Message

from exchange.api.statuses import refuse_zero
from schemas.errors import InvalidError, Reason
from schemas.proto.pool.v1 import exchange_pb2 as wire


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (wire.FetchRequest(grant_id="g\0"), "grant_id"),
        (wire.CommitRequest(header=wire.RequestHeader(case_number="\0")), "case_number"),
        (wire.ReportRequest(streams=[wire.Stream(name="a"), wire.Stream(name="b", mode="\0")]), "mode"),
    ],
)
def test_a_zero_character_is_refused_wherever_it_stands(message: Message, field: str) -> None:
    with pytest.raises(InvalidError, match=f"zero character in {field}") as caught:
        refuse_zero(message)
    assert caught.value.reason is Reason.REQUEST_INVALID


def test_bytes_and_numbers_may_be_zero() -> None:
    stream = wire.Stream(name="a", quarantine={"TYPE": 0})
    refuse_zero(wire.FetchRequest(header=wire.RequestHeader(purpose="王"), grant_id="g", position=b"\0"))
    refuse_zero(wire.ReportRequest(streams=[stream, stream]))
